"""Answers how an instance is reached: its addresses, a user and credentials.

By default the plugin makes a key that lasts as long as the group is open. EC2
Instance Connect makes the key known to an instance for a minute, so it is
pushed before each connection, and the answer says when that minute ends. A
caller that asks again soon gets the same answer without a request.

With static credentials nothing is pushed. A Windows instance has a password
that EC2 has encrypted with the key of its launch. It is decrypted for each
answer, and never stored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import anyio

from fleeting.errors import FleetingError, InstanceUnhealthy, PermissionDenied
from fleeting_plugin_aws._errors import Refused
from fleeting_plugin_aws._instances import (
    connect_info_of,
    ec2_state_of,
    pushes_key,
    require_reachable,
)
from fleeting_plugin_aws._keys import KeyPair, console_host_keys, decrypt_password
from fleeting_plugin_aws._requests import describe_instances

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from fleeting.types import ConnectInfo, ConnectorSettings
    from fleeting_plugin_aws._clients import Clients
    from fleeting_plugin_aws._config import AwsConfig

__all__ = ("Access",)

# An instance accepts a pushed key for this long; the answer expires a little earlier.
KEY_LIFE = timedelta(seconds=60)
KEY_MARGIN = timedelta(seconds=10)

# The same answer is returned for this long, so that enough of the key's minute is left to connect.
REUSE = timedelta(seconds=20)

# AWS is not asked again for this long about an instance that cannot be reached yet.
PAUSE_SECONDS = 5.0

# A connection that takes longer would come with a key that has expired.
CONNECT_TIMEOUT = timedelta(seconds=45)

_NOT_FOUND = frozenset({"EC2InstanceNotFoundException", "InvalidInstanceID.NotFound"})
_NOT_NOW = frozenset({"EC2InstanceStateInvalidException", "EC2InstanceUnavailableException"})


@dataclass(frozen=True, slots=True)
class _Described:
    """EC2's description of an instance, and when it was read, in monotonic seconds."""

    description: Mapping[str, Any]
    at: float


class Access:
    """Answers how the instances of one group are reached.

    Args:
        clients: send the requests.
        config: the plugin's configuration.
        settings: what the operator configured about connections.
        key: the key that is pushed, or that decrypts passwords.
    """

    def __init__(
        self, clients: Clients, config: AwsConfig, settings: ConnectorSettings, key: KeyPair
    ) -> None:
        self._clients = clients
        self._config = config
        self._settings = settings
        self._key = key
        self._running: Collection[str] = frozenset()
        self._looking = anyio.Lock()
        self._described: dict[str, _Described] = {}
        self._answers: dict[str, tuple[float, ConnectInfo]] = {}
        self._not_yet: dict[str, tuple[float, str]] = {}
        self._host_keys: dict[str, tuple[str, ...]] = {}

    def update_running(self, ids: Collection[str]) -> None:
        """Remember which members run, as listed last, and forget all other instances."""
        self._running = ids
        known = {*self._described, *self._answers, *self._not_yet, *self._host_keys}
        self.forget([id for id in known if id not in ids])

    def forget(self, ids: Collection[str]) -> None:
        """Forget instances that are being removed or suspended."""
        for id in ids:
            self._described.pop(id, None)
            self._answers.pop(id, None)
            self._not_yet.pop(id, None)
            self._host_keys.pop(id, None)

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
            # Many callers may be waiting for it, and each asks once a second.
            self._not_yet[id] = (anyio.current_time() + PAUSE_SECONDS, str(error))
            raise

    async def _ask(self, id: str) -> ConnectInfo:
        description = await self._describe(id)
        info = connect_info_of(id, description, self._settings)
        if self._config.host_keys == "console":
            info = replace(info, host_keys=await self._read_host_keys(id))
        if pushes_key(self._settings, info.os):
            info = await self._push(info, description)
        elif info.os == "windows" and self._settings.password is None:
            info = replace(info, password=await self._password(id))
        return info

    async def _describe(self, id: str) -> Mapping[str, Any]:
        """Describe an instance; the same request describes the others that may be asked for next.

        Raises:
            InstanceGone: it does not exist.
            InstanceUnhealthy: it cannot be reached now.
        """
        async with self._looking:
            fresh_since = anyio.current_time() - KEY_LIFE.total_seconds()
            known = self._described.get(id)
            if known is None or known.at < fresh_since:
                members = self._running
                wanted = {one for one in members if one not in self._described} | {id}
                found = await describe_instances(self._clients, wanted)
                at = anyio.current_time()
                for one, description in found.items():
                    if ec2_state_of(description) == "running":
                        self._described[one] = _Described(description, at)
                return require_reachable(id, found.get(id), is_member=id in members)
        return known.description

    async def _push(self, info: ConnectInfo, description: Mapping[str, Any]) -> ConnectInfo:
        user = self._settings.username or info.username
        try:
            await self._clients.change(
                "ec2-instance-connect",
                "SendSSHPublicKey",
                InstanceId=info.id,
                InstanceOSUser=user,
                SSHPublicKey=self._key.public,
                AvailabilityZone=description["Placement"]["AvailabilityZone"],
            )
        except Refused as error:
            raise _instance_error(info.id, error) from None
        # From the answer on: the request may have waited long for its turn.
        pushed = anyio.current_time()
        expires = datetime.now(UTC) + KEY_LIFE - KEY_MARGIN
        info = replace(
            info, private_key=self._key.private, expires=expires, timeout=CONNECT_TIMEOUT
        )
        self._answers[info.id] = (pushed + REUSE.total_seconds(), info)
        return info

    async def _password(self, id: str) -> str:
        if not self._key.private:
            raise PermissionDenied(
                f"instance {id} runs Windows, and there is no key to decrypt its password; set "
                "key_path in connector_config to the key of its launch, or set password"
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
                f"the password of instance {id} cannot be decrypted: {error}; set key_path in "
                "connector_config to the key of its launch"
            ) from None

    async def _read_host_keys(self, id: str) -> tuple[str, ...]:
        found = self._host_keys.get(id)
        if found is None:
            found = console_host_keys(await self._console(id))
            if not found:
                raise InstanceUnhealthy(
                    id,
                    f"the console of instance {id} shows no SSH host keys yet; if it never does, "
                    'its image lacks cloud-init: set host_keys = "first-use"',
                )
            self._host_keys[id] = found
        return found

    async def _console(self, id: str) -> str:
        """Return the console output; instance types without `Latest` report it late."""
        try:
            answer = await self._clients.ask("ec2", "GetConsoleOutput", InstanceId=id, Latest=True)
        except Refused as error:
            if error.code != "UnsupportedOperation":
                raise _instance_error(id, error) from None
            answer = await self._clients.ask("ec2", "GetConsoleOutput", InstanceId=id)
        return str(answer.get("Output", ""))  # The SDK has decoded it.


def _instance_error(id: str, error: Refused) -> FleetingError:
    if error.code in _NOT_FOUND:
        return InstanceUnhealthy(id, f"instance {id}: {error}")
    if error.code in _NOT_NOW:
        return InstanceUnhealthy(id, f"instance {id} does not accept a key now: {error}")
    return error
