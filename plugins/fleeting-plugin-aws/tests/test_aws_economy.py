"""How often AWS is asked: it counts the requests of an account, and so do we."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
import pytest

from aws_errors import Throttled
from aws_plugin import open_group, settle, states
from fleeting.types import ConnectorSettings
from fleeting_plugin_aws import AwsProvider
from fleeting_plugin_aws._group import AwsGroup
from fleeting_plugin_aws._limiter import Limiter
from taskscaler import Policy, Settings, Taskscaler

if TYPE_CHECKING:
    from aws_cloud import AwsCloud

pytestmark = pytest.mark.anyio

DESCRIBE = "DescribeAutoScalingGroups"


def counted(cloud: AwsCloud, since: int = 0) -> Counter[str]:
    """Return how often each operation was asked for since so many calls."""
    return Counter(call.operation for call in cloud.calls()[since:])


@pytest.mark.parametrize("size", [0, 30])
async def test_a_listing_is_one_request(cloud: AwsCloud, size: int) -> None:
    """Whatever the size of the group, a listing costs one request."""
    cloud.group("builders", desired=size, maximum=30)
    async with open_group(cloud) as group:
        before = len(cloud.calls())
        for _ in range(3):
            assert len((await group.update()).instances) == size
        assert counted(cloud, before) == {DESCRIBE: 3}


async def test_growth_is_two_requests(cloud: AwsCloud) -> None:
    """However many instances are asked for together, that costs a look and a write."""
    cloud.group("builders", maximum=30)
    async with open_group(cloud) as group:
        before = len(cloud.calls())
        await group.increase(20, "one")
        assert counted(cloud, before) == {DESCRIBE: 1, "SetDesiredCapacity": 1}


async def test_life_of_an_instance(cloud: AwsCloud) -> None:
    """An instance costs a pushed key and a termination; all else is shared by those beside it."""
    cloud.group("builders", maximum=30)
    async with open_group(cloud) as group:
        before = len(cloud.calls())
        await group.increase(20, "one")
        ids = list(states(await settle(cloud, group)))
        async with anyio.create_task_group() as tasks:
            for id in ids:
                tasks.start_soon(group.connect_info, id)
        for id in ids:
            await group.heartbeat(id)
        await group.decrease(ids)
        found = counted(cloud, before)
        assert found.pop(DESCRIBE) == 4  # To grow, two listings, to shrink.
        assert found == {
            "SetDesiredCapacity": 1,
            "DescribeInstances": 1,
            "SendSSHPublicKey": 20,
            "TerminateInstanceInAutoScalingGroup": 20,
        }


async def test_jobs_cost_nothing(cloud: AwsCloud) -> None:
    """Twenty tasks on one instance, one after the other, cost not one request."""
    port = cloud.use_machines()
    cloud.group("builders")
    settings = Settings(
        max_instances=1,
        policy=Policy(idle_time=timedelta(hours=1)),
        update_interval_when_expecting=timedelta(milliseconds=50),
        delete_instances_on_shutdown=True,
        shutdown_deletion_interval=timedelta(milliseconds=100),
    )
    connector = ConnectorSettings(protocol_port=port)
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


async def test_groups_of_an_account_share_their_limit(cloud: AwsCloud) -> None:
    """Two groups that one provider has open in one region take turns."""
    cloud.group("builders")
    cloud.group("testers")
    provider = AwsProvider()
    async with (
        open_group(cloud, provider=provider) as first,
        open_group(cloud, provider=provider, name="testers") as second,
        open_group(cloud, provider=AwsProvider()) as stranger,
    ):
        assert isinstance(first, AwsGroup)
        assert isinstance(second, AwsGroup)
        assert isinstance(stranger, AwsGroup)
        assert first._clients.limiter is second._clients.limiter
        assert first._clients.limiter is not stranger._clients.limiter


async def test_each_request_waits_for_its_turn(
    cloud: AwsCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is sent takes a turn, also what is sent again."""
    cloud.group("builders", desired=2)
    turns: list[float] = []
    take = Limiter.take

    def counting(limiter: Limiter, now: float) -> float:
        turns.append(now)
        return take(limiter, now)

    monkeypatch.setattr(Limiter, "take", counting)
    async with open_group(cloud) as group:
        cloud.fail("DescribeAutoScalingGroups", Throttled())
        ids = list(states(await group.update()))
        await group.connect_info(ids[0])
        await group.decrease(ids)
    assert len(turns) == len(cloud.calls()) > 6
