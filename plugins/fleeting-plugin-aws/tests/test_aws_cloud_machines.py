"""The fake cloud's machines: who is let in, what runs there, and what is left when they end."""

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
from aws_machines import new_key
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
    """Open an instance with a key for a minute."""
    async with cloud.client("ec2-instance-connect") as client:
        await client.send_ssh_public_key(
            InstanceId=id, InstanceOSUser=USER, SSHPublicKey=public(key)
        )


async def way_to(cloud: AwsCloud, id: str, port: int, key: asyncssh.SSHKey) -> ConnectInfo:
    """Return how to connect to an instance, as EC2 tells it."""
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


async def test_a_key_that_was_sent_opens_an_instance(cloud: AwsCloud) -> None:
    """Who has sent a key is let in, the host key is the console's, and commands really run."""
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


async def test_others_are_kept_out(cloud: AwsCloud) -> None:
    """Another instance, another user, another key and a later minute are not let in."""
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
    """A key that is known opens every instance at any time."""
    key = new_key()
    port = cloud.use_machines(known_keys=[public(key)])
    cloud.group(NAME, desired=1)
    [id] = cloud.members(NAME)
    cloud.forward(3600)
    async with await fleeting.connect(await way_to(cloud, id, port, key)) as connection:
        assert (await connection.run("echo hello")).stdout == b"hello\n"


async def test_files(cloud: AwsCloud, tmp_path: Path) -> None:
    """Files can be sent, and lie in the home where commands start."""
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
    """Commands run side by side over one connection, and a signal ends the one it is for."""
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


async def test_a_machine_takes_time_to_boot(cloud: AwsCloud) -> None:
    """A member may be in service while its machine does not answer yet."""
    key = new_key()
    port = cloud.use_machines(boot=timedelta(hours=1), known_keys=[public(key)])
    cloud.group(NAME, desired=1)
    [id] = cloud.members(NAME)
    assert cloud.members(NAME) == {id: "InService"}
    info = await way_to(cloud, id, port, key)
    with pytest.raises(Unreachable):
        await fleeting.connect(replace(info, timeout=SHORT))


async def test_nothing_is_left(cloud: AwsCloud) -> None:
    """When an instance is terminated its processes end, its files go, and nobody answers."""
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
    """A stopped instance does not answer, and does again at the same address when started."""
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


async def test_a_machine_has_a_socket_whether_it_is_on_or_off(cloud: AwsCloud) -> None:
    """Stopping and starting an instance leaves no socket more or less; ending it leaves none."""
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
