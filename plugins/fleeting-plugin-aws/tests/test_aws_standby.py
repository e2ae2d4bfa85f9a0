"""Instances that sleep and wake up, also when something fails on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from typing_extensions import override

from aws_errors import AccessDenied, AwsError, Fault, LostReply, Throttled
from aws_plugin import open_group, states
from fleeting.errors import PermissionDenied, ProviderError, QuotaExceeded
from fleeting.types import Accepted, State

if TYPE_CHECKING:
    from aws_cloud import AwsCloud
    from fleeting.abc import InstanceGroup

pytestmark = pytest.mark.anyio


async def until(cloud: AwsCloud, group: InstanceGroup, id: str, state: State) -> list[State]:
    """Wait until an instance is in a state, and return those that it had on the way."""
    seen: list[State] = []
    for _ in range(20):
        found = states(await group.update())[id]
        if found not in seen:
            seen.append(found)
        if found is state:
            return seen
        cloud.settle()
    raise AssertionError(f"{id} does not become {state}, it was {seen}")


async def test_sleep_and_wake(cloud: AwsCloud) -> None:
    """An instance falls asleep and wakes up, and the desired capacity goes with it."""
    cloud.group("builders", desired=2)
    async with open_group(cloud) as group:
        id, other = sorted(states(await group.update()))
        assert await group.suspend([id]) == Accepted(1, (id,))
        seen = await until(cloud, group, id, State.SUSPENDED)
        assert set(seen) <= {State.SUSPENDING, State.SUSPENDED}
        assert (cloud.desired("builders"), (await group.update()).pending) == (1, 0)
        assert await group.resume([id]) == Accepted(1, (id,))
        seen = await until(cloud, group, id, State.RUNNING)
        assert set(seen) <= {State.SUSPENDED, State.RESUMING, State.RUNNING}
        assert cloud.desired("builders") == 2
        assert states(await group.update())[other] is State.RUNNING


async def test_requests_can_be_repeated(cloud: AwsCloud) -> None:
    """What is asked for again is accepted again, and done once."""
    cloud.group("builders", desired=1)
    async with open_group(cloud) as group:
        [id] = states(await group.update())
        for _ in range(2):
            assert (await group.suspend([id])).count == 1
        await until(cloud, group, id, State.SUSPENDED)
        for _ in range(2):
            assert (await group.resume([id])).count == 1
        await until(cloud, group, id, State.RUNNING)
        for operation in ("EnterStandby", "StopInstances", "StartInstances", "ExitStandby"):
            assert len(cloud.calls(operation)) == 1


async def test_a_sleeper_sleeps_on_after_a_restart(cloud: AwsCloud) -> None:
    """A group that is opened anew sees who sleeps, and can wake them."""
    cloud.group("builders", desired=1)
    async with open_group(cloud) as group:
        [id] = states(await group.update())
        await group.suspend([id])
        await until(cloud, group, id, State.SUSPENDED)
    async with open_group(cloud) as group:
        assert states(await group.update()) == {id: State.SUSPENDED}
        await group.resume([id])
        await until(cloud, group, id, State.RUNNING)


async def test_half_asleep_after_a_restart(cloud: AwsCloud) -> None:
    """An instance in standby that runs is left alone, until it is asked for in either way."""
    cloud.group("builders", desired=2)
    async with open_group(cloud) as group:
        first, second = states(await group.update())
        cloud.fail("StopInstances", Throttled(), times=None)
        for id in (first, second):
            await group.suspend([id])
            await group.update()
        cloud.mend()
    async with open_group(cloud) as group:
        listing = await group.update()
        assert states(listing) == dict.fromkeys((first, second), State.UNKNOWN)
        assert "standby" in (listing.instances[0].reason or "")
        await group.suspend([first])
        await group.resume([second])
        await until(cloud, group, first, State.SUSPENDED)
        await until(cloud, group, second, State.RUNNING)


async def test_a_lost_answer_is_made_good(cloud: AwsCloud) -> None:
    """When the answer to a step is lost, asking again goes on from where it came to."""
    cloud.group("builders", desired=1)
    async with open_group(cloud) as group:
        [id] = states(await group.update())
        cloud.fail("EnterStandby", LostReply())
        with pytest.raises(ProviderError):
            await group.suspend([id])
        assert (await group.suspend([id])).count == 1
        await until(cloud, group, id, State.SUSPENDED)
        cloud.fail("ExitStandby", LostReply())
        await group.resume([id])
        await until(cloud, group, id, State.RUNNING)
        assert cloud.desired("builders") == 1


async def test_what_cannot_be_stopped_serves_again(cloud: AwsCloud) -> None:
    """Where stopping is not allowed, the instance leaves standby again and is not lost."""
    cloud.group("builders", desired=1)
    async with open_group(cloud) as group:
        [id] = states(await group.update())
        cloud.fail("StopInstances", AccessDenied(), times=None)
        await group.suspend([id])
        await until(cloud, group, id, State.SUSPENDING)
        await until(cloud, group, id, State.RUNNING)
        assert cloud.desired("builders") == 1
        with pytest.raises(PermissionDenied, match="StopInstances"):
            await group.suspend([id])
        assert len(cloud.calls("EnterStandby")) == 1


async def test_not_allowed_to_sleep(cloud: AwsCloud) -> None:
    """A first step that is refused is an error, and nothing has changed."""
    cloud.group("builders", desired=1)
    async with open_group(cloud) as group:
        [id] = states(await group.update())
        cloud.fail("EnterStandby", AccessDenied())
        with pytest.raises(PermissionDenied):
            await group.suspend([id])
        assert states(await group.update()) == {id: State.RUNNING}


async def test_others_are_listed_when_ec2_is_ill(
    cloud: AwsCloud, caplog: pytest.LogCaptureFixture
) -> None:
    """When EC2 does not say what a sleeper does, it is unknown, and the others are as they are."""
    cloud.group("builders", desired=2)
    async with open_group(cloud) as group:
        id, other = sorted(states(await group.update()))
        await group.suspend([id])
        await until(cloud, group, id, State.SUSPENDED)
        cloud.fail("DescribeInstances", AccessDenied())
        assert states(await group.update()) == {id: State.UNKNOWN, other: State.RUNNING}
        assert "is not known" in caplog.text
        assert states(await group.update())[id] is State.SUSPENDED


async def test_limits_hold_for_sleepers(cloud: AwsCloud) -> None:
    """Nobody falls asleep below `MinSize`, and nobody wakes up above `MaxSize`."""
    cloud.group("builders", desired=2, minimum=1, maximum=2)
    async with open_group(cloud) as group:
        ids = sorted(states(await group.update()))
        accepted = await group.suspend(ids)
        assert accepted.count == 1
        assert isinstance(accepted.error, QuotaExceeded)
        assert "--region eu-central-1" in str(accepted.error)
        assert "--min-size NUMBER" in str(accepted.error)
        [asleep] = accepted.ids
        await until(cloud, group, asleep, State.SUSPENDED)
        await group.increase(1, "one")
        accepted = await group.resume([asleep])
        assert (accepted.count, type(accepted.error)) == (0, QuotaExceeded)
        assert "--max-size NUMBER" in str(accepted.error)


async def test_who_is_not_there_does_not_sleep(cloud: AwsCloud) -> None:
    """An unknown instance is not accepted, beside one that is; and nobody is nobody."""
    cloud.group("builders", desired=1)
    async with open_group(cloud) as group:
        [id] = states(await group.update())
        accepted = await group.suspend([id, "i-00000000000000000"])
        assert accepted.ids == (id,)
        assert "i-00000000000000000" in str(accepted.error)
        assert await group.resume([]) == Accepted(0)


async def test_many_fall_asleep_with_few_requests(cloud: AwsCloud) -> None:
    """AWS takes nineteen at a time, and the plugin asks no more often than needed."""
    cloud.group("builders", desired=25, maximum=25)
    async with open_group(cloud) as group:
        ids = list(states(await group.update()))
        assert (await group.suspend(ids)).count == 25
        assert len(cloud.calls("EnterStandby")) == 2


async def test_who_wakes_up_is_not_overlooked_by_who_grows(cloud: AwsCloud) -> None:
    """Nobody leaves standby while a capacity is set, which would make AWS end one too many."""
    cloud.group("builders", desired=2, protected=False)
    async with open_group(cloud) as group:
        ids = sorted(states(await group.update()))
        await group.suspend(ids)
        for id in ids:
            await until(cloud, group, id, State.SUSPENDED)
        await group.resume(ids)
        cloud.settle()
        async with anyio.create_task_group() as tasks:
            with cloud.hold("SetDesiredCapacity", before=True):
                tasks.start_soon(group.increase, 1, "one")
                await cloud.reached("SetDesiredCapacity")
                tasks.start_soon(group.update)
                # The listing and the sleepers' machines, after which they would leave standby.
                await cloud.reached("DescribeInstances", len(cloud.calls("DescribeInstances")) + 1)
                with anyio.move_on_after(0.3):
                    await cloud.reached("ExitStandby", answered=True)
        for id in ids:
            await until(cloud, group, id, State.RUNNING)
        assert (cloud.desired("builders"), len((await group.update()).instances)) == (3, 3)
        assert set(cloud.members("builders").values()) == {"InService"}


class SpotStays(Fault):
    """EC2 refuses to stop instances among which is one of a spot request."""

    @override
    def error(self, service: str, operation: str) -> AwsError:
        return AwsError(
            "UnsupportedOperation",
            "You can't stop the Spot Instance 'i-0' because it is associated with a one-time Spot"
            " Instance request. You can only stop Spot Instances associated with persistent Spot"
            " Instance requests.",
        )


async def test_who_cannot_be_stopped_keeps_no_other_awake(cloud: AwsCloud) -> None:
    """Of several that are to sleep, the one that EC2 does not stop serves again; others sleep."""
    cloud.group("builders", desired=3)
    async with open_group(cloud) as group:
        ids = sorted(states(await group.update()))
        assert (await group.suspend(ids)).count == 3
        cloud.fail("StopInstances", SpotStays(), times=2)  # All together, and the first alone.
        for _ in range(10):
            await group.update()
            cloud.settle()
        found = states(await group.update())
        [awake] = [id for id, state in found.items() if state is State.RUNNING]
        assert {found[id] for id in ids if id != awake} == {State.SUSPENDED}
        with pytest.raises(ProviderError, match="one-time Spot Instance request"):
            await group.suspend([awake])
