"""Instances that a lifecycle hook holds before they serve, or before they end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aws_errors import AccessDenied
from aws_plugin import drive, open_group, running_group, states
from fleeting.types import State

if TYPE_CHECKING:
    from aws_cloud import AwsCloud

pytestmark = pytest.mark.anyio


async def put_hook(cloud: AwsCloud, transition: str) -> None:
    """Add a hook that holds each instance for a minute and a half."""
    async with cloud.client("autoscaling") as autoscaling:
        await autoscaling.put_lifecycle_hook(
            AutoScalingGroupName="builders",
            LifecycleHookName="hold",
            LifecycleTransition=f"autoscaling:EC2_INSTANCE_{transition}",
            HeartbeatTimeout=90,
        )


async def test_hook_before_the_end(cloud: AwsCloud, caplog: pytest.LogCaptureFixture) -> None:
    """Held instances have a reason, and a warning says once for how long and what to do."""
    async with running_group(cloud, 2) as (group, ids):
        await put_hook(cloud, "TERMINATING")
        await group.decrease(ids)
        await drive(group)
        listing = await drive(group)
        assert set(states(listing).values()) == {State.DELETING}
        assert {one.reason for one in listing.instances} == {
            "a lifecycle hook of its group delays its end (Terminating:Wait)"
        }
        # They are on their way, so removing them again takes no request.
        before = len(cloud.calls("TerminateInstanceInAutoScalingGroup"))
        assert (await group.decrease(ids)).count == 2
        assert len(cloud.calls("TerminateInstanceInAutoScalingGroup")) == before
    [said] = [one.getMessage() for one in caplog.records]
    assert f"delays the end of instances of group builders, now of {ids[0]}, {ids[1]}; " in said
    assert "hold waits for up to 1m30s, or until: aws autoscaling complete-lifecycle-action" in said
    assert said.endswith(f"--lifecycle-action-result CONTINUE --instance-id {ids[0]}")
    assert len(cloud.calls("DescribeLifecycleHooks")) == 1


async def test_hook_before_the_start(cloud: AwsCloud, caplog: pytest.LogCaptureFixture) -> None:
    """An instance that a hook holds before it serves is being created, for a reason."""
    cloud.group("builders")
    async with open_group(cloud) as group:
        await put_hook(cloud, "LAUNCHING")
        await group.increase(1, "one")
        [instance] = (await drive(group)).instances
        assert instance.state is State.CREATING
        assert instance.reason == "a lifecycle hook of its group delays its start (Pending:Wait)"
        cloud.settle()
        [instance] = (await drive(group)).instances
        assert (instance.state, instance.reason) == (State.RUNNING, None)
    assert "hold waits for up to 1m30s" in caplog.text


async def test_hooks_that_may_not_be_read(
    cloud: AwsCloud, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the permission to read hooks, the warning says that the time is not known."""
    cloud.fail("DescribeLifecycleHooks", AccessDenied(), times=None)
    async with running_group(cloud, 1) as (group, [id]):
        cloud.set_state(id, "Terminating:Wait")
        await drive(group)
    assert "for how long is not known" in caplog.text
    assert "allow autoscaling:DescribeLifecycleHooks" in caplog.text
