"""The fake cloud's groups without capacity, and their activity history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from aws_cloud import AwsCloud

pytestmark = pytest.mark.anyio

NAME = "builders"


@pytest.fixture
async def autoscaling(cloud: AwsCloud) -> AsyncGenerator[Any]:
    """Return a client of Auto Scaling."""
    async with cloud.client("autoscaling") as client:
        yield client


async def failures(client: Any) -> list[str]:
    """Return the messages of failed activities."""
    answer = await client.describe_scaling_activities(AutoScalingGroupName=NAME)
    activities = answer["Activities"]
    return [one["StatusMessage"] for one in activities if one["StatusCode"] == "Failed"]


async def test_zone_without_capacity(cloud: AwsCloud, autoscaling: Any) -> None:
    """A zone without capacity fails once, and another zone launches the instances."""
    cloud.group(NAME, zones=2)
    cloud.room(1, zone="a")
    await autoscaling.set_desired_capacity(AutoScalingGroupName=NAME, DesiredCapacity=4)
    await autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[NAME])
    answer = await autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[NAME])
    [group] = answer["AutoScalingGroups"]
    zones = sorted(member["AvailabilityZone"][-1] for member in group["Instances"])
    assert zones == ["a", "b", "b", "b"]
    [message] = await failures(autoscaling)
    assert "sufficient t3.micro capacity" in message
    assert "requested (eu-central-1a)" in message


async def test_no_capacity_at_all(cloud: AwsCloud, autoscaling: Any) -> None:
    """Without capacity the desired capacity stays, and is launched later."""
    cloud.group(NAME)
    cloud.room(1)
    await autoscaling.set_desired_capacity(AutoScalingGroupName=NAME, DesiredCapacity=3)
    assert (cloud.desired(NAME), len(cloud.members(NAME))) == (3, 1)
    cloud.settle()
    assert len(await failures(autoscaling)) == 2, "it was tried again"
    cloud.unlimited()
    assert len(cloud.members(NAME)) == 3


async def test_type_without_capacity(cloud: AwsCloud, autoscaling: Any) -> None:
    """Without capacity for the preferred type, the next one is launched."""
    cloud.group(NAME, types=["m5.large", "c5.large"], mixed=True)
    cloud.room(0, instance_type="m5.large")
    await autoscaling.set_desired_capacity(AutoScalingGroupName=NAME, DesiredCapacity=1)
    answer = await autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[NAME])
    [group] = answer["AutoScalingGroups"]
    assert [member["InstanceType"] for member in group["Instances"]] == ["c5.large"]
    [message] = await failures(autoscaling)
    assert message.startswith("Could not launch On-Demand Instances. InsufficientInstanceCapacity")


@pytest.mark.parametrize(
    ("code", "spot", "words"),
    [
        ("VcpuLimitExceeded", False, "current vCPU limit of 32"),
        ("InstanceLimitExceeded", False, "current instance limit of 20"),
        ("InvalidAMIID.NotFound", False, "image id '[ami-0fedcba9876543210]' does not exist"),
        ("MaxSpotInstanceCountExceeded", True, "Max spot instance count exceeded"),
        ("UnfulfillableCapacity", True, "Unable to fulfill capacity"),
    ],
)
async def test_other_reasons(
    cloud: AwsCloud, autoscaling: Any, code: str, words: str, *, spot: bool
) -> None:
    """Quotas, images and spot requests fail with AWS's messages."""
    cloud.group(NAME, spot=spot)
    cloud.room(0, code=code)
    await autoscaling.set_desired_capacity(AutoScalingGroupName=NAME, DesiredCapacity=1)
    [message] = await failures(autoscaling)
    assert words in message
    assert message.endswith("Launching EC2 instance failed.")


async def test_history(cloud: AwsCloud, autoscaling: Any) -> None:
    """The history contains launches and terminations, newest first, with their end times."""
    cloud.group(NAME, desired=1)
    [id] = cloud.members(NAME)
    await autoscaling.terminate_instance_in_auto_scaling_group(
        InstanceId=id, ShouldDecrementDesiredCapacity=True
    )
    answer = await autoscaling.describe_scaling_activities(AutoScalingGroupName=NAME)
    assert [(one["Description"], one["StatusCode"]) for one in answer["Activities"]] == [
        (f"Terminating EC2 instance: {id}", "InProgress"),
        (f"Launching a new EC2 instance: {id}", "Successful"),
    ]
