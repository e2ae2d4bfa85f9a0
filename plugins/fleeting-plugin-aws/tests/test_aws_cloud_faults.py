"""Faults of the fake cloud, and its journal of calls."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from aws_errors import (
    AccessDenied,
    CredentialsExpired,
    LostReply,
    LostRequest,
    Throttled,
    Unavailable,
)

if TYPE_CHECKING:
    from aws_cloud import AwsCloud
    from aws_errors import Fault

pytestmark = pytest.mark.anyio

NAME = "builders"
GROUP = {"AutoScalingGroupName": NAME}


@pytest.mark.parametrize(
    ("fault", "service", "code", "status"),
    [
        (Throttled(), "autoscaling", "Throttling", 400),
        (Throttled(), "ec2", "RequestLimitExceeded", 503),
        (Throttled(), "ec2-instance-connect", "ThrottlingException", 400),
        (Throttled(), "sqs", "RequestThrottled", 403),
        (CredentialsExpired(), "autoscaling", "ExpiredToken", 403),
        (CredentialsExpired(), "ec2", "RequestExpired", 400),
        (CredentialsExpired(), "ec2-instance-connect", "ExpiredTokenException", 400),
        (AccessDenied(), "autoscaling", "AccessDenied", 403),
        (AccessDenied(), "ec2", "UnauthorizedOperation", 403),
        (AccessDenied(), "ec2-instance-connect", "AccessDeniedException", 400),
        (Unavailable(), "autoscaling", "InternalFailure", 500),
        (Unavailable(), "ec2", "InternalError", 500),
    ],
)
async def test_each_service_has_its_own_errors(
    cloud: AwsCloud, fault: Fault, service: str, code: str, status: int
) -> None:
    """A fault has the code and the status of its service."""
    calls: dict[str, tuple[str, dict[str, str]]] = {
        "autoscaling": ("describe_auto_scaling_groups", {}),
        "ec2": ("describe_instances", {}),
        "sqs": ("list_queues", {}),
        "ec2-instance-connect": (
            "send_ssh_public_key",
            {"InstanceId": "i-0123456789abcdef0", "InstanceOSUser": "x", "SSHPublicKey": "x" * 80},
        ),
    }
    operation, parameters = calls[service]
    cloud.fail("*", fault)
    async with cloud.client(service) as client:
        with pytest.raises(ClientError, match=code) as caught:
            await getattr(client, operation)(**parameters)
    response: dict[str, Any] = dict(caught.value.response)
    assert response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert cloud.calls()[0].outcome == code


async def test_faults_end(cloud: AwsCloud) -> None:
    """A fault affects its operation for a number of calls, or until it is removed."""
    cloud.group(NAME)
    cloud.fail("SetDesiredCapacity", Throttled())
    cloud.fail("DescribeScalingActivities", AccessDenied(), times=None)
    async with cloud.client("autoscaling", attempts=2) as autoscaling:
        await autoscaling.describe_auto_scaling_groups()
        await autoscaling.set_desired_capacity(**GROUP, DesiredCapacity=1)
        with pytest.raises(ClientError, match="AccessDenied"):
            await autoscaling.describe_scaling_activities(**GROUP)
        cloud.mend()
        await autoscaling.describe_scaling_activities(**GROUP)
    outcomes = [call.outcome for call in cloud.calls("SetDesiredCapacity")]
    assert outcomes == ["Throttling", "ok"]


async def test_one_key_expires(cloud: AwsCloud) -> None:
    """The credentials of one key can expire while others are good."""
    cloud.fail("*", CredentialsExpired(), times=None, access_key="ASIAOLD")
    for key, is_good in (("ASIAOLD", False), ("ASIANEW", True)):
        async with cloud.client("ec2", access_key=key) as ec2:
            if is_good:
                await ec2.describe_instances()
            else:
                with pytest.raises(ClientError, match="RequestExpired"):
                    await ec2.describe_instances()
    assert [call.access_key for call in cloud.calls()] == ["ASIAOLD", "ASIANEW"]


async def test_policy(cloud: AwsCloud) -> None:
    """Actions that are not allowed are denied; a batch needs the action without "Batch"."""
    queue = cloud.queue("notices")
    cloud.allow_only("ec2:DescribeInstances", "sqs:DeleteMessage")
    async with cloud.client("ec2") as ec2, cloud.client("sqs") as sqs, cloud.client("sts") as sts:
        await ec2.describe_instances()
        await sts.get_caller_identity()
        entries = [{"Id": "1", "ReceiptHandle": "gone"}]
        await sqs.delete_message_batch(QueueUrl=queue.url, Entries=entries)
        with pytest.raises(ClientError, match="not authorized to perform: ec2:StopInstances"):
            await ec2.stop_instances(InstanceIds=["i-0123456789abcdef0"])


@pytest.mark.parametrize(("fault", "desired"), [(LostReply(), 2), (LostRequest(), 0)])
async def test_lost_messages(cloud: AwsCloud, fault: Fault, desired: int) -> None:
    """A request has an effect if its reply is lost, and none if the request is lost."""
    cloud.group(NAME)
    cloud.fail("SetDesiredCapacity", fault)
    async with cloud.client("autoscaling") as autoscaling:
        with pytest.raises(ConnectionClosedError):
            await autoscaling.set_desired_capacity(**GROUP, DesiredCapacity=2)
    assert cloud.desired(NAME) == desired
    assert cloud.calls("SetDesiredCapacity")[0].outcome == "lost"


@pytest.mark.parametrize("before", [False, True])
async def test_answers_can_be_held(cloud: AwsCloud, *, before: bool) -> None:
    """A held answer waits until it is released, before or after the effect."""
    cloud.group(NAME)
    async with cloud.client("autoscaling") as autoscaling, anyio.create_task_group() as tasks:

        async def ask() -> None:
            await autoscaling.set_desired_capacity(**GROUP, DesiredCapacity=1)

        with cloud.hold("SetDesiredCapacity", before=before):
            tasks.start_soon(ask)
            await cloud.reached("SetDesiredCapacity")
            if not before:
                while cloud.desired(NAME) != 1:
                    await anyio.sleep(0.001)
            assert cloud.desired(NAME) == (0 if before else 1)
            assert cloud.calls("SetDesiredCapacity")[0].outcome is None
        await cloud.reached("SetDesiredCapacity", answered=True)
    assert cloud.desired(NAME) == 1


async def test_journal(cloud: AwsCloud) -> None:
    """The journal contains each call, its instances, its times and its concurrency."""
    cloud.group(NAME, desired=3)
    before = time.monotonic()
    async with cloud.client("autoscaling") as autoscaling, anyio.create_task_group() as tasks:

        async def end(id: str) -> None:
            await autoscaling.terminate_instance_in_auto_scaling_group(
                InstanceId=id, ShouldDecrementDesiredCapacity=True
            )

        with cloud.hold("TerminateInstanceInAutoScalingGroup"):
            for id in cloud.members(NAME):
                tasks.start_soon(end, id)
            await cloud.reached("TerminateInstanceInAutoScalingGroup", 3)
    calls = cloud.calls("TerminateInstanceInAutoScalingGroup")
    assert [call.at_once for call in calls] == [1, 2, 3]
    assert sorted(id for call in calls for id in call.instances) == sorted(cloud.members(NAME))
    assert all(before <= call.started <= (call.ended or 0) for call in calls)
    assert [call.writes_at_once for call in calls] == [0, 0, 0]
    async with cloud.client("autoscaling") as autoscaling:
        await autoscaling.set_desired_capacity(**GROUP, DesiredCapacity=1)
    assert cloud.calls("SetDesiredCapacity")[0].writes_at_once == 1


async def test_wrong_region(cloud: AwsCloud) -> None:
    """A request signed for another region is refused."""
    region, cloud.region = cloud.region, "us-east-1"
    try:
        async with cloud.client("ec2") as ec2:
            with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
                await ec2.describe_instances()
    finally:
        cloud.region = region
