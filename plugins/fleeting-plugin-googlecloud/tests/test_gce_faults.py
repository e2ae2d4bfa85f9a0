"""The scaler on a failing cloud: no task is lost, no instance is left, and reasons are shown.

The scaler has short intervals, and each instance is a real SSH server. Tests wait
for events and conditions, never for a length of time.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from fleeting.types import ConnectorSettings
from gce_faults import LostReply, LostRequest, forbidden, rate_limited, unauthorized, unavailable
from gce_plugin import open_group
from gce_state import Pace
from taskscaler import AcquisitionLost, AcquisitionSuspended, Settings, Taskscaler, UnknownInstances

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from gce_cloud import GoogleCloud
    from gce_faults import Fault

pytestmark = pytest.mark.anyio

LIMIT_SECONDS = 30.0
SHORT = timedelta(milliseconds=100)
SETTINGS = Settings(
    max_instances=5,
    update_interval=SHORT,
    update_interval_when_expecting=timedelta(milliseconds=50),
    increase_interval=timedelta(0),
    backoff=SHORT,
    backoff_limit=timedelta(milliseconds=500),
    deletion_retry_interval=timedelta(milliseconds=300),
    delete_instances_on_shutdown=True,
    shutdown_deletion_interval=timedelta(milliseconds=300),
    shutdown_deletion_retries=20,
)
SOON = Pace(operation=0.01, create=0.05, boot=0.05, delete=0.05, suspend=0.05)
CREATE = "instanceGroupManagers.createInstances"
DELETE = "instanceGroupManagers.deleteInstances"
LIST = "instanceGroupManagers.listManagedInstances"


@pytest.fixture(autouse=True)
def watch_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for interruptions all the time."""
    monkeypatch.setattr("fleeting_plugin_googlecloud._group.WATCH_SECONDS", 0.05)


@asynccontextmanager
async def scaling(
    cloud: GoogleCloud, *names: str, settings: Settings = SETTINGS, **changes: Any
) -> AsyncGenerator[Taskscaler]:
    """Scale groups, and assert that they are empty at the end."""
    connector = ConnectorSettings(protocol_port=cloud.use_machines())
    async with AsyncExitStack() as stack:
        groups = [
            await stack.enter_async_context(open_group(cloud, name=name, **changes))
            for name in names or ("builders",)
        ]
        with anyio.fail_after(LIMIT_SECONDS):
            async with Taskscaler(groups, settings, connector=connector) as scaler:
                yield scaler
    for group in cloud.groups.values():
        assert (group.target, cloud.members(group.name)) == (0, {})


async def run(scaler: Taskscaler, key: str) -> str:
    """Run a command in a slot, again if the instance is lost, and return the instance."""
    while True:
        try:
            async with scaler.acquire(key) as acquisition, acquisition.connect() as connection:
                assert (await connection.run("echo hello")).stdout == b"hello\n"
                return acquisition.instance
        except AcquisitionLost:
            continue


async def until_explained(scaler: Taskscaler, text: str) -> str:
    """Wait until the explanation contains a text, and return the explanation."""
    while text not in (explanation := scaler.explain()):
        await anyio.sleep(0.01)
    return explanation


@asynccontextmanager
async def waiting(scaler: Taskscaler, key: str = "a") -> AsyncGenerator[None]:
    """Run a task concurrently; leaving the block waits until it is done."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, scaler, key)
        yield


async def test_throttling(cloud: GoogleCloud) -> None:
    """While Google throttles, tasks wait with a reason; afterwards they run."""
    cloud.group(pace=SOON)
    async with scaling(cloud) as scaler:
        cloud.fail("*", rate_limited(), times=None)
        async with waiting(scaler):
            explanation = await until_explained(scaler, "rateLimitExceeded")
            assert "raise the request rate" in explanation
            cloud.mend()


async def test_missing_permission(cloud: GoogleCloud) -> None:
    """Without a permission, tasks wait with a reason, and no instance is created."""
    cloud.group(pace=SOON)
    async with scaling(cloud) as scaler:
        cloud.fail(CREATE, forbidden(), times=None)
        async with waiting(scaler):
            await until_explained(scaler, "shows the role that allows it")
            assert cloud.members() == {}
            cloud.mend()


async def test_credentials_expire_and_are_renewed(cloud: GoogleCloud, tmp_path: Path) -> None:
    """With unusable credentials, tasks wait with a reason until the file is renewed in place."""
    cloud.group(pace=SOON)
    file = tmp_path / "credentials.json"
    good = cloud.credentials.read_text()
    file.write_text(good)
    async with scaling(cloud, credentials_file=file) as scaler:
        file.write_text("{}")
        cloud.fail("*", unauthorized(), times=10)
        async with waiting(scaler):
            await until_explained(scaler, "credentials")
            cloud.mend()
            file.write_text(good)


async def test_permission_to_reach_instances_is_taken_away(cloud: GoogleCloud) -> None:
    """An instance whose key cannot be written is not replaced by others that cannot be reached."""
    cloud.group(pace=SOON)
    async with scaling(cloud) as scaler:
        cloud.deny("compute.instances.setMetadata")
        async with waiting(scaler):
            explanation = await until_explained(scaler, "compute.instances.setMetadata")
            assert "shows the role that allows it" in explanation
            assert len(cloud.calls(CREATE)) == len(cloud.members()) == 1
            cloud.allowed = None


@pytest.mark.parametrize("fault", [LostReply(), LostRequest(), unavailable()])
async def test_lost_requests(cloud: GoogleCloud, fault: Fault) -> None:
    """All tasks run although answers are lost; no instance is created twice or left over."""
    cloud.group(pace=SOON)
    async with scaling(cloud) as scaler:
        for name in (CREATE, DELETE, "instances.setMetadata", LIST):
            cloud.fail(name, fault, times=3)
        async with anyio.create_task_group() as tasks:
            for key in "abc":
                tasks.start_soon(run, scaler, key)
        assert len(scaler.instances()) <= 3
        created = [one for call in cloud.calls(CREATE) for one in call.body["instances"]]
        assert len({one["name"] for one in created}) <= 6


async def test_next_group_is_used_without_capacity(cloud: GoogleCloud) -> None:
    """If a group has no capacity, the next one is used, and no instance comes later."""
    cloud.group("spot", pace=SOON, zones=("europe-west1-c",))
    cloud.group("ondemand")
    cloud.engine.shortages["europe-west1-c"] = [("ZONE_RESOURCE_POOL_EXHAUSTED", "no capacity")]
    connector = ConnectorSettings(protocol_port=cloud.use_machines())
    async with (
        open_group(cloud, name="spot", zone="europe-west1-c") as spot,
        open_group(cloud, name="ondemand") as ondemand,
    ):
        with anyio.fail_after(LIMIT_SECONDS):
            async with Taskscaler([spot, ondemand], SETTINGS, connector=connector) as scaler:
                async with anyio.create_task_group() as tasks:
                    for key in "ab":
                        tasks.start_soon(run, scaler, key)
                assert cloud.members("ondemand")
                while cloud.members("spot"):
                    await anyio.sleep(0.01)
                cloud.engine.shortages.clear()
        assert (cloud.members("spot"), cloud.members("ondemand")) == ({}, {})


async def test_capacity_returns(cloud: GoogleCloud) -> None:
    """Without capacity, tasks wait with a reason until there is capacity again."""
    cloud.group(pace=SOON)
    cloud.engine.shortages["*"] = [("ZONE_RESOURCE_POOL_EXHAUSTED", "no c3 machines now")]
    async with scaling(cloud) as scaler:
        async with waiting(scaler):
            await until_explained(scaler, "no c3 machines now")
            cloud.engine.shortages.clear()


@pytest.mark.parametrize("repair", [False, True])
async def test_interrupted_instance(cloud: GoogleCloud, *, repair: bool) -> None:
    """A task on an interrupted instance ends at once, and runs again on another machine."""
    cloud.group(pace=SOON)
    cloud.template = {"scheduling": {"provisioningModel": "SPOT"}}
    settings = replace(SETTINGS, unknown_instances=UnknownInstances.REMOVE)
    number = ""
    async with scaling(cloud, settings=settings) as scaler:
        with pytest.raises(AcquisitionLost, match=r"interrupted|recreated|takes it away"):
            async with scaler.acquire("a") as acquisition:
                number = cloud.machine(acquisition.instance).number
                cloud.interrupt(acquisition.instance, repair=repair)
                await anyio.sleep_forever()
        name = await run(scaler, "a")
        assert cloud.machine(name).number != number


async def test_announced_shutdown(cloud: GoogleCloud) -> None:
    """An instance that shuts down gracefully gets no further task, and its task goes on."""
    cloud.group(pace=SOON)
    cloud.template = {"scheduling": {"gracefulShutdown": {"enabled": True}}}
    async with scaling(cloud) as scaler:
        async with scaler.acquire("a") as acquisition:
            first = acquisition.instance
            cloud.machine(first).status = "PENDING_STOP"
            assert await run(scaler, "b") != first
            async with acquisition.connect() as connection:
                assert (await connection.run("true")).succeeded


async def test_group_is_deleted(cloud: GoogleCloud) -> None:
    """When the group is deleted, its tasks end, the next one waits with a reason, all can stop."""
    cloud.group(pace=SOON)
    connector = ConnectorSettings(protocol_port=cloud.use_machines())
    async with open_group(cloud) as group:
        with anyio.fail_after(LIMIT_SECONDS):
            async with Taskscaler([group], SETTINGS, connector=connector) as scaler:
                with pytest.raises(AcquisitionLost):
                    async with scaler.acquire("a"):
                        cloud.delete_group()
                        await anyio.sleep_forever()
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(run, scaler, "b")
                    await until_explained(scaler, "does not exist any more")
                    tasks.cancel_scope.cancel()


async def test_suspended_task(cloud: GoogleCloud) -> None:
    """The instance of a suspended task is suspended, and resumed with it."""
    cloud.group(pace=SOON)
    name = ""
    async with scaling(cloud) as scaler:
        async with anyio.create_task_group() as tasks:
            with pytest.raises(AcquisitionSuspended):
                async with scaler.acquire("a") as acquisition:
                    name = acquisition.instance
                    tasks.start_soon(scaler.suspend, "a")
                    await anyio.sleep_forever()
        while cloud.machine(name).status != "SUSPENDED":
            await anyio.sleep(0.01)
        async with scaler.resume("a") as acquisition:
            assert acquisition.instance == name
            assert cloud.machine(name).status == "RUNNING"
            async with acquisition.connect() as connection:
                assert (await connection.run("true")).succeeded
