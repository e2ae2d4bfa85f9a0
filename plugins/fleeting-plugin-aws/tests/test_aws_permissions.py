"""Every permission of the policy, one missing at a time: the group's fault, and named."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from aws_errors import AccessDenied
from aws_plugin import drive, open_group, running_group, states
from fleeting.errors import PermissionDenied
from fleeting.types import ConnectorSettings, State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from aws_cloud import AwsCloud
    from fleeting.abc import InstanceGroup

pytestmark = pytest.mark.anyio


async def list_it(group: InstanceGroup, id: str) -> object:
    """List the group."""
    del id
    return await group.update()


async def grow(group: InstanceGroup, id: str) -> object:
    """Ask for another instance."""
    del id
    return await group.increase(1, "one")


async def remove(group: InstanceGroup, id: str) -> object:
    """Remove the instance."""
    return await group.decrease([id])


async def reach(group: InstanceGroup, id: str) -> object:
    """Ask how the instance is reached."""
    return await group.connect_info(id)


async def suspend(group: InstanceGroup, id: str) -> object:
    """Suspend the instance."""
    return await group.suspend([id])


@pytest.mark.parametrize(
    ("action", "use"),
    [
        ("autoscaling:DescribeAutoScalingGroups", list_it),
        ("autoscaling:SetDesiredCapacity", grow),
        ("autoscaling:TerminateInstanceInAutoScalingGroup", remove),
        ("autoscaling:EnterStandby", suspend),
        ("ec2:CreateTags", suspend),
        ("ec2:DescribeInstances", reach),
        ("ec2:GetConsoleOutput", reach),
        ("ec2-instance-connect:SendSSHPublicKey", reach),
    ],
)
async def test_missing_permission(
    cloud: AwsCloud, action: str, use: Callable[[InstanceGroup, str], Awaitable[object]]
) -> None:
    """A missing permission is not the instance's fault, is not retried, and is named."""
    cloud.use_machines()
    cloud.group("builders", desired=1)
    keys = "console" if action == "ec2:GetConsoleOutput" else "first-use"
    async with open_group(cloud, host_keys=keys) as group:
        [id] = states(await group.update())
        operation = action.partition(":")[2]
        cloud.fail(operation, AccessDenied(), times=None)
        before = len(cloud.calls(operation))
        with pytest.raises(PermissionDenied, match=f"; allow {action}: ") as caught:
            await use(group, id)
        assert not caught.value.retryable
        assert len(cloud.calls(operation)) == before + 1
        cloud.mend()
        assert states(await group.update()) == {id: State.RUNNING}


async def test_missing_permission_for_passwords(cloud: AwsCloud, tmp_path: Path) -> None:
    """A password that may not be read is not an instance that has none yet."""
    cloud.group("builders", desired=1, instance_facts={"Platform": "Windows"})
    cloud.fail("GetPasswordData", AccessDenied(), times=None)
    path = tmp_path / "launch.pem"
    path.write_text("not read before the answer")
    connector = ConnectorSettings(os="windows", key_path=path)
    async with open_group(cloud, connector) as group:
        [id] = states(await group.update())
        with pytest.raises(PermissionDenied, match="; allow ec2:GetPasswordData: "):
            await group.connect_info(id)


@pytest.mark.parametrize(
    ("action", "goal"),
    [
        ("ec2:StopInstances", State.SUSPENDED),
        ("ec2:StartInstances", State.RUNNING),
        ("autoscaling:ExitStandby", State.RUNNING),
    ],
)
async def test_missing_permission_for_a_later_step(
    cloud: AwsCloud, action: str, goal: State
) -> None:
    """The step after a listing fails with the permission in the error; the instance stays."""
    async with running_group(cloud, 1) as (group, [id]):
        if goal is State.RUNNING:
            await group.suspend([id])
            for _ in range(4):
                cloud.settle()
                await drive(group)
        cloud.fail(action.partition(":")[2], AccessDenied(), times=None)
        messages: list[str] = []
        try:
            await (group.suspend([id]) if goal is State.SUSPENDED else group.resume([id]))
        except PermissionDenied as error:
            messages.append(str(error))
        for _ in range(4):
            cloud.settle()
            try:
                await group.reconcile(await group.update())
            except PermissionDenied as error:
                messages.append(str(error))
        assert any(f"; allow {action}: " in one for one in messages)
        assert id in cloud.members("builders")


async def test_missing_permission_for_the_history(
    cloud: AwsCloud, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the history, the missing instances stay requested, and a warning says why once."""
    caplog.set_level(logging.WARNING)
    cloud.group("builders")
    cloud.room(0)
    cloud.fail("DescribeScalingActivities", AccessDenied(), times=None)
    async with open_group(cloud) as group:
        await group.increase(1, "one")
        await drive(group)
        listing = await drive(group)
    assert (listing.pending, listing.failures) == (1, ())
    [said] = [one.getMessage() for one in caplog.records]
    assert "; allow autoscaling:DescribeScalingActivities: " in said
