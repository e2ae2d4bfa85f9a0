"""The fake cloud's instances: states, ids, passwords, keys, queues."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import cloud_machines

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from aws_cloud import AwsCloud

pytestmark = pytest.mark.anyio

NAME = "builders"
UNKNOWN = "i-0123456789abcdef0"


@pytest.fixture
async def ec2(cloud: AwsCloud) -> AsyncGenerator[Any]:
    """Return a client of EC2."""
    async with cloud.client("ec2") as client:
        yield client


@pytest.fixture
async def connect(cloud: AwsCloud) -> AsyncGenerator[Any]:
    """Return a client of EC2 Instance Connect."""
    async with cloud.client("ec2-instance-connect") as client:
        yield client


async def describe(client: Any, **what: Any) -> list[dict[str, Any]]:
    """Describe instances."""
    answer = await client.describe_instances(**what)
    return [one for reservation in answer["Reservations"] for one in reservation["Instances"]]


async def states(client: Any, ids: list[str]) -> list[str]:
    """Return the states of instances."""
    return [one["State"]["Name"] for one in await describe(client, InstanceIds=ids)]


def make_group(cloud: AwsCloud, desired: int = 1, **options: Any) -> list[str]:
    """Make a group, and return its members' ids."""
    cloud.group(NAME, desired=desired, **options)
    return list(cloud.members(NAME))


def new_key(kind: str = "ssh-ed25519") -> str:
    """Return the public half of a new key."""
    return cloud_machines.new_key(kind).export_public_key("openssh").decode()


async def test_instance_matches_its_member(cloud: AwsCloud, ec2: Any) -> None:
    """Zone, type and purchase option of an instance are those of the group."""
    ids = make_group(cloud, desired=2, zones=2, spot=True, types=["c5.large"])
    found = await describe(ec2, InstanceIds=ids)
    assert [one["Placement"]["AvailabilityZone"][-1] for one in found] == ["a", "b"]
    assert {(one["InstanceType"], one["InstanceLifecycle"]) for one in found} == {
        ("c5.large", "spot")
    }


async def test_instance_follows_its_member(cloud: AwsCloud, ec2: Any) -> None:
    """An instance is pending or shutting down while its member is starting or ending."""
    [id] = make_group(cloud)
    async with cloud.client("autoscaling") as autoscaling:
        await autoscaling.set_desired_capacity(AutoScalingGroupName=NAME, DesiredCapacity=2)
        await autoscaling.terminate_instance_in_auto_scaling_group(
            InstanceId=id, ShouldDecrementDesiredCapacity=True
        )
    assert await states(ec2, list(cloud.members(NAME))) == ["shutting-down", "pending"]
    cloud.settle()
    assert await states(ec2, [id, *cloud.members(NAME)]) == ["terminated", "running"]


async def test_unknown_ids(cloud: AwsCloud, ec2: Any) -> None:
    """An unknown or malformed id fails a whole describe; a filter omits it."""
    [id] = make_group(cloud)
    for wrong, code in ((UNKNOWN, "NotFound"), ("web-1", "Malformed")):
        with pytest.raises(ClientError, match=f"InvalidInstanceID.{code}.*{wrong}"):
            await ec2.describe_instances(InstanceIds=[id, wrong])
    among = {"Name": "instance-id", "Values": [id, UNKNOWN]}
    assert [one["InstanceId"] for one in await describe(ec2, Filters=[among])] == [id]


async def test_new_ids_are_known_late(cloud: AwsCloud, ec2: Any) -> None:
    """A new instance can be unknown to EC2 for a number of calls, by id and by filter."""
    cloud.hide_new(2)
    [id] = make_group(cloud)
    with pytest.raises(ClientError, match=r"InvalidInstanceID\.NotFound"):
        await describe(ec2, InstanceIds=[id])
    among = {"Name": "instance-id", "Values": [id]}
    assert await describe(ec2, Filters=[among]) == []
    assert len(await describe(ec2, InstanceIds=[id])) == 1


async def test_pages(cloud: AwsCloud, ec2: Any) -> None:
    """Instances come in pages, unless they are described by their ids."""
    ids = make_group(cloud, desired=3)
    cloud.set_page_size(1)
    among = {"Name": "instance-id", "Values": ids}
    pages = [
        page async for page in ec2.get_paginator("describe_instances").paginate(Filters=[among])
    ]
    assert [len(page["Reservations"][0]["Instances"]) for page in pages] == [1, 1, 1]
    assert len(await describe(ec2, InstanceIds=ids)) == 3
    with pytest.raises(ClientError, match="InvalidParameterCombination"):
        await ec2.describe_instances(InstanceIds=ids, MaxResults=5)


async def test_power(cloud: AwsCloud, ec2: Any) -> None:
    """Stopping and starting take a while; a stopping instance cannot be started."""
    [id] = make_group(cloud)
    cloud.set_state(id, "Standby")
    answer = await ec2.stop_instances(InstanceIds=[id])
    assert answer["StoppingInstances"][0]["CurrentState"]["Name"] == "stopping"
    with pytest.raises(ClientError, match="IncorrectInstanceState"):
        await ec2.start_instances(InstanceIds=[id])
    assert [await states(ec2, [id]) for _ in range(2)] == [["stopping"], ["stopped"]]
    await ec2.start_instances(InstanceIds=[id])
    assert [await states(ec2, [id]) for _ in range(2)] == [["pending"], ["running"]]


async def test_stopped_member_is_replaced(cloud: AwsCloud, ec2: Any) -> None:
    """A member that is stopped outside of standby is unhealthy and replaced."""
    [id] = make_group(cloud)
    await ec2.stop_instances(InstanceIds=[id])
    async with cloud.client("autoscaling") as autoscaling:
        for _ in range(2):
            await autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[NAME])
    assert sorted(cloud.members(NAME).values()) == ["Pending", "Terminating"]


async def test_dry_run(cloud: AwsCloud, ec2: Any) -> None:
    """A dry run has no effect and says so."""
    with pytest.raises(ClientError, match="DryRunOperation"):
        await ec2.describe_instances(DryRun=True)
    assert cloud.calls("DescribeInstances")[0].outcome == "DryRunOperation"


async def test_facts(cloud: AwsCloud, ec2: Any) -> None:
    """Descriptions of an instance can be overridden and keys removed."""
    [id] = make_group(
        cloud, instance_facts={"Architecture": "arm64", "PlatformDetails": "Linux/UNIX"}
    )
    cloud.say_of_instance(id, PrivateIpAddress="10.9.8.7", PublicIpAddress=None)
    [one] = await describe(ec2, InstanceIds=[id])
    assert (one["Architecture"], one["PlatformDetails"]) == ("arm64", "Linux/UNIX")
    assert one["NetworkInterfaces"][0]["PrivateIpAddress"] == "10.9.8.7"
    assert "PublicIpAddress" not in one


async def test_password(cloud: AwsCloud, ec2: Any) -> None:
    """A password is empty at first, and then encrypted for its key."""
    cloud.quiet_new(1)
    [id] = make_group(cloud)
    key = rsa.generate_private_key(65537, 2048)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    cloud.set_password(id, "correct horse", public)
    assert (await ec2.get_password_data(InstanceId=id))["PasswordData"] == ""
    data = (await ec2.get_password_data(InstanceId=id))["PasswordData"]
    assert key.decrypt(base64.b64decode(data), padding.PKCS1v15()) == b"correct horse"


async def test_console(cloud: AwsCloud, ec2: Any) -> None:
    """The console is empty at first, and then shows the instance's host key."""
    cloud.quiet_new(1)
    ids = make_group(cloud, desired=2)
    assert "Output" not in await ec2.get_console_output(InstanceId=ids[0])
    keys: set[str] = set()
    for id in (ids[0], ids[1], ids[1]):
        text = (await ec2.get_console_output(InstanceId=id)).get("Output", "")
        begin, _, rest = text.partition("-----BEGIN SSH HOST KEY KEYS-----\r\n")
        keys.add(rest.partition(" root@")[0] if begin else "")
    assert len(keys - {""}) == 2
    assert all(key.startswith("ssh-ed25519 AAAA") for key in keys - {""})


async def test_sending_keys(cloud: AwsCloud, connect: Any) -> None:
    """A key is accepted for a running instance in its zone only."""
    [id] = make_group(cloud)
    login = {"InstanceOSUser": "ec2-user", "SSHPublicKey": new_key()}
    zone = "eu-central-1a"
    answer = await connect.send_ssh_public_key(InstanceId=id, AvailabilityZone=zone, **login)
    assert answer["Success"] is True
    for wrong, code in (
        ({"InstanceId": UNKNOWN}, "EC2InstanceNotFoundException"),
        ({"AvailabilityZone": "eu-central-1b"}, "InvalidArgsException"),
        ({"SSHPublicKey": new_key("ecdsa-sha2-nistp256")}, "InvalidArgsException"),
        ({"SSHPublicKey": "ssh-ed25519 " + "A" * 90}, "InvalidArgsException"),
    ):
        with pytest.raises(ClientError, match=code):
            await connect.send_ssh_public_key(**{"InstanceId": id, **login, **wrong})
    cloud.interrupt(id)
    with pytest.raises(ClientError, match="EC2InstanceStateInvalidException"):
        await connect.send_ssh_public_key(InstanceId=id, **login)


async def test_queue(cloud: AwsCloud) -> None:
    """Events arrive in a queue, and can be received and deleted."""
    [id] = make_group(cloud)
    queue = cloud.queue("notices")
    queue.warn_of_interruption(id)
    queue.recommend_rebalance(id)
    queue.announce_termination(NAME, id)
    queue.tell_of_termination(NAME, id)
    seen: list[tuple[str, str]] = []
    async with cloud.client("sqs") as sqs:
        while answer := (await sqs.receive_message(QueueUrl=queue.url)).get("Messages"):
            for message in answer:
                event = json.loads(message["Body"])
                detail = event["detail"]
                seen.append(
                    (event["detail-type"], detail.get("instance-id") or detail["EC2InstanceId"])
                )
                handle = message["ReceiptHandle"]
                await sqs.delete_message(QueueUrl=queue.url, ReceiptHandle=handle)
    assert sorted(seen) == [
        ("EC2 Instance Rebalance Recommendation", id),
        ("EC2 Instance Terminate Successful", id),
        ("EC2 Instance-terminate Lifecycle Action", id),
        ("EC2 Spot Instance Interruption Warning", id),
    ]


async def test_identity(cloud: AwsCloud) -> None:
    """A client can ask for its identity, and assume a role."""
    async with cloud.client("sts") as sts:
        assert (await sts.get_caller_identity())["Account"] == "123456789012"
        answer = await sts.assume_role(
            RoleArn="arn:aws:iam::123456789012:role/scaler", RoleSessionName="test"
        )
    assert answer["Credentials"]["AccessKeyId"].startswith("ASIA")
