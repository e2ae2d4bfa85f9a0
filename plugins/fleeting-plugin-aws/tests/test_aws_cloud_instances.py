"""The fake cloud's instances as plain clients see them: addresses, keys, console, queues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from aiobotocore.session import get_session

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from aws_cloud import AwsCloud

pytestmark = pytest.mark.anyio


@pytest.fixture
def client(cloud: AwsCloud) -> Callable[[str], AbstractAsyncContextManager[Any]]:
    """Return what makes a client of a service."""

    def make(service: str) -> AbstractAsyncContextManager[Any]:
        make_client: Any = get_session().create_client
        return make_client(service, region_name=cloud.region, endpoint_url=cloud.url)  # type: ignore[no-any-return]

    return make


async def test_services(cloud: AwsCloud, client: Any) -> None:
    """Each service answers, and what it answers is as its contract says."""
    cloud.group("builders", desired=2, zones=2, spot=True)
    ids = list(cloud.members("builders"))
    async with client("ec2") as ec2:
        answer = await ec2.describe_instances(InstanceIds=ids)
        zones = [
            instance["Placement"]["AvailabilityZone"]
            for reservation in answer["Reservations"]
            for instance in reservation["Instances"]
        ]
        assert zones == ["eu-central-1a", "eu-central-1b"]
        console = await ec2.get_console_output(InstanceId=ids[0])
        assert "SSH HOST KEY KEYS" in console["Output"]
        await ec2.get_password_data(InstanceId=ids[0])
        await ec2.stop_instances(InstanceIds=ids)
        await ec2.describe_instances(InstanceIds=ids)
        await ec2.describe_instances(InstanceIds=ids)
        await ec2.start_instances(InstanceIds=ids[:1])
    async with client("sts") as sts:
        await sts.get_caller_identity()
    url = cloud.queue("notices")
    cloud.warn_of_interruption(url, ids[0])
    async with client("sqs") as sqs:
        answer = await sqs.receive_message(QueueUrl=url, WaitTimeSeconds=0)
        [message] = answer["Messages"]
        assert ids[0] in message["Body"]
        await sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    async with client("ec2-instance-connect") as connect:
        answer = await connect.send_ssh_public_key(
            InstanceId=ids[0],
            InstanceOSUser="ec2-user",
            SSHPublicKey="ssh-ed25519 "
            "AAAAC3NzaC1lZDI1NTE5AAAAIJ5yQ0T0mYm0yP9mC2eGz0m0d6TzQ6oS4Xo1cJmPqkqN x@example",
        )
        assert answer["Success"]
