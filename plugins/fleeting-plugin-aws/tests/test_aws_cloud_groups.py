"""The fake cloud's groups: delays, limits, failures, as plain clients see them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from aiobotocore.session import get_session
from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from aws_cloud import AwsCloud

pytestmark = pytest.mark.anyio


@pytest.fixture
async def autoscaling(cloud: AwsCloud) -> AsyncGenerator[Any]:
    """Return a client of Auto Scaling."""
    session = get_session()
    async with session.create_client(
        "autoscaling", region_name=cloud.region, endpoint_url=cloud.url
    ) as client:
        yield client


async def test_members_are_pending_first(cloud: AwsCloud, autoscaling: Any) -> None:
    """A new member is pending for one describe and in service at the next."""
    cloud.group("builders")
    await autoscaling.set_desired_capacity(AutoScalingGroupName="builders", DesiredCapacity=2)
    seen: list[set[str]] = []
    for _ in range(2):
        answer = await autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=["builders"])
        [group] = answer["AutoScalingGroups"]
        seen.append({member["LifecycleState"] for member in group["Instances"]})
    assert seen == [{"Pending"}, {"InService"}]


async def test_limits(cloud: AwsCloud, autoscaling: Any) -> None:
    """A desired capacity above the maximum is refused with AWS's words."""
    cloud.group("builders", maximum=5)
    with pytest.raises(ClientError, match="9 is above max value 5"):
        await autoscaling.set_desired_capacity(AutoScalingGroupName="builders", DesiredCapacity=9)
