"""How instances are reached: addresses, pushed keys, passwords, host keys."""

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
from aws_plugin import open_group, running_group, states
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
from fleeting_plugin_aws._instances import addresses, platform_of, pushes_key

if TYPE_CHECKING:
    from pathlib import Path

    from aws_cloud import AwsCloud

pytestmark = pytest.mark.anyio

PUSH = "SendSSHPublicKey"
PASSWORD = "correct horse;battery"  # noqa: S105 - made up


@pytest.fixture(scope="module")
def launch_key() -> rsa.RSAPrivateKey:
    """Return a key like those of EC2's key pairs."""
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask AWS again at once about an instance that cannot be reached yet."""
    monkeypatch.setattr("fleeting_plugin_aws._access.PAUSE_SECONDS", 0.0)


def public_pem(key: rsa.RSAPrivateKey) -> bytes:
    """Return the public half of a key in PEM format."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def write_key(path: Path, key: rsa.RSAPrivateKey) -> Path:
    """Write the key into a file, and return its path."""
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    return path


async def test_pushed_key_opens_a_connection(cloud: AwsCloud) -> None:
    """A command runs with the pushed key, for the user that it was pushed for only."""
    port = cloud.use_machines()
    async with running_group(cloud, 1) as (group, [id]):
        info = await group.connect_info(id)
        assert (info.username, info.os, info.protocol) == ("ec2-user", "linux", "ssh")
        async with await fleeting.connect(replace(info, port=port)) as connection:
            assert (await connection.run("echo hello")).stdout == b"hello\n"
        with pytest.raises(AuthenticationFailed):
            await fleeting.connect(replace(info, port=port, username="root"))


async def test_keys_expire_and_are_pushed_again(cloud: AwsCloud) -> None:
    """An answer says when its key expires, and is returned again soon after."""
    async with running_group(cloud, 1) as (group, [id]):
        info = await group.connect_info(id)
        assert info.expires is not None
        assert timedelta(0) < info.expires - datetime.now(UTC) < timedelta(seconds=60)
        assert await group.connect_info(id) == info
        assert len(cloud.calls(PUSH)) == 1


async def test_one_key_for_each_opening(cloud: AwsCloud) -> None:
    """All instances of an open group get the same key; another opening has another key."""
    cloud.group("builders", desired=2)
    keys: list[set[str]] = []
    for _ in range(2):
        async with open_group(cloud) as group:
            infos = [await group.connect_info(id) for id in states(await group.update())]
            keys.append({info.private_key or "" for info in infos})
    assert [len(one) for one in keys] == [1, 1]
    assert keys[0] != keys[1]


async def test_many_instances_are_looked_up_together(cloud: AwsCloud) -> None:
    """Concurrent callers share one request for the addresses of all instances."""
    async with running_group(cloud, 30, maximum=30) as (group, ids):
        async with anyio.create_task_group() as tasks:
            for id in ids:
                tasks.start_soon(group.connect_info, id)
        assert len(cloud.calls("DescribeInstances")) == 1
        assert len(cloud.calls(PUSH)) == 30


async def test_descriptions_have_pages(cloud: AwsCloud) -> None:
    """Instances on later pages of an answer are found."""
    cloud.group("builders", desired=3)
    cloud.set_page_size(1)
    async with open_group(cloud) as group:
        for id in states(await group.update()):
            assert (await group.connect_info(id)).internal_address


async def test_instance_unknown_to_ec2(cloud: AwsCloud) -> None:
    """An instance that EC2 does not know yet is unhealthy, and does not affect the others."""
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


async def test_waiting_callers_do_not_ask_aws_again(
    cloud: AwsCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asking again at once about an instance that cannot be reached yet sends no request."""
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
    """The error says whether an instance boots, is being removed or does not exist."""
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


async def test_configured_key_is_pushed(cloud: AwsCloud, tmp_path: Path) -> None:
    """A configured key that is not static is pushed for the configured user."""
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
    """An unusable key file is reported when the group is opened."""
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
    """A refusal of Instance Connect keeps its class, and a later attempt succeeds."""
    async with running_group(cloud, 1) as (group, [id]):
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
    """The password of a Windows instance is decrypted once it is set, and never logged."""
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
    """The error for a password that cannot be decrypted names the missing key."""
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
                assert "key_path" in str(error)  # noqa: PT017 - a wrong key can decrypt to other bytes
            else:
                assert info.password != PASSWORD


async def test_host_keys_of_the_console(cloud: AwsCloud) -> None:
    """Host keys are read from the console, and a different key is refused."""
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
    ("description", "found"),
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
def test_addresses(description: dict[str, Any], found: tuple[str, str]) -> None:
    """The internal address is the private one, the external one public; IPv6 is both."""
    assert addresses(description) == found


@pytest.mark.parametrize(
    ("description", "os"),
    [
        ({}, "linux"),
        ({"Platform": "windows"}, "windows"),
        ({"Architecture": "arm64_mac"}, "darwin"),
    ],
)
def test_operating_systems(description: dict[str, Any], os: str) -> None:
    """Only Windows is named by EC2; a Mac is recognised by its architecture."""
    assert platform_of(description) == os


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
    """Keys are pushed for SSH, except to Windows and with other credentials."""
    assert pushes_key(connector, os) is pushed
