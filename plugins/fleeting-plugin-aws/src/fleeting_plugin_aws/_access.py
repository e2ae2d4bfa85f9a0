"""How an instance is reached: its addresses, a user, and what lets us in.

By default a key lets us in that exists as long as the group is open. EC2
Instance Connect shows it to the instance for a minute, so it is pushed each
time that somebody is about to connect, and the answer says when that minute is
over. Whoever asks again soon after gets the same answer, without a request.

With static credentials nothing is pushed. A Windows instance has the password
that EC2 has encrypted with the key of its launch; it is decrypted each time that
it is asked for, and kept nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import anyio

from fleeting.errors import (
    ConfigError,
    FleetingError,
    InstanceGone,
    InstanceUnhealthy,
    PermissionDenied,
)
from fleeting.types import ConnectInfo
from fleeting_plugin_aws._describe import describe_machines, state_of
from fleeting_plugin_aws._errors import Refused
from fleeting_plugin_aws._keys import KeyPair, decrypt_password, host_keys, read_key

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from fleeting.types import ConnectorSettings
    from fleeting_plugin_aws import AwsConfig
    from fleeting_plugin_aws._clients import Clients

__all__ = ("Access", "addresses", "is_pushed", "platform_of", "read_key_file")

# How long an instance knows a pushed key, and how long before that we cease to use it.
KEY_LIFE = timedelta(seconds=60)
KEY_MARGIN = timedelta(seconds=5)

# For how long an answer is given again: so that enough of its life is left to connect.
REUSE = timedelta(seconds=20)

# For how long AWS is not asked again about an instance that cannot be reached yet.
PAUSE_SECONDS = 5.0

# A connection that takes longer than that would come with a key that is forgotten.
CONNECT_TIMEOUT = timedelta(seconds=45)

ARCHITECTURES = {
    "x86_64": "amd64",
    "x86_64_mac": "amd64",
    "arm64": "arm64",
    "arm64_mac": "arm64",
    "i386": "386",
}
_NOT_FOUND = frozenset({"EC2InstanceNotFoundException", "InvalidInstanceID.NotFound"})
_NOT_NOW = frozenset({"EC2InstanceStateInvalidException", "EC2InstanceUnavailableException"})


@dataclass(frozen=True, slots=True)
class _Known:
    """What was found out about an instance, and when."""

    machine: Mapping[str, Any]
    at: float


class Access:
    """Answers how the instances of one group are reached.

    Args:
        clients: how to ask.
        config: the plugin's.
        settings: what the operator said about reaching the instances.
        key: what is pushed, or what decrypts passwords.
        members: returns the ids of the instances that run, as far as is known.
    """

    def __init__(
        self,
        clients: Clients,
        config: AwsConfig,
        settings: ConnectorSettings,
        key: KeyPair,
        members: Callable[[], Collection[str]],
    ) -> None:
        self._clients = clients
        self._config = config
        self._settings = settings
        self._key = key
        self._members = members
        self._looking = anyio.Lock()
        self._known: dict[str, _Known] = {}
        self._answers: dict[str, tuple[float, ConnectInfo]] = {}
        self._not_yet: dict[str, tuple[float, str]] = {}
        self._host_keys: dict[str, tuple[str, ...]] = {}

    def forget(self, ids: Collection[str]) -> None:
        """Forget what is known of instances that are gone, or sleep."""
        for id in ids:
            self._known.pop(id, None)
            self._answers.pop(id, None)
            self._not_yet.pop(id, None)
            self._host_keys.pop(id, None)

    def keep_only(self, ids: Collection[str]) -> None:
        """Forget what is known of all others."""
        self.forget(
            [
                id
                for id in {*self._known, *self._answers, *self._not_yet, *self._host_keys}
                if id not in ids
            ]
        )

    async def connect_info(self, id: str) -> ConnectInfo:
        """Return how to reach an instance; see `InstanceGroup.connect_info`."""
        now = anyio.current_time()
        until, answer = self._answers.get(id, (now, None))
        if answer is not None and now < until:
            return answer
        until, reason = self._not_yet.get(id, (now, ""))
        if now < until:
            raise InstanceUnhealthy(id, reason)
        try:
            return await self._ask(id)
        except InstanceUnhealthy as error:
            # Who waits for it asks once a second, and there can be many.
            self._not_yet[id] = (anyio.current_time() + PAUSE_SECONDS, str(error))
            raise

    async def _ask(self, id: str) -> ConnectInfo:
        machine = await self._find(id)
        info = _info(id, machine, self._settings)
        if self._config.host_keys == "console":
            info = replace(info, host_keys=await self._read_host_keys(id))
        if is_pushed(self._settings, info.os):
            info = await self._push(info, machine)
        elif info.os == "windows" and self._settings.password is None:
            info = replace(info, password=await self._password(id))
        return info

    async def _find(self, id: str) -> Mapping[str, Any]:
        """Look an instance up, and with the same request the others that may be asked for next."""
        async with self._looking:
            fresh_since = anyio.current_time() - KEY_LIFE.total_seconds()
            known = self._known.get(id)
            if known is None or known.at < fresh_since:
                members = self._members()
                wanted = {one for one in members if one not in self._known} | {id}
                found = await describe_machines(self._clients, wanted)
                at = anyio.current_time()
                for one, machine in found.items():
                    if state_of(machine) == "running":
                        self._known[one] = _Known(machine, at)
                return _usable(id, found.get(id), id in members)
        return known.machine

    async def _push(self, info: ConnectInfo, machine: Mapping[str, Any]) -> ConnectInfo:
        pushed = anyio.current_time()
        expires = datetime.now(UTC) + KEY_LIFE - KEY_MARGIN
        user = self._settings.username or info.username
        try:
            await self._clients.change(
                "ec2-instance-connect",
                "SendSSHPublicKey",
                InstanceId=info.id,
                InstanceOSUser=user,
                SSHPublicKey=self._key.public,
                AvailabilityZone=machine["Placement"]["AvailabilityZone"],
            )
        except Refused as error:
            raise _instance_error(info.id, error) from None
        info = replace(
            info, private_key=self._key.private, expires=expires, timeout=CONNECT_TIMEOUT
        )
        self._answers[info.id] = (pushed + REUSE.total_seconds(), info)
        return info

    async def _password(self, id: str) -> str:
        if not self._key.private:
            raise PermissionDenied(
                f"instance {id} runs Windows, and its password cannot be decrypted; set key_path "
                "in connector_config to the key of its launch, or password"
            )
        answer = await self._clients.ask("ec2", "GetPasswordData", InstanceId=id)
        if not answer.get("PasswordData", "").strip():
            raise InstanceUnhealthy(
                id, f"instance {id} has no password yet; Windows sets it some minutes after boot"
            )
        try:
            return decrypt_password(answer["PasswordData"], self._key.private)
        except ValueError as error:
            raise PermissionDenied(
                f"the password of instance {id} cannot be read: {error}; set key_path in "
                "connector_config to the key of its launch"
            ) from None

    async def _read_host_keys(self, id: str) -> tuple[str, ...]:
        found = self._host_keys.get(id)
        if found is None:
            found = host_keys(await self._console(id))
            if not found:
                raise InstanceUnhealthy(
                    id,
                    f"the console of instance {id} shows no SSH host keys yet; if it never does, "
                    'its image lacks cloud-init: set host_keys = "first-use"',
                )
            self._host_keys[id] = found
        return found

    async def _console(self, id: str) -> str:
        """Return what an instance has printed on its console; older kinds tell it late."""
        try:
            answer = await self._clients.ask("ec2", "GetConsoleOutput", InstanceId=id, Latest=True)
        except Refused as error:
            if error.code != "UnsupportedOperation":
                raise _instance_error(id, error) from None
            answer = await self._clients.ask("ec2", "GetConsoleOutput", InstanceId=id)
        return str(answer.get("Output", ""))  # The SDK has decoded it.


def is_pushed(settings: ConnectorSettings, os: str) -> bool:
    """Return whether a key is pushed to an instance of this operating system."""
    static = settings.use_static_credentials or settings.password is not None
    return os != "windows" and settings.protocol in {None, "ssh"} and not static


def platform_of(machine: Mapping[str, Any]) -> str:
    """Return the operating system of an instance."""
    if str(machine.get("Platform", "")).lower() == "windows":
        return "windows"
    return "darwin" if str(machine.get("Architecture", "")).endswith("_mac") else "linux"


def addresses(machine: Mapping[str, Any]) -> tuple[str, str]:
    """Return the internal and the external address of an instance, each empty if it has none."""
    names = ("PrivateIpAddress", "Ipv6Address", "PrivateDnsName")
    internal = next((machine[name] for name in names if machine.get(name)), "")
    names = ("PublicIpAddress", "Ipv6Address", "PublicDnsName")
    external = next((machine[name] for name in names if machine.get(name)), "")
    return internal, external


def read_key_file(path: Path | None, *, pushed: bool) -> KeyPair:
    """Return the key that is pushed or decrypts passwords; a new one if none is configured.

    Raises:
        ConfigError: there is no usable key in the file.
    """
    if path is None:
        return KeyPair.generate() if pushed else KeyPair("", "")
    try:
        text = path.expanduser().read_text()
        return read_key(text) if pushed else KeyPair(text, "")
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise ConfigError(f"connector_config.key_path: {path} cannot be read ({reason})") from None
    except ValueError as error:  # Also that it is no text.
        reason = "it is no text" if isinstance(error, UnicodeError) else str(error)
        raise ConfigError(f"connector_config.key_path: {path}: {reason}") from None


def _info(id: str, machine: Mapping[str, Any], settings: ConnectorSettings) -> ConnectInfo:
    os = settings.os or platform_of(machine)
    internal, external = addresses(machine)
    protocol = settings.protocol or ("winrm" if os == "windows" else "ssh")
    return ConnectInfo(
        id=id,
        protocol=protocol,
        internal_address=internal,
        external_address=external,
        os=os,
        arch=ARCHITECTURES.get(str(machine.get("Architecture", "")), ""),
        username="Administrator" if os == "windows" else "ec2-user",
        use_external_address=settings.use_external_addr,
    )


def _usable(id: str, machine: Mapping[str, Any] | None, is_member: bool) -> Mapping[str, Any]:  # noqa: FBT001
    """Return an instance that can be reached.

    Raises:
        InstanceGone: there is none.
        InstanceUnhealthy: it cannot be reached now.
    """
    if machine is None:
        if is_member:
            raise InstanceUnhealthy(id, f"EC2 does not know instance {id} yet")
        raise InstanceGone(id, f"there is no instance {id} in EC2")
    state = state_of(machine)
    if state in {"shutting-down", "terminated"}:
        raise InstanceGone(id, f"EC2 has ended instance {id} (it is {state})")
    if state != "running":
        raise InstanceUnhealthy(id, f"instance {id} cannot be reached while it is {state}")
    if not any(addresses(machine)):
        raise InstanceUnhealthy(id, f"instance {id} has no address")
    return machine


def _instance_error(id: str, error: Refused) -> FleetingError:
    if error.code in _NOT_FOUND:
        return InstanceUnhealthy(id, f"instance {id}: {error}")
    if error.code in _NOT_NOW:
        return InstanceUnhealthy(id, f"instance {id} takes no key now: {error}")
    return error
