"""How many requests the plugin sends."""

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
    """Return the number of calls of each operation, after the first `since` calls."""
    return Counter(call.operation for call in cloud.calls()[since:])


@pytest.mark.parametrize("size", [0, 30])
async def test_listing_is_one_request(cloud: AwsCloud, size: int) -> None:
    """A listing takes one request, whatever the size of the group."""
    cloud.group("builders", desired=size, maximum=30)
    async with open_group(cloud) as group:
        before = len(cloud.calls())
        for _ in range(3):
            assert len((await group.update()).instances) == size
        assert counted(cloud, before) == {DESCRIBE: 3}


async def test_increase_is_two_requests(cloud: AwsCloud) -> None:
    """An increase takes two requests, whatever its count."""
    cloud.group("builders", maximum=30)
    async with open_group(cloud) as group:
        before = len(cloud.calls())
        await group.increase(20, "one")
        assert counted(cloud, before) == {DESCRIBE: 1, "SetDesiredCapacity": 1}


async def test_life_of_an_instance(cloud: AwsCloud) -> None:
    """Each instance costs a pushed key and a termination; the other requests are shared."""
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


async def test_jobs_send_no_requests(cloud: AwsCloud) -> None:
    """Twenty consecutive tasks on one instance send no request."""
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
    """Groups of one provider in one account and region share a limiter."""
    cloud.group("builders")
    cloud.group("testers")
    provider = AwsProvider()
    async with (
        open_group(cloud, provider=provider) as first,
        open_group(cloud, provider=provider, name="testers") as second,
        open_group(cloud, provider=AwsProvider()) as other,
    ):
        assert isinstance(first, AwsGroup)
        assert isinstance(second, AwsGroup)
        assert isinstance(other, AwsGroup)
        assert first._clients.limiter is second._clients.limiter
        assert first._clients.limiter is not other._clients.limiter


async def test_each_request_waits_for_its_turn(
    cloud: AwsCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every request, repeated ones included, waits for the limiter."""
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
