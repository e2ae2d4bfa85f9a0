"""Asks the guest agents of Windows machines for passwords.

A request is a key in the metadata of the machine. The agent sets a new password, encrypts it with
the key, and prints it on the fourth serial port. That takes from seconds to minutes, so a call
makes one step and says that the instance is not ready yet. The password is decrypted for each
answer and never stored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from fleeting.errors import InstanceUnhealthy
from fleeting_plugin_googlecloud._keys import PasswordKey, add_windows_key, find_password
from fleeting_plugin_googlecloud._requests import change_metadata
from fleeting_plugin_googlecloud._threads import run_in_thread

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from fleeting_plugin_googlecloud._api import GoogleApi
    from fleeting_plugin_googlecloud._members import ManagedMember

__all__ = ("WindowsPasswords",)

# The agent ignores a request after this long, for example if it starts later.
REQUEST_LIFE = timedelta(minutes=15)
PORT = 4


@dataclass(slots=True)
class _PasswordRequest:
    """A request to one machine.

    Attributes:
        key: encrypts the password.
        expires: when the agent stops to answer.
        start: the first byte of the serial port that was not read yet.
        rest: the beginning of a line that was read in part.
        encrypted: the answer; None until there is one.
    """

    key: PasswordKey
    expires: datetime
    start: int = 0
    rest: str = ""
    encrypted: str | None = field(default=None, repr=False)


class WindowsPasswords:
    """The requests to the machines of one group.

    Args:
        api: sends the requests.
    """

    def __init__(self, api: GoogleApi) -> None:
        self._api = api
        self._requests: dict[str, _PasswordRequest] = {}

    def keep(self, numbers: Collection[str]) -> None:
        """Forget all other machines."""
        self._requests = {one: at for one, at in self._requests.items() if one in numbers}

    async def password(
        self, member: ManagedMember, description: Mapping[str, Any], user: str
    ) -> str:
        """Return the password of a user.

        Raises:
            InstanceUnhealthy: the agent has not answered yet, or cannot.
            ProviderError: Google refused a request.
        """
        number = str(description.get("id", ""))
        request = self._requests.get(number)
        now = datetime.now(UTC)
        if request is None or (request.encrypted is None and request.expires <= now):
            await self._ask(member, description, number, user)
            request = self._requests[number]
        if request.encrypted is None:
            await self._listen(member, request)
        if request.encrypted is None:
            raise InstanceUnhealthy(
                member.name,
                f"instance {member.name} has no password yet; its guest agent sets it some minutes "
                "after boot",
            )
        try:
            return request.key.decrypt(request.encrypted)
        except ValueError as error:
            del self._requests[number]
            raise InstanceUnhealthy(
                member.name, f"the password of instance {member.name} cannot be read: {error}"
            ) from None

    async def _ask(
        self, member: ManagedMember, description: Mapping[str, Any], number: str, user: str
    ) -> None:
        key = await run_in_thread(PasswordKey)
        now = datetime.now(UTC)
        expires = now + REQUEST_LIFE
        await change_metadata(
            self._api,
            member,
            description,
            "windows-keys",
            lambda value: add_windows_key(value, user, key, expires, now),
        )
        self._requests[number] = _PasswordRequest(key, expires)

    async def _listen(self, member: ManagedMember, request: _PasswordRequest) -> None:
        """Read what the agent has printed since the last time."""
        answer = await self._api.read(
            "instances",
            "get_serial_port_output",
            zone=member.zone,
            instance=member.name,
            port=PORT,
            start=request.start,
        )
        request.start = int(answer.get("next", request.start))
        *lines, request.rest = (request.rest + str(answer.get("contents", ""))).split("\n")
        try:
            request.encrypted = find_password(lines, request.key)
        except ValueError as error:
            request.expires = datetime.now(UTC)  # The next call asks again, with another key.
            raise InstanceUnhealthy(
                member.name,
                f"the guest agent of instance {member.name} cannot set a password: {error}",
            ) from None
