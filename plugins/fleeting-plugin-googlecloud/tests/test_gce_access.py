"""How instances are reached: addresses, keys with an end, host keys, Windows passwords."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import fleeting
from fleeting.errors import (
    AuthenticationFailed,
    FleetingError,
    InstanceGone,
    InstanceUnhealthy,
)
from fleeting.types import ConnectorSettings, Duration
from fleeting_plugin_googlecloud._access import KeysIgnored
from fleeting_plugin_googlecloud._errors import StaleFingerprint
from fleeting_plugin_googlecloud._keys import LoginKey
from gce_faults import HttpFault, OperationFault
from gce_plugin import open_group, running_group

if TYPE_CHECKING:
    from pathlib import Path

    from fleeting.types import ConnectInfo
    from gce_cloud import GoogleCloud

pytestmark = pytest.mark.anyio

SET = "instances.setMetadata"
STALE = HttpFault(412, "conditionNotMet", "Supplied fingerprint does not match")


async def can_log_in(info: ConnectInfo, port: int) -> bool:
    """Log in to an instance and run a command."""
    try:
        async with await fleeting.connect(replace(info, port=port)) as connection:
            return (await connection.run("true")).succeeded
    except AuthenticationFailed:
        return False


async def test_guest_agent_applies_the_key(cloud: GoogleCloud) -> None:
    """The key that was written to the metadata opens the instance, until it has expired."""
    port = cloud.use_machines()
    async with running_group(cloud, 2) as (group, ids):
        first, second = [await group.connect_info(id) for id in ids]
        assert first.private_key != second.private_key
        assert await can_log_in(first, port)
        assert not await can_log_in(replace(first, private_key=second.private_key), port)
        cloud.agent.ahead = timedelta(hours=12, minutes=-2)
        assert await can_log_in(second, port)
        cloud.agent.ahead = timedelta(hours=12, minutes=1)
        assert not await can_log_in(second, port)
        assert first.expires is not None
        left = first.expires - datetime.now(UTC)
        assert timedelta(hours=11, minutes=50) < left < timedelta(hours=12)


async def test_key_is_renewed_in_its_second_half(
    cloud: GoogleCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key is written once, and again when half of its time is over."""
    monkeypatch.setattr("fleeting_plugin_googlecloud._access.REUSE_SECONDS", 0.0)
    cloud.group(running=1)
    async with open_group(cloud, key_lifetime=Duration(minutes=2)) as group:
        (instance,) = (await group.update()).instances
        first = await group.connect_info(instance.id)
        assert await group.connect_info(instance.id) == first
        assert len(cloud.calls(SET)) == 2  # The first one asked whether it is permitted.
        machine = cloud.machine(instance.id)
        late = datetime.now(UTC) + timedelta(seconds=50)
        before, _, _ = machine.metadata["ssh-keys"].rpartition("2026-")
        assert before
        machine.metadata["ssh-keys"] = _with_end(machine.metadata["ssh-keys"], late)
        second = await group.connect_info(instance.id)
        assert second.private_key == first.private_key
        assert second.expires is not None
        assert second.expires > late
        assert machine.metadata["ssh-keys"].count("\n") == 0


def _with_end(value: str, end: datetime) -> str:
    """Return the value of `ssh-keys` with another end of its only key."""
    beginning, _, _ = value.rpartition('"expireOn": "')
    return f'{beginning}"expireOn": "{end:%Y-%m-%dT%H:%M:%S+0000}"}}'


async def test_keys_and_values_of_others_stay(cloud: GoogleCloud) -> None:
    """All other metadata stay as they are."""
    async with running_group(cloud, 1) as (group, ids):
        machine = cloud.machine(ids[0])
        machine.metadata = {"startup-script": "a\n b", "ssh-keys": "bob:ssh-rsa AAAA bob "}
        await group.connect_info(ids[0])
        assert machine.metadata["startup-script"] == "a\n b"
        assert machine.metadata["ssh-keys"].startswith("bob:ssh-rsa AAAA bob \nfleeting:")


async def test_another_client_writes_at_the_same_time(cloud: GoogleCloud) -> None:
    """A write that another client has overtaken is tried again with the new metadata."""
    async with running_group(cloud, 1) as (group, ids):
        cloud.fail(SET, STALE, times=3)
        await group.connect_info(ids[0])
        assert cloud.machine(ids[0]).metadata["ssh-keys"].startswith("fleeting:")
    async with open_group(cloud) as group:
        cloud.fail(SET, STALE, times=5)
        with pytest.raises(StaleFingerprint):
            await group.connect_info(ids[0])


async def test_two_managers_at_the_same_time(cloud: GoogleCloud) -> None:
    """Two processes that connect to one instance at once both end with a valid key."""
    port = cloud.use_machines()
    cloud.group(running=1)
    found: list[ConnectInfo] = []
    async with open_group(cloud) as first, open_group(cloud) as second:
        (instance,) = (await first.update()).instances

        async def ask(group: Any) -> None:
            found.append(await group.connect_info(instance.id))

        async with anyio.create_task_group() as tasks:
            for group in (first, second, first, second):
                tasks.start_soon(ask, group)
        assert len({one.private_key for one in found}) == 2
        for info in found:
            assert await can_log_in(info, port)


async def test_many_connections_cost_one_answer(cloud: GoogleCloud) -> None:
    """Callers that ask at the same time, or soon after, share an answer."""
    async with running_group(cloud, 1) as (group, ids):
        before = len(cloud.calls())
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(group.connect_info, ids[0])
        assert len(cloud.calls("instances.get", since=before)) == 1
        assert len(cloud.calls(SET, since=before)) == 1


async def test_own_key(cloud: GoogleCloud, tmp_path: Path) -> None:
    """With `key_path`, that key is written for the configured user, on every instance."""
    key = LoginKey.generate()
    path = tmp_path / "key"
    path.write_text(key.private)
    connector = ConnectorSettings(key_path=path, username="ci")
    async with running_group(cloud, 2, connector) as (group, ids):
        for id in ids:
            info = await group.connect_info(id)
            assert (info.username, info.private_key) == ("ci", key.private)
            assert f"ci:{key.public} google-ssh" in cloud.machine(id).metadata["ssh-keys"]


async def test_users_of_slots(cloud: GoogleCloud) -> None:
    """One write makes the key known for the user of each slot."""
    port = cloud.use_machines()
    connector = ConnectorSettings(slot_users=("ci0", "ci1"))
    async with running_group(cloud, 1, connector) as (group, ids):
        info = await group.connect_info(ids[0])
        for user in ("fleeting", "ci0", "ci1"):
            assert await can_log_in(replace(info, username=user), port)
        assert len(cloud.calls(SET)) == 2  # The first one asked whether it is permitted.


@pytest.mark.parametrize(
    "connector",
    [
        ConnectorSettings(use_static_credentials=True, username="ubuntu"),
        ConnectorSettings(password="secret", username="ubuntu"),  # noqa: S106 - of no machine
        ConnectorSettings(protocol="docker"),
    ],
)
async def test_static_credentials(cloud: GoogleCloud, connector: ConnectorSettings) -> None:
    """With credentials of the operator nothing is written."""
    async with running_group(cloud, 1, connector) as (group, ids):
        info = await group.connect_info(ids[0])
        assert (info.private_key, info.expires) == (None, None)
        assert cloud.calls(SET) == []


@pytest.mark.parametrize("where", ["project", "instance"])
async def test_os_login(cloud: GoogleCloud, where: str) -> None:
    """An instance with OS Login ignores keys, which is said instead of a refused login."""
    async with running_group(cloud, 1) as (group, ids):
        machine = cloud.machine(ids[0])
        machine.metadata["enable-oslogin"] = "TRUE"
        with pytest.raises(KeysIgnored, match=r"OS Login .*enable-oslogin=FALSE"):
            await group.connect_info(ids[0])
        machine.metadata["enable-oslogin"] = "FALSE"
        await group.connect_info(ids[0])
    if where == "project":
        cloud.agent.project_metadata["enable-oslogin"] = "true"
        cloud.template = {"metadata": {"items": [{"key": "enable-oslogin", "value": "FALSE"}]}}
        async with open_group(cloud) as group:
            await group.connect_info(ids[0])
            del machine.metadata["enable-oslogin"]
        async with open_group(cloud) as group:
            with pytest.raises(KeysIgnored, match="metadata of the project"):
                await group.connect_info(ids[0])


@pytest.mark.parametrize(
    ("interface", "addresses"),
    [
        ({"networkIP": "10.0.0.5"}, ("10.0.0.5", "")),
        (
            {"networkIP": "10.0.0.5", "accessConfigs": [{"natIP": "203.0.113.5"}]},
            ("10.0.0.5", "203.0.113.5"),
        ),
        (
            {"ipv6Address": "fd20::5", "ipv6AccessConfigs": [{"externalIpv6": "2600:1900::5"}]},
            ("fd20::5", "2600:1900::5"),
        ),
        ({"ipv6AccessConfigs": [{"externalIpv6": "2600::5"}]}, ("2600::5", "2600::5")),
    ],
)
async def test_addresses(
    cloud: GoogleCloud, interface: dict[str, Any], addresses: tuple[str, str]
) -> None:
    """The addresses are those of the first network interface, IPv4 before IPv6."""
    async with running_group(cloud, 1) as (group, ids):
        second = {"networkIP": "10.9.9.9", "accessConfigs": [{"natIP": "203.0.113.9"}]}
        cloud.machine(ids[0]).changes["networkInterfaces"] = [interface, second]
        info = await group.connect_info(ids[0])
        assert (info.internal_address, info.external_address) == addresses


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "PROVISIONING"},
        {"status": "STAGING"},
        {"status": "TERMINATED"},
        {"networkInterfaces": [{"name": "nic0"}]},
        {"networkInterfaces": []},
    ],
)
async def test_instance_that_cannot_be_reached_yet(
    cloud: GoogleCloud, changes: dict[str, Any]
) -> None:
    """Before it runs and has an address, an instance is unhealthy, and has no address `""`."""
    async with running_group(cloud, 1) as (group, ids):
        cloud.machine(ids[0]).changes.update(changes)
        with pytest.raises(InstanceUnhealthy):
            await group.connect_info(ids[0])
        assert len(cloud.calls(SET)) == 1  # Only the question whether it is permitted.


async def test_instance_that_is_gone(cloud: GoogleCloud) -> None:
    """An instance that Google does not know any more is gone, and not only out of reach."""
    async with running_group(cloud, 2) as (group, ids):
        del cloud.engine.machines["europe-west1-b", ids[0]]
        with pytest.raises(InstanceGone, match="there is no instance"):
            await group.connect_info(ids[0])
        machine = cloud.machine(ids[1])
        machine.number = "77"
        with pytest.raises(InstanceGone, match="recreated under the same name"):
            await group.connect_info(ids[1])


async def test_architecture_and_platform(cloud: GoogleCloud) -> None:
    """The boot disk says which architecture and system the machine has."""
    async with running_group(cloud, 1, ConnectorSettings(use_static_credentials=True)) as it:
        group, ids = it
        disk = {
            "boot": True,
            "architecture": "ARM64",
            "guestOsFeatures": [{"type": "WINDOWS"}],
        }
        cloud.machine(ids[0]).changes["disks"] = [{"boot": False}, disk]
        info = await group.connect_info(ids[0])
        assert (info.os, info.arch, info.protocol) == ("windows", "arm64", "winrm")


async def test_refused_metadata(cloud: GoogleCloud) -> None:
    """The error of an operation that wrote nothing is told."""
    async with running_group(cloud, 1) as (group, ids):
        cloud.fail(SET, OperationFault("METADATA_TOO_LARGE", "too large"))
        with pytest.raises(FleetingError, match="too large"):
            await group.connect_info(ids[0])


async def test_host_keys_from_guest_attributes(cloud: GoogleCloud) -> None:
    """The host keys that the agent publishes are verified from the first connection on."""
    port = cloud.use_machines()
    items = [{"key": "enable-guest-attributes", "value": "TRUE"}]
    cloud.template = {"metadata": {"items": items}}
    cloud.group(running=1)
    async with open_group(cloud, host_keys="guest-attributes") as group:
        (instance,) = (await group.update()).instances
        info = await group.connect_info(instance.id)
        assert info.host_keys[0].startswith("ssh-ed25519 AAAA")
        assert await can_log_in(info, port)
        cloud.machine(instance.id).attributes.clear()
    async with open_group(cloud, host_keys="guest-attributes") as group:
        with pytest.raises(InstanceUnhealthy, match='host_keys = "first-use"'):
            await group.connect_info(instance.id)


WINDOWS = {"disks": [{"boot": True, "guestOsFeatures": [{"type": "WINDOWS"}]}]}


async def test_windows_password(cloud: GoogleCloud) -> None:
    """The agent sets a password and sends it encrypted through the serial port."""
    async with running_group(cloud, 1, ConnectorSettings(os="windows")) as (group, ids):
        machine = cloud.machine(ids[0])
        machine.changes.update(WINDOWS)
        machine.metadata["windows-keys"] = '{"userName": "bob"}'
        machine.serial = "booting\n" * 3
        answer = cloud.agent.answer_windows
        cloud.agent.answer_windows = lambda machine: None  # type: ignore[method-assign]  # noqa: ARG005 - it is busy
        for _ in range(2):
            with pytest.raises(InstanceUnhealthy, match="no password yet"):
                await group.connect_info(ids[0])
        machine.metadata["windows-keys"] = machine.metadata["windows-keys"].partition("\n")[2]
        answer(machine)
        info = await group.connect_info(ids[0])
        assert (info.username, info.password) == ("fleeting", cloud.agent.password)
        assert cloud.agent.password not in repr(info)
        assert len(cloud.calls(SET)) == 1


async def test_windows_agent_fails(cloud: GoogleCloud) -> None:
    """An error of the agent is told, and the next call asks again."""
    async with running_group(cloud, 1, ConnectorSettings(os="windows")) as (group, ids):
        cloud.agent.fails = "the user cannot be created"
        with pytest.raises(InstanceUnhealthy, match="cannot be created"):
            await group.connect_info(ids[0])
        cloud.agent.fails = None
        assert (await group.connect_info(ids[0])).password == cloud.agent.password
