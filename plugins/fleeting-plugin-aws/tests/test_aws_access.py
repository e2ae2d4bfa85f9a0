"""How instances are reached: addresses, keys that are pushed, passwords, host keys."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import anyio
import asyncssh
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

import fleeting
from aws_errors import AccessDenied, Throttled
from aws_group import Delays
from aws_plugin import open_group, states
from fleeting.errors import (
    AuthenticationFailed,
    ConfigError,
    HostKeyMismatch,
    InstanceGone,
    InstanceUnhealthy,
    PermissionDenied,
)
from fleeting.errors import Throttled as TooMany
from fleeting.types import ConnectorSettings, State
from fleeting_plugin_aws._access import addresses, is_pushed, platform_of

if TYPE_CHECKING:
    from pathlib import Path

    from aws_cloud import AwsCloud

pytestmark = pytest.mark.anyio

PUSH = "SendSSHPublicKey"
PASSWORD = "correct horse;battery"  # noqa: S105 - made up


@pytest.fixture(scope="module")
def launch_key() -> rsa.RSAPrivateKey:
    """Return a key as EC2 makes it for a launch."""
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let AWS be asked again at once."""
    monkeypatch.setattr("fleeting_plugin_aws._access.PAUSE_SECONDS", 0.0)


def public_pem(key: rsa.RSAPrivateKey) -> bytes:
    """Return the public half of a key as a file has it."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def write_key(path: Path, key: rsa.RSAPrivateKey) -> Path:
    """Write the key into a file, and return its path."""
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    return path


async def test_a_pushed_key_lets_us_in(cloud: AwsCloud) -> None:
    """With the key that was pushed, and for a user of that name only, a command runs."""
    port = cloud.use_machines()
    cloud.group("builders", desired=1)
    async with open_group(cloud) as group:
        [id] = states(await group.update())
        info = await group.connect_info(id)
        assert (info.username, info.os, info.protocol) == ("ec2-user", "linux", "ssh")
        async with await fleeting.connect(replace(info, port=port)) as connection:
            assert (await connection.run("echo hello")).stdout == b"hello\n"
        with pytest.raises(AuthenticationFailed):
            await fleeting.connect(replace(info, port=port, username="root"))


async def test_keys_expire_and_are_pushed_again(cloud: AwsCloud) -> None:
    """An answer says when its key is forgotten, and who asks again soon gets the same one."""
    cloud.group("builders", desired=1)
    async with open_group(cloud) as group:
        [id] = states(await group.update())
        info = await group.connect_info(id)
        assert info.expires is not None
        assert timedelta(0) < info.expires - datetime.now(UTC) < timedelta(seconds=60)
        assert await group.connect_info(id) == info
        assert len(cloud.calls(PUSH)) == 1


async def test_one_key_for_each_opening(cloud: AwsCloud) -> None:
    """All instances of an open group get one key; the next opening has another."""
    cloud.group("builders", desired=2)
    keys: list[set[str]] = []
    for _ in range(2):
        async with open_group(cloud) as group:
            infos = [await group.connect_info(id) for id in states(await group.update())]
            keys.append({info.private_key or "" for info in infos})
    assert [len(one) for one in keys] == [1, 1]
    assert keys[0] != keys[1]


async def test_many_instances_are_looked_up_together(cloud: AwsCloud) -> None:
    """EC2 is asked once for the addresses of all, whoever asks how many at the same time."""
    cloud.group("builders", desired=30, maximum=30)
    async with open_group(cloud) as group:
        ids = states(await group.update())
        async with anyio.create_task_group() as tasks:
            for id in ids:
                tasks.start_soon(group.connect_info, id)
        assert len(cloud.calls("DescribeInstances")) == 1
        assert len(cloud.calls(PUSH)) == 30


async def test_look_ups_have_pages(cloud: AwsCloud) -> None:
    """Instances on the second page of an answer are found too."""
    cloud.group("builders", desired=3)
    cloud.set_page_size(1)
    async with open_group(cloud) as group:
        for id in states(await group.update()):
            assert (await group.connect_info(id)).internal_address


async def test_an_instance_that_ec2_does_not_know_yet(cloud: AwsCloud) -> None:
    """What EC2 does not know yet is no reason to give an instance up, nor to fail the others."""
    cloud.group("builders", desired=1)
    cloud.hide_new(1)
    async with open_group(cloud) as group:
        [known] = states(await group.update())
        await group.increase(1, "one")
        while list(states(await group.update()).values()) != [State.RUNNING] * 2:
            pass
        [new] = set(states(await group.update())) - {known}
        with pytest.raises(InstanceUnhealthy, match="does not know"):
            await group.connect_info(new)
        assert (await group.connect_info(known)).id == known
        assert (await group.connect_info(new)).id == new


async def test_who_waits_for_an_instance_does_not_hurry_aws(
    cloud: AwsCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks again at once about an instance that cannot be reached yet costs nothing."""
    monkeypatch.setattr("fleeting_plugin_aws._access.PAUSE_SECONDS", 60.0)
    cloud.quiet_new(1)
    cloud.group("builders", desired=1)
    async with open_group(cloud, host_keys="console") as group:
        [id] = states(await group.update())
        for _ in range(3):
            with pytest.raises(InstanceUnhealthy, match="shows no SSH host keys yet"):
                await group.connect_info(id)
        assert len(cloud.calls("GetConsoleOutput")) == 1


async def test_instances_that_cannot_be_reached(cloud: AwsCloud) -> None:
    """What boots, goes or never was has no way to it, and the error says which of these it is."""
    cloud.group("builders", desired=1, delays=Delays(0, None, None, None))
    async with open_group(cloud) as group:
        [first] = states(await group.update())
        await group.increase(1, "one")
        [booting] = set(states(await group.update())) - {first}
        with pytest.raises(InstanceUnhealthy, match="pending"):
            await group.connect_info(booting)
        await group.decrease([first])
        await group.update()
        with pytest.raises(InstanceUnhealthy, match="being removed"):
            await group.connect_info(first)
        with pytest.raises(InstanceGone):
            await group.connect_info("i-00000000000000000")


async def test_static_credentials_push_nothing(cloud: AwsCloud) -> None:
    """With static credentials, or a password, no key is pushed and nothing expires."""
    cloud.group("builders", desired=1)
    for connector in (
        ConnectorSettings(use_static_credentials=True),
        ConnectorSettings(password=PASSWORD),
    ):
        async with open_group(cloud, connector) as group:
            [id] = states(await group.update())
            info = await group.connect_info(id)
            assert (info.private_key, info.password, info.expires) == (None, None, None)
    assert cloud.calls(PUSH) == []


async def test_own_key_is_pushed(cloud: AwsCloud, tmp_path: Path) -> None:
    """A key of the operator's that is not static is pushed, for the user of the operator's."""
    key = asyncssh.generate_private_key("ssh-ed25519")  # pyright: ignore[reportUnknownMemberType]
    path = tmp_path / "key"
    path.write_bytes(key.export_private_key())
    cloud.group("builders", desired=1)
    connector = ConnectorSettings(key_path=path, username="ubuntu")
    async with open_group(cloud, connector) as group:
        [id] = states(await group.update())
        info = await group.connect_info(id)
        assert info.with_settings(connector).username == "ubuntu"
        [push] = cloud.calls(PUSH)
        assert push.parameters["InstanceOSUser"] == "ubuntu"
        pushed = push.parameters["SSHPublicKey"].split()[:2]
        assert pushed == key.export_public_key().decode().split()[:2]


async def test_wrong_key_file_stops_the_group(cloud: AwsCloud, tmp_path: Path) -> None:
    """A key file that cannot be used is named when the group is opened, and not later."""
    cloud.group("builders")
    path = tmp_path / "key"
    for content in (b"hunter2", b"\xff\xfe", None):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"connector_config\.key_path") as caught:
            async with open_group(cloud, ConnectorSettings(key_path=path)):
                pass
        assert "hunter2" not in str(caught.value)


async def test_refused_keys(cloud: AwsCloud) -> None:
    """What Instance Connect refuses has the class to which somebody reacts."""
    cloud.group("builders", desired=1)
    async with open_group(cloud) as group:
        [id] = states(await group.update())
        for fault, kind in ((AccessDenied(), PermissionDenied), (Throttled(), TooMany)):
            cloud.fail(PUSH, fault, times=2)
            with pytest.raises(kind):
                await group.connect_info(id)
            cloud.mend()
        assert (await group.connect_info(id)).private_key


async def test_windows_password(
    cloud: AwsCloud,
    launch_key: rsa.RSAPrivateKey,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The password of a Windows instance is decrypted as soon as there is one, and never shown."""
    caplog.set_level(logging.DEBUG)
    cloud.group("builders", desired=1, instance_facts={"Platform": "Windows"})
    connector = ConnectorSettings(key_path=write_key(tmp_path / "key.pem", launch_key))
    async with open_group(cloud, connector) as group:
        [id] = states(await group.update())
        with pytest.raises(InstanceUnhealthy, match="no password yet"):
            await group.connect_info(id)
        cloud.set_password(id, PASSWORD, public_pem(launch_key))
        info = await group.connect_info(id)
        assert (info.os, info.protocol, info.username) == ("windows", "winrm", "Administrator")
        assert info.password == PASSWORD
        assert PASSWORD not in repr(info)
    ours = [one for one in caplog.records if one.name.startswith(("fleeting", "taskscaler"))]
    assert all(PASSWORD not in one.getMessage() for one in ours)
    assert cloud.calls(PUSH) == []


async def test_windows_without_the_key(
    cloud: AwsCloud, launch_key: rsa.RSAPrivateKey, tmp_path: Path
) -> None:
    """A password that cannot be decrypted says which setting is missing."""
    other = rsa.generate_private_key(65537, 2048)
    cloud.group("builders", desired=1, instance_facts={"Platform": "Windows"})
    wrong = ConnectorSettings(key_path=write_key(tmp_path / "key.pem", other))
    for connector in (None, wrong):
        async with open_group(cloud, connector) as group:
            [id] = states(await group.update())
            cloud.set_password(id, PASSWORD, public_pem(launch_key))
            try:
                info = await group.connect_info(id)
            except PermissionDenied as error:
                assert "key_path" in str(error)  # noqa: PT017 - a wrong key can decrypt to rubbish
            else:
                assert info.password != PASSWORD


async def test_host_keys_of_the_console(cloud: AwsCloud) -> None:
    """Host keys are those that the console shows, when it does, and another key is refused."""
    port = cloud.use_machines()
    cloud.quiet_new(1)
    cloud.group("builders", desired=2)
    async with open_group(cloud, host_keys="console") as group:
        first, second = states(await group.update())
        with pytest.raises(InstanceUnhealthy, match="shows no SSH host keys yet"):
            await group.connect_info(first)
        info = await group.connect_info(first)
        assert len(info.host_keys) == 1
        async with await fleeting.connect(replace(info, port=port)) as connection:
            assert connection.host_keys
        with pytest.raises(InstanceUnhealthy):
            await group.connect_info(second)
        other = await group.connect_info(second)
        mixed = replace(info, port=port, host_keys=other.host_keys)
        with pytest.raises(HostKeyMismatch):
            await fleeting.connect(mixed)


@pytest.mark.parametrize(
    ("machine", "found"),
    [
        ({"PrivateIpAddress": "10.0.0.1", "PublicIpAddress": "3.1.2.3"}, ("10.0.0.1", "3.1.2.3")),
        ({"PrivateIpAddress": "10.0.0.1"}, ("10.0.0.1", "")),
        (
            {"PrivateIpAddress": "10.0.0.1", "Ipv6Address": "2001:db8::1"},
            ("10.0.0.1", "2001:db8::1"),
        ),
        ({"Ipv6Address": "2001:db8::1"}, ("2001:db8::1", "2001:db8::1")),
        ({"PrivateIpAddress": "10.0.0.1", "PublicDnsName": ""}, ("10.0.0.1", "")),
        ({}, ("", "")),
    ],
)
def test_addresses(machine: dict[str, Any], found: tuple[str, str]) -> None:
    """The internal address is the private one, the external one public; IPv6 is both."""
    assert addresses(machine) == found


@pytest.mark.parametrize(
    ("machine", "os"),
    [
        ({}, "linux"),
        ({"Platform": "windows"}, "windows"),
        ({"Architecture": "arm64_mac"}, "darwin"),
    ],
)
def test_operating_systems(machine: dict[str, Any], os: str) -> None:
    """EC2 names Windows only, and tells a Mac by its architecture."""
    assert platform_of(machine) == os


@pytest.mark.parametrize(
    ("connector", "os", "pushed"),
    [
        (ConnectorSettings(), "linux", True),
        (ConnectorSettings(protocol="ssh"), "darwin", True),
        (ConnectorSettings(), "windows", False),
        (ConnectorSettings(protocol="exec"), "linux", False),
        (ConnectorSettings(use_static_credentials=True), "linux", False),
    ],
)
def test_when_keys_are_pushed(connector: ConnectorSettings, os: str, pushed: bool) -> None:  # noqa: FBT001
    """Keys are pushed for SSH to anything but Windows, unless there are other credentials."""
    assert is_pushed(connector, os) is pushed
