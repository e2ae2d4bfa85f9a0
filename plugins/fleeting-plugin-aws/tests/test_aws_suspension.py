"""Suspending and resuming instances, even when a step fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from typing_extensions import override

from aws_errors import AccessDenied, AwsError, Fault, LostReply
from aws_plugin import drive, open_group, running_group, states
from fleeting.errors import PermissionDenied, ProviderError, QuotaExceeded
from fleeting.types import Accepted, State

if TYPE_CHECKING:
    from aws_cloud import AwsCloud
    from fleeting.abc import InstanceGroup

pytestmark = pytest.mark.anyio


async def until(cloud: AwsCloud, group: InstanceGroup, id: str, state: State) -> list[State]:
    """Wait until an instance is in a state, and return the states that were listed."""
    seen: list[State] = []
    for _ in range(20):
        found = states(await drive(group))[id]
        if found not in seen:
            seen.append(found)
        if found is state:
            return seen
        cloud.settle()
    raise AssertionError(f"{id} did not become {state}; seen: {seen}")


async def tagged(cloud: AwsCloud) -> set[str]:
    """Return the instances that have the tag of a goal."""
    async with cloud.client("ec2") as client:
        answer = await client.describe_instances()
    return {
        one["InstanceId"]
        for reservation in answer["Reservations"]
        for one in reservation["Instances"]
        if any(tag["Key"] == "fleeting:goal" for tag in one.get("Tags", ()))
    }


async def test_suspend_and_resume(cloud: AwsCloud) -> None:
    """An instance is suspended and resumed, and the desired capacity follows."""
    async with running_group(cloud, 2) as (group, [id, other]):
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
    """A repeated request is accepted again, and carried out once."""
    async with running_group(cloud, 1) as (group, [id]):
        for _ in range(2):
            assert (await group.suspend([id])).count == 1
        await until(cloud, group, id, State.SUSPENDED)
        for _ in range(2):
            assert (await group.resume([id])).count == 1
        await until(cloud, group, id, State.RUNNING)
        for operation in ("EnterStandby", "StopInstances", "StartInstances", "ExitStandby"):
            assert len(cloud.calls(operation)) == 1


async def test_suspended_instance_after_a_restart(cloud: AwsCloud) -> None:
    """After opening the group again, suspended instances are listed and can be resumed."""
    async with running_group(cloud, 1) as (group, [id]):
        await group.suspend([id])
        await until(cloud, group, id, State.SUSPENDED)
    async with open_group(cloud) as group:
        assert states(await group.update()) == {id: State.SUSPENDED}
        await group.resume([id])
        await until(cloud, group, id, State.RUNNING)


async def test_half_suspended_instance_after_a_restart(cloud: AwsCloud) -> None:
    """The next process finishes what an earlier one has begun, in both directions."""
    async with running_group(cloud, 2) as (group, [first, second]):
        await group.suspend([first, second])
        await drive(group)
    async with open_group(cloud) as group:
        await until(cloud, group, first, State.SUSPENDED)
        await until(cloud, group, second, State.SUSPENDED)
        await group.resume([second])
    async with open_group(cloud) as group:
        await until(cloud, group, second, State.RUNNING)
        assert states(await drive(group)) == {first: State.SUSPENDED, second: State.RUNNING}
    assert await tagged(cloud) == set()


async def test_reader_takes_no_step(cloud: AwsCloud) -> None:
    """A listing changes nothing, however often it is read, and by whom."""
    async with running_group(cloud, 1) as (group, [id]):
        await group.suspend([id])
        async with open_group(cloud) as reader:
            before = len(cloud.calls())
            for _ in range(5):
                cloud.settle()
                assert states(await reader.update()) == {id: State.SUSPENDING}
                assert states(await group.update()) == {id: State.SUSPENDING}
            sent = {call.operation for call in cloud.calls()[before:]}
            assert {one for one in sent if not one.startswith("Describe")} == set()
        await until(cloud, group, id, State.SUSPENDED)


async def test_instance_that_another_client_put_in_standby(cloud: AwsCloud) -> None:
    """A running instance in standby without a goal is unknown, and left alone."""
    async with running_group(cloud, 1) as (group, [id]):
        async with cloud.client("autoscaling") as client:
            await client.enter_standby(
                AutoScalingGroupName="builders",
                InstanceIds=[id],
                ShouldDecrementDesiredCapacity=True,
            )
        for _ in range(3):
            cloud.settle()
            listing = await drive(group)
            assert states(listing) == {id: State.UNKNOWN}
            assert "standby" in (listing.instances[0].reason or "")
        assert cloud.calls("StopInstances") == cloud.calls("CreateTags") == []


async def test_lost_answers(cloud: AwsCloud) -> None:
    """After a lost answer, a repeated request continues from the state that was reached."""
    async with running_group(cloud, 1) as (group, [id]):
        cloud.fail("EnterStandby", LostReply())
        with pytest.raises(ProviderError):
            await group.suspend([id])
        assert (await group.suspend([id])).count == 1
        await until(cloud, group, id, State.SUSPENDED)
        cloud.fail("ExitStandby", LostReply())
        await group.resume([id])
        await until(cloud, group, id, State.RUNNING)
        assert cloud.desired("builders") == 1


async def test_instance_that_cannot_be_stopped_returns_to_service(cloud: AwsCloud) -> None:
    """If stopping is not allowed, the instance leaves standby again."""
    async with running_group(cloud, 1) as (group, [id]):
        cloud.fail("StopInstances", AccessDenied(), times=None)
        await group.suspend([id])
        await until(cloud, group, id, State.SUSPENDING)
        await until(cloud, group, id, State.RUNNING)
        assert cloud.desired("builders") == 1
        with pytest.raises(PermissionDenied, match="StopInstances"):
            await group.suspend([id])
        assert len(cloud.calls("EnterStandby")) == 1


async def test_refused_first_step(cloud: AwsCloud) -> None:
    """A refused first step is an error, and changes nothing."""
    async with running_group(cloud, 1) as (group, [id]):
        cloud.fail("EnterStandby", AccessDenied())
        with pytest.raises(PermissionDenied):
            await group.suspend([id])
        assert states(await group.update()) == {id: State.RUNNING}


async def test_others_are_listed_when_ec2_fails(
    cloud: AwsCloud, caplog: pytest.LogCaptureFixture
) -> None:
    """If EC2 fails, an instance in standby is unknown, and the others are listed as usual."""
    async with running_group(cloud, 2) as (group, [id, other]):
        await group.suspend([id])
        await until(cloud, group, id, State.SUSPENDED)
        cloud.fail("DescribeInstances", AccessDenied())
        assert states(await group.update()) == {id: State.UNKNOWN, other: State.RUNNING}
        assert "is unknown" in caplog.text
        assert states(await group.update())[id] is State.SUSPENDED


async def test_limits_of_the_group(cloud: AwsCloud) -> None:
    """Instances are not suspended below `MinSize` and not resumed above `MaxSize`."""
    async with running_group(cloud, 2, minimum=1, maximum=2) as (group, ids):
        accepted = await group.suspend(ids)
        assert accepted.count == 1
        assert isinstance(accepted.error, QuotaExceeded)
        assert "--region eu-central-1" in str(accepted.error)
        assert "--min-size NUMBER" in str(accepted.error)
        [suspended] = accepted.ids
        await until(cloud, group, suspended, State.SUSPENDED)
        await group.increase(1, "one")
        accepted = await group.resume([suspended])
        assert (accepted.count, type(accepted.error)) == (0, QuotaExceeded)
        assert "--max-size NUMBER" in str(accepted.error)


async def test_unknown_instance(cloud: AwsCloud) -> None:
    """An unknown instance is not accepted, and an empty request does nothing."""
    async with running_group(cloud, 1) as (group, [id]):
        accepted = await group.suspend([id, "i-00000000000000000"])
        assert accepted.ids == (id,)
        assert "i-00000000000000000" in str(accepted.error)
        assert await group.resume([]) == Accepted(0)


async def test_many_instances_take_few_requests(cloud: AwsCloud) -> None:
    """Instances enter standby in batches of nineteen, the maximum of AWS."""
    async with running_group(cloud, 25, maximum=25) as (group, ids):
        assert (await group.suspend(ids)).count == 25
        assert len(cloud.calls("EnterStandby")) == 2


async def test_resume_during_an_increase(cloud: AwsCloud) -> None:
    """Instances do not leave standby while the desired capacity is being set."""
    async with running_group(cloud, 2, protected=False) as (group, ids):
        await group.suspend(ids)
        for id in ids:
            await until(cloud, group, id, State.SUSPENDED)
        await group.resume(ids)
        cloud.settle()
        async with anyio.create_task_group() as tasks:
            with cloud.hold("SetDesiredCapacity", before=True):
                tasks.start_soon(group.increase, 1, "one")
                await cloud.reached("SetDesiredCapacity")
                tasks.start_soon(drive, group)
                # After this request, the instances would leave standby.
                await cloud.reached("DescribeInstances", len(cloud.calls("DescribeInstances")) + 1)
                with anyio.move_on_after(0.3):
                    await cloud.reached("ExitStandby", answered=True)
        for id in ids:
            await until(cloud, group, id, State.RUNNING)
        assert (cloud.desired("builders"), len((await group.update()).instances)) == (3, 3)
        assert set(cloud.members("builders").values()) == {"InService"}


class SpotCannotStop(Fault):
    """EC2 refuses to stop instances if one of them is a spot instance."""

    @override
    def error(self, service: str, operation: str) -> AwsError:
        return AwsError(
            "UnsupportedOperation",
            "You can't stop the Spot Instance 'i-0' because it is associated with a one-time Spot"
            " Instance request. You can only stop Spot Instances associated with persistent Spot"
            " Instance requests.",
        )


async def test_instance_that_cannot_be_stopped_in_a_batch(cloud: AwsCloud) -> None:
    """The instance that cannot be stopped returns to service; the others are suspended."""
    async with running_group(cloud, 3) as (group, ids):
        assert (await group.suspend(ids)).count == 3
        cloud.fail(
            "StopInstances", SpotCannotStop(), times=2
        )  # For the batch, and for the first instance alone.
        for _ in range(10):
            await drive(group)
            cloud.settle()
        found = states(await group.update())
        [running] = [id for id, state in found.items() if state is State.RUNNING]
        assert {found[id] for id in ids if id != running} == {State.SUSPENDED}
        with pytest.raises(ProviderError, match="one-time Spot Instance request"):
            await group.suspend([running])
