"""The scaler on a failing cloud: no task is lost, no instance is left, and reasons are shown.

The scaler has short intervals, and each instance is a real SSH server. Tests wait
for events and conditions, never for a length of time.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from aws_errors import (
    AccessDenied,
    CredentialsExpired,
    LostReply,
    LostRequest,
    Throttled,
    Unavailable,
)
from aws_plugin import open_group
from fleeting.errors import OutcomeUnknown
from fleeting.types import ConnectorSettings
from fleeting_plugin_aws import AwsProvider
from taskscaler import AcquisitionLost, Settings, Taskscaler

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from aws_cloud import AwsCloud
    from aws_errors import Fault

pytestmark = pytest.mark.anyio

LIMIT_SECONDS = 30.0
SHORT = timedelta(milliseconds=100)
SETTINGS = Settings(
    max_instances=5,
    update_interval=SHORT,
    update_interval_when_expecting=timedelta(milliseconds=30),
    increase_interval=timedelta(0),
    backoff=SHORT,
    backoff_limit=timedelta(milliseconds=500),
    deletion_retry_interval=timedelta(milliseconds=300),
    delete_instances_on_shutdown=True,
    shutdown_deletion_interval=timedelta(milliseconds=300),
    shutdown_deletion_retries=20,
)


def left(cloud: AwsCloud, *names: str) -> dict[str, tuple[int, list[str]]]:
    """Return the desired capacity and the members of each group that is not empty."""
    found: dict[str, tuple[int, list[str]]] = {}
    for name in names or ("builders",):
        with suppress(KeyError):  # It may have been deleted, and its members with it.
            found |= _left(cloud, name)
    return found


def _left(cloud: AwsCloud, name: str) -> dict[str, tuple[int, list[str]]]:
    members = cloud.members(name)
    there = [id for id, state in members.items() if not state.startswith("Terminating")]
    return {name: (cloud.desired(name), there)} if cloud.desired(name) or there else {}


@asynccontextmanager
async def scaling(
    cloud: AwsCloud, *names: str, settings: Settings = SETTINGS, **changes: Any
) -> AsyncGenerator[Taskscaler]:
    """Scale groups, and assert that they are empty at the end."""
    port = cloud.use_machines()
    provider = AwsProvider()
    async with AsyncExitStack() as stack:
        groups = [
            await stack.enter_async_context(
                open_group(cloud, provider=provider, name=name, **changes)
            )
            for name in names or ("builders",)
        ]
        connector = ConnectorSettings(protocol_port=port)
        with anyio.fail_after(LIMIT_SECONDS):
            async with Taskscaler(groups, settings, connector=connector) as scaler:
                yield scaler
    assert left(cloud, *names) == {}


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
async def waiting(scaler: Taskscaler, key: str = "a") -> AsyncGenerator[list[str]]:
    """Run a task concurrently; leaving the block waits until it is done."""
    instances: list[str] = []

    async def task() -> None:
        instances.append(await run(scaler, key))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(task)
        yield instances
    assert len(instances) == 1


async def test_throttling(cloud: AwsCloud) -> None:
    """While AWS throttles, tasks wait with a reason; afterwards they run."""
    cloud.group("builders")
    async with scaling(cloud, max_attempts=1) as scaler:
        cloud.fail("*", Throttled(), times=None)
        async with waiting(scaler) as instances:
            explanation = await until_explained(scaler, "Rate exceeded")
            assert "requests_per_second" in explanation
            assert instances == []
            cloud.mend()


async def test_internal_failures(cloud: AwsCloud) -> None:
    """A change that AWS may have carried out before it failed is not repeated."""
    cloud.group("builders")
    async with scaling(cloud, max_attempts=1) as scaler:
        cloud.fail("SetDesiredCapacity", LostReply())
        cloud.fail("DescribeAutoScalingGroups", Unavailable(), times=3)
        async with waiting(scaler):
            pass
        assert len(cloud.calls("SetDesiredCapacity")) == 1


async def test_credentials_expire_and_are_renewed(
    cloud: AwsCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With expired credentials, tasks wait with a reason until the file is renewed."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    old, new = "AKIAOLDOLDOLDOLDOLD1", "AKIANEWNEWNEWNEWNEW1"
    file = tmp_path / "credentials"
    text = "[default]\naws_access_key_id = {}\naws_secret_access_key = made-up\n"
    file.write_text(text.format(old))
    cloud.group("builders")
    async with scaling(cloud, credentials_file=file) as scaler:
        cloud.fail("*", CredentialsExpired(), times=None, access_key=old)
        async with waiting(scaler):
            assert "renew the credentials" in await until_explained(scaler, "expired")
            file.write_text(text.format(new))


@pytest.mark.parametrize(
    ("operation", "action", "launched"),
    [
        ("SetDesiredCapacity", "autoscaling:SetDesiredCapacity", 0),
        ("SendSSHPublicKey", "ec2-instance-connect:SendSSHPublicKey", 1),
        ("DescribeInstances", "ec2:DescribeInstances", 1),
    ],
)
async def test_a_permission_is_missing(
    cloud: AwsCloud, operation: str, action: str, launched: int
) -> None:
    """The task waits with the name of the permission, at most one instance is launched for it."""
    cloud.group("builders")
    cloud.fail(operation, AccessDenied(), times=None)
    async with scaling(cloud) as scaler, waiting(scaler) as instances:
        await until_explained(scaler, f"allow {action}")
        denied = len(cloud.calls(operation))
        await cloud.reached(operation, denied + 1)
        assert len(cloud.members("builders")) == launched
        assert instances == []
        cloud.mend()


async def test_group_is_deleted(cloud: AwsCloud) -> None:
    """When the group is deleted, its task ends, the next task waits, and the scaler can stop."""
    cloud.group("builders")
    async with scaling(cloud) as scaler:
        with pytest.raises(AcquisitionLost, match="takes it away"):
            async with scaler.acquire("a"):
                cloud.delete_group("builders")
                await anyio.sleep_forever()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, scaler, "b")
            await until_explained(scaler, "change name in plugin_config")
            tasks.cancel_scope.cancel()


async def test_group_is_full(cloud: AwsCloud) -> None:
    """When the group is full, the next task waits with a reason for a free slot."""
    cloud.group("builders", maximum=1)
    async with scaling(cloud) as scaler:
        async with scaler.acquire("a"):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run, scaler, "b")
                assert "1" in await until_explained(scaler, "the group's size of 1")
                tasks.cancel_scope.cancel()
        assert await run(scaler, "c")


async def test_maximum_is_lowered(cloud: AwsCloud) -> None:
    """When `MaxSize` is lowered, the reason contains the command that raises it."""
    cloud.group("builders", maximum=5)
    async with scaling(cloud) as scaler:
        cloud.change("builders", maximum=0)
        async with waiting(scaler):
            explanation = await until_explained(scaler, "--max-size")
            assert "max_size of 0" in explanation
            cloud.change("builders", maximum=5)


async def test_one_zone_without_capacity(cloud: AwsCloud) -> None:
    """If one zone has no capacity, the tasks run in the other one."""
    cloud.group("builders", zones=2)
    cloud.room(0, zone="a")
    async with scaling(cloud) as scaler:
        async with anyio.create_task_group() as tasks:
            for key in "abc":
                tasks.start_soon(run, scaler, key)


async def test_next_group_is_used_without_capacity(cloud: AwsCloud) -> None:
    """If a group has no capacity, the next one is used, and no instance comes later."""
    cloud.group("spot", spot=True, mixed=True, types=("m5.large",))
    cloud.group("ondemand")
    cloud.room(0, instance_type="m5.large")
    async with scaling(cloud, "spot", "ondemand") as scaler:
        async with anyio.create_task_group() as tasks:
            for key in "ab":
                tasks.start_soon(run, scaler, key)
        assert {one.group for one in scaler.instances()} == {
            "aws/123456789012/eu-central-1/ondemand"
        }
        cloud.unlimited()
        assert cloud.members("spot") == {}


async def test_capacity_returns(cloud: AwsCloud) -> None:
    """Without capacity, tasks wait with a reason until there is capacity again."""
    cloud.group("builders")
    cloud.room(0)
    async with scaling(cloud) as scaler:
        async with waiting(scaler):
            explanation = await until_explained(scaler, "sufficient t3.micro capacity")
            assert "eu-central-1a" in explanation
            cloud.unlimited()


def terminate(cloud: AwsCloud, id: str) -> None:
    """Interrupt an instance; its group replaces it."""
    cloud.interrupt(id)


def become_unhealthy(cloud: AwsCloud, id: str) -> None:
    """Make an instance fail its group's health check; its group replaces it."""
    cloud.set_state(id, "InService", health="Unhealthy")


@pytest.mark.parametrize("lose", [terminate, become_unhealthy])
async def test_instance_is_terminated_during_a_job(
    cloud: AwsCloud, lose: Callable[[AwsCloud, str], None]
) -> None:
    """A task whose instance is lost ends at once, and the next attempt gets another instance."""
    cloud.group("builders", spot=True)
    # The replacement that AWS launches is ours, so it is used, and removed at the end.
    async with scaling(cloud) as scaler:
        with pytest.raises(AcquisitionLost, match=r"takes it away|no longer listed") as caught:
            async with scaler.acquire("a") as acquisition:
                lose(cloud, acquisition.instance)
                await anyio.sleep_forever()
        assert await run(scaler, "a") != caught.value.instance
        assert len(cloud.calls("SetDesiredCapacity")) == 1


async def test_announced_interruption(cloud: AwsCloud) -> None:
    """An instance gets no further task once its interruption was announced."""
    cloud.group("builders", spot=True)
    queue = cloud.queue("interruptions")
    async with scaling(cloud, interruption_queue_url=queue.url) as scaler:
        async with scaler.acquire("a") as acquisition:
            first = acquisition.instance
            queue.warn_of_interruption(first)
            await cloud.reached("DeleteMessageBatch")
        assert await run(scaler, "b") != first


@pytest.mark.parametrize(
    ("fault", "desired", "outcome"),
    [(LostReply(), None, 2), (LostRequest(), None, 0), (LostRequest(), 1, None)],
)
async def test_the_desired_capacity_tells_what_a_lost_request_created(
    cloud: AwsCloud, fault: Fault, desired: int | None, outcome: int | None
) -> None:
    """AWS tells by its intention; None if another program changed that meanwhile."""
    cloud.group("builders")
    async with open_group(cloud) as group:
        cloud.fail("SetDesiredCapacity", fault)
        with pytest.raises(OutcomeUnknown):
            await group.increase(2, "operation")
        if desired is not None:
            async with cloud.client("autoscaling") as autoscaling:
                await autoscaling.set_desired_capacity(
                    AutoScalingGroupName="builders", DesiredCapacity=desired
                )
        assert await group.outcome("operation") == outcome
        assert await group.outcome("an earlier one") is None


async def test_lost_replies_lose_nothing(cloud: AwsCloud) -> None:
    """All tasks run although answers are lost, and no instance is left or duplicated."""
    cloud.group("builders")
    async with scaling(cloud) as scaler:
        for operation in (
            "SetDesiredCapacity",
            "TerminateInstanceInAutoScalingGroup",
            "SendSSHPublicKey",
        ):
            cloud.fail(operation, LostReply(), times=2)
        async with anyio.create_task_group() as tasks:
            for key in "abcd":
                tasks.start_soon(run, scaler, key)
        launched = {one.id for one in scaler.instances()}
        assert 1 <= len(launched) <= 5
