"""The fake cloud's SSH servers: access, commands and cleaning up."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

import fleeting
from cloud_machines import new_key
from fleeting.errors import AuthenticationFailed, Unreachable
from fleeting.types import ConnectInfo

if TYPE_CHECKING:
    import asyncssh

    from aws_cloud import AwsCloud

pytestmark = pytest.mark.anyio

NAME = "builders"
USER = "ec2-user"
SHORT = timedelta(milliseconds=200)


def public(key: asyncssh.SSHKey) -> str:
    """Return a key's public half as text."""
    return key.export_public_key("openssh").decode().strip()


async def send_key(cloud: AwsCloud, id: str, key: asyncssh.SSHKey) -> None:
    """Send a key to an instance, which accepts it for a minute."""
    async with cloud.client("ec2-instance-connect") as client:
        await client.send_ssh_public_key(
            InstanceId=id, InstanceOSUser=USER, SSHPublicKey=public(key)
        )


async def way_to(cloud: AwsCloud, id: str, port: int, key: asyncssh.SSHKey) -> ConnectInfo:
    """Return how to connect to an instance, as described by EC2."""
    async with cloud.client("ec2") as ec2:
        answer = await ec2.describe_instances(InstanceIds=[id])
        console = await ec2.get_console_output(InstanceId=id)
    address = answer["Reservations"][0]["Instances"][0]["PrivateIpAddress"]
    keys = console["Output"].partition("BEGIN SSH HOST KEY KEYS-----\r\n")[2]
    return ConnectInfo(
        id,
        "ssh",
        address,
        port=port,
        username=USER,
        private_key=key.export_private_key("openssh").decode(),
        host_keys=(" ".join(keys.split()[:2]),),
        timeout=timedelta(seconds=10),
    )


async def test_sent_key_is_accepted(cloud: AwsCloud) -> None:
    """A sent key is accepted, the host key is that of the console, and commands run."""
    port = cloud.use_machines()
    cloud.group(NAME, desired=2)
    ids = list(cloud.members(NAME))
    key = new_key()
    homes: set[bytes] = set()
    for id in ids:
        await send_key(cloud, id, key)
        info = await way_to(cloud, id, port, key)
        async with await fleeting.connect(info) as connection:
            result = await connection.run("pwd; exit 3")
            assert result.status == 3
            homes.add(result.stdout)
    assert len(homes) == 2


async def test_other_keys_are_refused(cloud: AwsCloud) -> None:
    """A sent key is refused by another instance, for another user and after a minute."""
    port = cloud.use_machines()
    cloud.group(NAME, desired=2)
    one, other = cloud.members(NAME)
    key = new_key()
    await send_key(cloud, one, key)
    info = await way_to(cloud, one, port, key)
    wrong = [
        await way_to(cloud, other, port, key),
        replace(info, username="root"),
        replace(info, private_key=new_key().export_private_key("openssh").decode()),
    ]
    for each in wrong:
        with pytest.raises(AuthenticationFailed):
            await fleeting.connect(each)
    async with await fleeting.connect(info):
        pass
    cloud.forward(61)
    with pytest.raises(AuthenticationFailed):
        await fleeting.connect(info)


async def test_known_key(cloud: AwsCloud) -> None:
    """A known key is accepted by every instance at any time."""
    key = new_key()
    port = cloud.use_machines(known_keys=[public(key)])
    cloud.group(NAME, desired=1)
    [id] = cloud.members(NAME)
    cloud.forward(3600)
    async with await fleeting.connect(await way_to(cloud, id, port, key)) as connection:
        assert (await connection.run("echo hello")).stdout == b"hello\n"


async def test_files(cloud: AwsCloud, tmp_path: Path) -> None:
    """Files are copied to the home in which commands start."""
    key = new_key()
    port = cloud.use_machines(known_keys=[public(key)])
    cloud.group(NAME, desired=1)
    [id] = cloud.members(NAME)
    source = tmp_path / "there"
    source.write_text("there\n")
    async with await fleeting.connect(await way_to(cloud, id, port, key)) as connection:
        await connection.put(source, "there")
        assert (await connection.run("cat there")).stdout == b"there\n"


async def test_many_commands_and_signals(cloud: AwsCloud) -> None:
    """Commands run concurrently over one connection, and a signal ends one of them."""
    key = new_key()
    port = cloud.use_machines(known_keys=[public(key)])
    cloud.group(NAME, desired=1)
    [id] = cloud.members(NAME)
    async with await fleeting.connect(await way_to(cloud, id, port, key)) as connection:
        async with connection.start("sleep 1000") as sleeper:
            results: list[bytes] = []

            async def say(word: str) -> None:
                results.append((await connection.run(f"echo {word}")).stdout)

            async with anyio.create_task_group() as tasks:
                for number in range(20):
                    tasks.start_soon(say, str(number))
            await sleeper.send_signal("TERM")
            assert (await sleeper.wait()).signal == "TERM"
    assert sorted(map(int, results)) == list(range(20))


async def test_boot_time(cloud: AwsCloud) -> None:
    """A member can be in service before its server listens."""
    key = new_key()
    port = cloud.use_machines(boot=timedelta(hours=1), known_keys=[public(key)])
    cloud.group(NAME, desired=1)
    [id] = cloud.members(NAME)
    assert cloud.members(NAME) == {id: "InService"}
    info = await way_to(cloud, id, port, key)
    with pytest.raises(Unreachable):
        await fleeting.connect(replace(info, timeout=SHORT))


async def test_nothing_is_left(cloud: AwsCloud) -> None:
    """Terminating an instance ends its processes, deletes its files and stops its server."""
    key = new_key()
    port = cloud.use_machines(known_keys=[public(key)])
    cloud.group(NAME, desired=1, spot=True)
    [id] = cloud.members(NAME)
    info = await way_to(cloud, id, port, key)
    async with await fleeting.connect(info) as connection:
        result = await connection.run("setsid sleep 1000 >/dev/null 2>&1 & echo $!; pwd")
        pid, home = result.stdout.split()
        assert await anyio.Path(home.decode()).exists()
        cloud.interrupt(id)
        with anyio.fail_after(5):
            while connection.is_open:
                await anyio.sleep(0.01)
    assert not await anyio.Path(home.decode()).exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)
    with pytest.raises(Unreachable):
        await fleeting.connect(replace(info, timeout=SHORT))


async def test_stopped_machine(cloud: AwsCloud) -> None:
    """A stopped instance does not listen; after a start it does, at the same address."""
    key = new_key()
    port = cloud.use_machines(known_keys=[public(key)])
    cloud.group(NAME, desired=1)
    [id] = cloud.members(NAME)
    cloud.set_state(id, "Standby")
    info = await way_to(cloud, id, port, key)
    async with cloud.client("ec2") as ec2:
        await ec2.stop_instances(InstanceIds=[id])
        with pytest.raises(Unreachable):
            await fleeting.connect(replace(info, timeout=SHORT))
        cloud.settle()
        await ec2.start_instances(InstanceIds=[id])
    with anyio.fail_after(10):
        async with await fleeting.connect(info):
            pass


def bound(port: int) -> int:
    """Return how many sockets of this process are bound to a port."""
    found = 0
    for entry in Path("/dev/fd").iterdir():
        with suppress(OSError), socket.socket(fileno=os.dup(int(entry.name))) as one:
            found += one.getsockname()[1:2] == (port,)
    return found


async def test_number_of_sockets_does_not_depend_on_power(cloud: AwsCloud) -> None:
    """The number of sockets is the same while an instance is stopped, and zero after its end."""
    port = cloud.use_machines()
    before = bound(port)
    cloud.group(NAME, desired=1)
    [id] = cloud.members(NAME)
    while bound(port) != before + 1:  # Until it has booted.
        await anyio.sleep(0.01)
    async with cloud.client("autoscaling") as scaling, cloud.client("ec2") as ec2:
        await scaling.enter_standby(
            AutoScalingGroupName=NAME, InstanceIds=[id], ShouldDecrementDesiredCapacity=True
        )
        await ec2.stop_instances(InstanceIds=[id])
        assert bound(port) == before + 1
        cloud.settle()
        await ec2.start_instances(InstanceIds=[id])
        while bound(port) != before + 1:
            await anyio.sleep(0.01)
        await scaling.terminate_instance_in_auto_scaling_group(
            InstanceId=id, ShouldDecrementDesiredCapacity=False
        )
    assert bound(port) == before
