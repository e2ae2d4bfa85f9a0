"""The fake cloud's groups: delays, limits, replacements."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from aws_group import Delays

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from aws_cloud import AwsCloud

pytestmark = pytest.mark.anyio

NAME = "builders"
GROUP = {"AutoScalingGroupName": NAME}


@pytest.fixture
async def autoscaling(cloud: AwsCloud) -> AsyncGenerator[Any]:
    """Return a client of Auto Scaling."""
    async with cloud.client("autoscaling") as client:
        yield client


async def describe(client: Any) -> dict[str, Any]:
    """Describe the group."""
    answer = await client.describe_auto_scaling_groups(AutoScalingGroupNames=[NAME])
    group: dict[str, Any] = answer["AutoScalingGroups"][0]
    return group


def states(group: dict[str, Any]) -> list[str]:
    """Return the states of a group's members."""
    return [member["LifecycleState"] for member in group["Instances"]]


async def test_members_are_pending_first(cloud: AwsCloud, autoscaling: Any) -> None:
    """A new member is pending for one describe and in service at the next."""
    cloud.group(NAME)
    await autoscaling.set_desired_capacity(**GROUP, DesiredCapacity=2)
    assert states(await describe(autoscaling)) == ["Pending", "Pending"]
    assert states(await describe(autoscaling)) == ["InService", "InService"]


async def test_members_may_be_listed_late(cloud: AwsCloud, autoscaling: Any) -> None:
    """New members may be listed late, or only after `settle`."""
    cloud.group(NAME, delays=Delays(listing=1, launch=None))
    await autoscaling.set_desired_capacity(**GROUP, DesiredCapacity=1)
    seen = await describe(autoscaling)
    assert (seen["DesiredCapacity"], states(seen)) == (1, [])
    for _ in range(3):
        assert states(await describe(autoscaling)) == ["Pending"]
    cloud.settle()
    assert states(await describe(autoscaling)) == ["InService"]


async def test_terminated_members_stay_listed(cloud: AwsCloud, autoscaling: Any) -> None:
    """A terminated member is listed as terminating, then gone, and not replaced."""
    cloud.group(NAME, desired=2)
    id = next(iter(cloud.members(NAME)))
    answer = await autoscaling.terminate_instance_in_auto_scaling_group(
        InstanceId=id, ShouldDecrementDesiredCapacity=True
    )
    assert answer["Activity"]["StatusCode"] == "InProgress"
    seen = await describe(autoscaling)
    assert (seen["DesiredCapacity"], states(seen)) == (1, ["Terminating", "InService"])
    assert states(await describe(autoscaling)) == ["InService"]


async def test_nothing_is_decremented_twice(cloud: AwsCloud, autoscaling: Any) -> None:
    """A member that is being terminated can be terminated again, to no effect."""
    cloud.group(NAME, desired=2)
    id = next(iter(cloud.members(NAME)))
    for _ in range(2):
        await autoscaling.terminate_instance_in_auto_scaling_group(
            InstanceId=id, ShouldDecrementDesiredCapacity=True
        )
    assert cloud.desired(NAME) == 1


async def test_termination_without_decrement_replaces(cloud: AwsCloud, autoscaling: Any) -> None:
    """A member that is terminated without a decrement is replaced."""
    cloud.group(NAME, desired=1)
    id = next(iter(cloud.members(NAME)))
    await autoscaling.terminate_instance_in_auto_scaling_group(
        InstanceId=id, ShouldDecrementDesiredCapacity=False
    )
    seen = await describe(autoscaling)
    assert (seen["DesiredCapacity"], states(seen)) == (1, ["Terminating", "Pending"])


@pytest.mark.parametrize(("desired", "words"), [(9, "above max value 5"), (0, "below min value 1")])
async def test_limits(cloud: AwsCloud, autoscaling: Any, desired: int, words: str) -> None:
    """A desired capacity out of bounds is refused with AWS's code and message."""
    cloud.group(NAME, desired=1, minimum=1, maximum=5)
    with pytest.raises(ClientError, match=f"ValidationError.*{words}"):
        await autoscaling.set_desired_capacity(**GROUP, DesiredCapacity=desired)
    assert cloud.desired(NAME) == 1


async def test_termination_stops_at_the_minimum(cloud: AwsCloud, autoscaling: Any) -> None:
    """A member is not terminated without replacement when that would go below the minimum."""
    cloud.group(NAME, desired=1, minimum=1)
    id = next(iter(cloud.members(NAME)))
    with pytest.raises(ClientError, match=r"ValidationError.*desiredSize equals minSize \(1\)"):
        await autoscaling.terminate_instance_in_auto_scaling_group(
            InstanceId=id, ShouldDecrementDesiredCapacity=True
        )
    assert cloud.members(NAME) == {id: "InService"}


async def test_unknown_names(cloud: AwsCloud, autoscaling: Any) -> None:
    """An unknown group or member is an error, except for a describe."""
    cloud.group("other")
    answer = await autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[NAME])
    assert answer["AutoScalingGroups"] == []
    with pytest.raises(ClientError, match=r"ValidationError.*name not found"):
        await autoscaling.set_desired_capacity(**GROUP, DesiredCapacity=1)
    with pytest.raises(ClientError, match=r"ValidationError.*No managed instance found"):
        await autoscaling.terminate_instance_in_auto_scaling_group(
            InstanceId="i-0123456789abcdef0", ShouldDecrementDesiredCapacity=True
        )


async def test_deleted_group(cloud: AwsCloud, autoscaling: Any) -> None:
    """A deleted group has a status until its members are gone, and then is unknown."""
    cloud.group(NAME, desired=1)
    cloud.delete_group(NAME)
    seen = await describe(autoscaling)
    assert (seen["Status"], states(seen)) == ("Delete in progress", ["Terminating"])
    answer = await autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[NAME])
    assert answer["AutoScalingGroups"] == []


async def test_suspended_processes_do_nothing(cloud: AwsCloud, autoscaling: Any) -> None:
    """While Launch is suspended nothing is launched; resuming it launches the members."""
    cloud.group(NAME, suspended=["Launch"])
    await autoscaling.set_desired_capacity(**GROUP, DesiredCapacity=1)
    seen = await describe(autoscaling)
    assert (states(seen), seen["SuspendedProcesses"][0]["ProcessName"]) == ([], "Launch")
    await autoscaling.resume_processes(**GROUP, ScalingProcesses=["Launch"])
    assert states(await describe(autoscaling)) == ["Pending"]


async def test_termination_is_suspended(cloud: AwsCloud, autoscaling: Any) -> None:
    """While Terminate is suspended, a termination is accepted and nothing happens."""
    cloud.group(NAME, desired=1, suspended=["Terminate"])
    [id] = cloud.members(NAME)
    await autoscaling.terminate_instance_in_auto_scaling_group(
        InstanceId=id, ShouldDecrementDesiredCapacity=True
    )
    cloud.settle()
    assert (cloud.members(NAME), cloud.desired(NAME)) == ({id: "InService"}, 1)


async def test_unhealthy_member_is_replaced(cloud: AwsCloud, autoscaling: Any) -> None:
    """An unhealthy member is listed, then replaced, unless that is suspended."""
    cloud.group(NAME, desired=1)
    [id] = cloud.members(NAME)
    await autoscaling.set_instance_health(InstanceId=id, HealthStatus="Unhealthy")
    seen = await describe(autoscaling)
    assert (states(seen), seen["Instances"][0]["HealthStatus"]) == (["InService"], "Unhealthy")
    assert states(await describe(autoscaling)) == ["Terminating", "Pending"]
    cloud.group("other", desired=1, suspended=["ReplaceUnhealthy"])
    cloud.set_state(next(iter(cloud.members("other"))), "InService", health="Unhealthy")
    cloud.settle()
    cloud.settle()
    assert list(cloud.members("other").values()) == ["InService"]


async def test_real_time(cloud: AwsCloud, autoscaling: Any) -> None:
    """Delays can be real times, on the cloud's clock."""
    cloud.group(NAME, delays=Delays(launch=timedelta(minutes=1)))
    await autoscaling.set_desired_capacity(**GROUP, DesiredCapacity=1)
    for _ in range(3):
        assert states(await describe(autoscaling)) == ["Pending"]
    cloud.forward(60)
    assert states(await describe(autoscaling)) == ["InService"]


async def test_scale_in_keeps_protected_members(cloud: AwsCloud, autoscaling: Any) -> None:
    """A smaller desired capacity ends only members that are not protected."""
    cloud.group(NAME, desired=3)
    ids = list(cloud.members(NAME))
    await autoscaling.set_instance_protection(
        **GROUP, InstanceIds=[ids[1]], ProtectedFromScaleIn=False
    )
    await describe(autoscaling)
    await autoscaling.set_desired_capacity(**GROUP, DesiredCapacity=0)
    assert [id for id, state in cloud.members(NAME).items() if state == "Terminating"] == [ids[1]]


async def test_interruption(cloud: AwsCloud, autoscaling: Any) -> None:
    """An interrupted spot instance terminates and is replaced."""
    cloud.group(NAME, desired=1, spot=True)
    cloud.interrupt(next(iter(cloud.members(NAME))))
    seen = await describe(autoscaling)
    assert (seen["DesiredCapacity"], states(seen)) == (1, ["Terminating", "Pending"])


async def test_standby(cloud: AwsCloud, autoscaling: Any) -> None:
    """A member in standby does not count; it counts again when it leaves."""
    cloud.group(NAME, desired=2, minimum=1, maximum=2)
    one, other = cloud.members(NAME)
    await autoscaling.enter_standby(**GROUP, InstanceIds=[one], ShouldDecrementDesiredCapacity=True)
    seen = await describe(autoscaling)
    assert (seen["DesiredCapacity"], states(seen)) == (1, ["Standby", "InService"])
    with pytest.raises(ClientError, match=r"ValidationError.*min-size=1"):
        await autoscaling.enter_standby(
            **GROUP, InstanceIds=[other], ShouldDecrementDesiredCapacity=True
        )
    await autoscaling.exit_standby(**GROUP, InstanceIds=[one])
    seen = await describe(autoscaling)
    assert (seen["DesiredCapacity"], states(seen)) == (2, ["Pending", "InService"])


async def test_no_standby_above_the_maximum(cloud: AwsCloud, autoscaling: Any) -> None:
    """A member cannot leave standby when that would go above the maximum."""
    cloud.group(NAME, desired=1, maximum=1)
    [id] = cloud.members(NAME)
    await autoscaling.enter_standby(**GROUP, InstanceIds=[id], ShouldDecrementDesiredCapacity=True)
    await autoscaling.set_desired_capacity(**GROUP, DesiredCapacity=1)
    with pytest.raises(ClientError, match=r"ValidationError.*max-size=1"):
        await autoscaling.exit_standby(**GROUP, InstanceIds=[id])


async def test_pages(cloud: AwsCloud, autoscaling: Any) -> None:
    """Groups and activities come in pages of the size that is set."""
    for number in range(3):
        cloud.group(f"{NAME}-{number}", desired=1)
    cloud.set_page_size(2)
    for operation, key in (
        ("describe_auto_scaling_groups", "AutoScalingGroups"),
        ("describe_scaling_activities", "Activities"),
    ):
        pages = [page async for page in autoscaling.get_paginator(operation).paginate()]
        assert [len(page[key]) for page in pages] == [2, 1]
    with pytest.raises(ClientError, match="InvalidNextToken"):
        await autoscaling.describe_auto_scaling_groups(NextToken="made up")


async def test_facts(cloud: AwsCloud, autoscaling: Any) -> None:
    """Descriptions of a group can be overridden, and a member can be in an unknown state."""
    cloud.group(NAME, desired=1, facts={"CapacityRebalance": True, "MaxInstanceLifetime": 86400})
    cloud.set_state(next(iter(cloud.members(NAME))), "Hibernating")
    seen = await describe(autoscaling)
    assert (seen["CapacityRebalance"], seen["MaxInstanceLifetime"]) == (True, 86400)
    assert states(seen) == ["Hibernating"]


async def test_refresh(cloud: AwsCloud, autoscaling: Any) -> None:
    """A group can have an instance refresh."""
    cloud.group(NAME, desired=1)
    assert (await autoscaling.describe_instance_refreshes(**GROUP))["InstanceRefreshes"] == []
    cloud.refresh(NAME)
    [refresh] = (await autoscaling.describe_instance_refreshes(**GROUP))["InstanceRefreshes"]
    assert refresh["Status"] == "InProgress"


async def test_changes_by_another_client(cloud: AwsCloud, autoscaling: Any) -> None:
    """A test can change the limits and the desired capacity of a group."""
    cloud.group(NAME)
    cloud.change(NAME, minimum=1, maximum=3, desired=2)
    seen = await describe(autoscaling)
    assert (seen["MinSize"], seen["MaxSize"], states(seen)) == (1, 3, ["Pending"] * 2)


async def test_mixed_group(cloud: AwsCloud, autoscaling: Any) -> None:
    """A mixed group has its types in a policy, and no launch template."""
    cloud.group(NAME, types=["m5.large", "c5.large"], mixed=True)
    seen = await describe(autoscaling)
    overrides = seen["MixedInstancesPolicy"]["LaunchTemplate"]["Overrides"]
    assert overrides == [{"InstanceType": "m5.large"}, {"InstanceType": "c5.large"}]
    assert "LaunchTemplate" not in seen


async def test_zones(cloud: AwsCloud, autoscaling: Any) -> None:
    """Members are spread over the zones."""
    cloud.group(NAME, desired=5, zones=2)
    seen = await describe(autoscaling)
    zones = [member["AvailabilityZone"] for member in seen["Instances"]]
    assert sorted(zones) == ["eu-central-1a"] * 3 + ["eu-central-1b"] * 2
