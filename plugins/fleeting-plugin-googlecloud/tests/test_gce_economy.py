"""How many requests the plugin sends."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
import pytest

from fleeting.types import ConnectorSettings
from gce_plugin import open_group, running_group, settle, states
from gce_state import Pace
from taskscaler import Policy, Settings, Taskscaler

if TYPE_CHECKING:
    from gce_cloud import GoogleCloud

pytestmark = pytest.mark.anyio


def counted(cloud: GoogleCloud, since: int = 0) -> Counter[str]:
    """Return the number of requests to each method, after the first `since` requests."""
    return Counter(one.name.rpartition(".")[2] for one in cloud.calls(since=since))


@pytest.mark.parametrize("size", [0, 30])
async def test_listing_is_two_requests(cloud: GoogleCloud, size: int) -> None:
    """A listing takes two requests, whatever the size of the group."""
    async with running_group(cloud, size) as (group, _):
        before = len(cloud.calls())
        for _ in range(3):
            assert len((await group.update()).instances) == size
        assert counted(cloud, before) == {"get": 3, "listManagedInstances": 3}


async def test_opening(cloud: GoogleCloud) -> None:
    """Opening takes seven requests."""
    cloud.group()
    async with open_group(cloud):
        assert counted(cloud) == {"get": 5, "listManagedInstances": 1, "setMetadata": 1}


async def test_life_of_fifty_instances(cloud: GoogleCloud) -> None:
    """Each instance costs four requests for its key; the other requests are shared."""
    cloud.group()
    async with open_group(cloud) as group:
        before = len(cloud.calls())
        await group.increase(50, "one")
        ids = list(states(await settle(cloud, group)))
        async with anyio.create_task_group() as tasks:
            for id in ids:
                tasks.start_soon(group.connect_info, id)
        for id in ids:
            await group.heartbeat(id)
        await group.decrease(ids)
        found = counted(cloud, before)
        # For each instance its description, and one look at the operation that writes its key;
        # two listings, and one look at each of two other operations.
        assert 104 <= found.pop("get") <= 110
        assert found == {
            "createInstances": 1,
            "deleteInstances": 1,
            "listManagedInstances": 2,
            "setMetadata": 50,
        }


async def test_jobs_send_no_requests(cloud: GoogleCloud) -> None:
    """Twenty consecutive tasks on one instance send no request."""
    cloud.group(pace=Pace(create=0.05, boot=0.05, delete=0.05))
    settings = Settings(
        max_instances=1,
        policy=Policy(idle_time=timedelta(hours=1)),
        update_interval_when_expecting=timedelta(milliseconds=50),
        delete_instances_on_shutdown=True,
        shutdown_deletion_interval=timedelta(milliseconds=100),
    )
    connector = ConnectorSettings(protocol_port=cloud.use_machines())
    async with open_group(cloud) as group:
        async with Taskscaler([group], settings, connector=connector) as scaler:
            async with scaler.acquire("first") as acquisition, acquisition.connect():
                pass
            before = len(cloud.calls())
            for number in range(20):
                async with scaler.acquire(str(number)) as acquisition:
                    async with acquisition.connect() as connection:
                        assert (await connection.run("true")).succeeded
            assert counted(cloud, before) == {}
