"""Answers how an instance is reached: its addresses, a user and credentials.

By default each instance gets a key of its own, which lasts as long as the group is
open. Its public half is written to the metadata of the instance, with an end after
`key_lifetime`, and the guest agent there accepts it a moment later. Which keys are in
the metadata is read each time, and never remembered: a machine that was recreated
under the same name has none of them.

With OS Login the agent ignores such keys. With static credentials nothing is
written. A Windows machine has a password (see `_passwords`).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import anyio

from fleeting.errors import ConfigError, InstanceGone, InstanceUnhealthy, ProviderError
from fleeting_plugin_googlecloud._errors import Missing
from fleeting_plugin_googlecloud._instances import (
    connect_info_of,
    is_true,
    metadata_of,
    pushes_keys,
    require_running,
)
from fleeting_plugin_googlecloud._keys import LoginKey, add_ssh_key, parse_login_key, ssh_key_end
from fleeting_plugin_googlecloud._passwords import WindowsPasswords
from fleeting_plugin_googlecloud._requests import change_metadata, describe_instance

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from fleeting.types import ConnectInfo, ConnectorSettings
    from fleeting_plugin_googlecloud._api import GoogleApi
    from fleeting_plugin_googlecloud._members import ManagedMember

__all__ = ("GoogleAccess", "KeysIgnored", "load_login_key")

# The same answer is returned for this long, so that many connections at once cost one request.
REUSE_SECONDS = 20.0
# Google is not asked again for this long about an instance that cannot be reached yet.
PAUSE_SECONDS = 2.0
# An answer expires a little before its key, so that no connection begins with an expired one.
MARGIN = timedelta(minutes=1)

_ALGORITHMS = ("ssh-ed25519", "ssh-rsa", "rsa-sha2-", "ecdsa-sha2-")


def load_login_key(settings: ConnectorSettings) -> LoginKey | None:
    """Return the operator's own key; None if there is none, so that keys are made.

    Raises:
        ConfigError: the file does not contain a usable key.
    """
    text = settings.read_private_key()
    if text is None or not pushes_keys(settings, settings.os or "linux"):
        return None
    try:
        return parse_login_key(text)
    except ValueError as error:
        raise ConfigError(f"connector_config.key_path: {settings.key_path}: {error}") from None


class KeysIgnored(ProviderError):
    """The instances of the group ignore the keys that this plugin writes."""

    retryable = False


class GoogleAccess:
    """Answers how the instances of one group are reached.

    Args:
        api: sends the requests.
        settings: what the operator configured about connections.
        key: the operator's own key; None to make one for each instance.
        os_login: whether the project uses OS Login for instances that do not say otherwise.
    """

    def __init__(
        self, api: GoogleApi, settings: ConnectorSettings, key: LoginKey | None, *, os_login: bool
    ) -> None:
        self._api = api
        self._settings = settings
        self._key = key
        self._os_login = os_login
        self._passwords = WindowsPasswords(api)
        # All by Google's numeric id, so that nothing is taken over by a recreated machine.
        self._keys: dict[str, LoginKey] = {}
        self._answers: dict[str, tuple[float, ConnectInfo]] = {}
        self._not_yet: dict[str, tuple[float, str]] = {}
        self._locks: dict[str, anyio.Lock] = {}

    def keep(self, numbers: Collection[str]) -> None:
        """Forget all machines except these."""
        for known in (self._keys, self._answers, self._not_yet, self._locks):
            for number in [one for one in known if one not in numbers]:
                known.pop(number, None)
        self._passwords.keep(numbers)

    def forget_answers(self, numbers: Collection[str]) -> None:
        """Forget what may change when a machine is suspended: its external address."""
        for number in numbers:
            self._answers.pop(number, None)

    async def connect_info(self, member: ManagedMember) -> ConnectInfo:
        """Return how to reach an instance; see `InstanceGroup.connect_info`."""
        lock = self._locks.setdefault(member.number, anyio.Lock())
        async with lock:
            now = anyio.current_time()
            until, answer = self._answers.get(member.number, (now, None))
            if answer is not None and now < until:
                return answer
            until, reason = self._not_yet.get(member.number, (now, ""))
            if now < until:
                raise InstanceUnhealthy(member.name, reason)
            try:
                info = await self._ask(member)
            except InstanceUnhealthy as error:
                # Many callers may be waiting for it, and each asks once a second.
                self._not_yet[member.number] = anyio.current_time() + PAUSE_SECONDS, str(error)
                raise
            self._answers[member.number] = anyio.current_time() + REUSE_SECONDS, info
            return info

    async def _ask(self, member: ManagedMember) -> ConnectInfo:
        description = await describe_instance(self._api, member)
        number = str(description.get("id", ""))
        if member.number and number != member.number:
            raise InstanceGone(
                member.name,
                f"instance {member.name} ({member.number}) was recreated under the same name",
            )
        require_running(member.name, description)
        info = connect_info_of(member.name, description, self._settings)
        if self._api.config.host_keys == "guest-attributes" and info.protocol != "winrm":
            info = replace(info, host_keys=await self._read_host_keys(member))
        if pushes_keys(self._settings, info.os):
            return await self._push(member, description, info)
        if (
            info.os == "windows"
            and self._settings.password is None
            and not self._settings.use_static_credentials
        ):
            password = await self._passwords.password(member, description, info.username)
            return replace(info, password=password)
        return info

    async def _push(
        self, member: ManagedMember, description: Mapping[str, Any], info: ConnectInfo
    ) -> ConnectInfo:
        """Make sure that a key of ours is in the metadata."""
        _require_metadata_keys(member, description, os_login=self._os_login)
        number = str(description["id"])
        key = self._key or self._keys.setdefault(number, LoginKey.generate())
        life = self._api.config.key_lifetime
        now = datetime.now(UTC).replace(microsecond=0)
        end = now + life

        # Each slot may have a user of its own.
        users = dict.fromkeys((info.username, *self._settings.slot_users))

        def change(value: str) -> str | None:
            nonlocal end
            present = min(ssh_key_end(value, user, key) or now for user in users)
            if present > now + life / 2:
                end = present
                return None
            end = now + life
            for user in users:
                value = add_ssh_key(value, user, key, end, now)
            return value

        await change_metadata(self._api, member, description, "ssh-keys", change)
        margin = min(MARGIN, life / 10)
        return replace(info, private_key=key.private, expires=end - margin)

    async def _read_host_keys(self, member: ManagedMember) -> tuple[str, ...]:
        try:
            answer = await self._api.read(
                "instances",
                "get_guest_attributes",
                zone=member.zone,
                instance=member.name,
                query_path="hostkeys/",
            )
        except Missing:
            answer = {}
        items = answer.get("queryValue", {}).get("items", ())
        found = tuple(
            f"{one['key']} {one['value']}"
            for one in items
            if str(one.get("key", "")).startswith(_ALGORITHMS) and one.get("value")
        )
        if not found:
            raise InstanceUnhealthy(
                member.name,
                f"instance {member.name} has not published its SSH host keys yet; if it never "
                "does, enable-guest-attributes is not TRUE in the metadata of its template, or its "
                'image lacks the guest agent: set host_keys = "first-use"',
            )
        return found


def _require_metadata_keys(
    member: ManagedMember, description: Mapping[str, Any], *, os_login: bool
) -> None:
    """Require that the guest agent accepts keys from the metadata.

    Raises:
        KeysIgnored: it uses OS Login instead. All instances of the group do.
    """
    own = metadata_of(description).get("enable-oslogin")
    if is_true(own) if own is not None else os_login:
        where = "its own metadata" if own is not None else "the metadata of the project"
        raise KeysIgnored(
            f"instance {member.name} uses OS Login (enable-oslogin in {where}), so it ignores keys "
            "in metadata; set enable-oslogin=FALSE in the metadata of the instance template, or "
            "configure use_static_credentials and key_path with a key of an OS Login user"
        )
