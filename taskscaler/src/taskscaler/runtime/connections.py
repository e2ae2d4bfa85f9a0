"""One connection for each instance, made when it is first needed and shared by its slots.

While one task connects, the others that need the same connection wait for it.
Closing a `SharedConnection` is final: a task that is connecting at that moment
closes its result, so no connection outlives its instance, and a later machine
with the same id gets a new `SharedConnection`. The connect info cache keeps what
the next connection to the same machine can use: address, credentials, host keys.

With `slot_users`, each slot has a connection of its own, as its own user.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio

from fleeting import CancelledInside, DeadlineExceeded, call_within, describe_bug
from fleeting.errors import ConnectorError, InstanceGone, NotSupported, Unreachable
from taskscaler.runtime import provider_calls
from taskscaler.runtime.connect_info_cache import ConnectInfoCache

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from fleeting.abc import Connection, InstanceGroup
    from fleeting.types import ConnectInfo, ConnectorSettings

__all__ = ("Connections", "SharedConnection")

logger = logging.getLogger("taskscaler")

# How long closing one connection may take.
CLOSE_SECONDS = 5.0

# How long a connector may take if no timeout is configured.
CONNECT_SECONDS = 60.0
# A connector gets this much longer than its timeout, because its own error says more than ours.
GRACE_SECONDS = 10.0


class SharedConnection:
    """The connection to one instance, shared by all of its slots, and those of `slot_users`.

    Attributes:
        lock: held while connecting.
        connection: None before the first, and after a broken one was discarded.
        closed: whether it must not be used any more.
    """

    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self.connection: Connection | None = None
        self.closed = False
        self._of_users: dict[str, SharedConnection] = {}

    def of_user(self, user: str) -> SharedConnection:
        """Return the connection of a user of `slot_users`; this one if the user is empty."""
        if not user:
            return self
        if user not in self._of_users:
            self._of_users[user] = SharedConnection()
            self._of_users[user].closed = self.closed
        return self._of_users[user]

    def give_up(self) -> None:
        """Let no task use it any more."""
        self.closed = True
        for other in self._of_users.values():
            other.closed = True

    @property
    def usable(self) -> Connection | None:
        """Return the connection if it is open."""
        connection = self.connection
        return connection if connection is not None and connection.is_open else None

    def check(self, id: str) -> None:
        """Check that it is not closed.

        Raises:
            InstanceGone: it is.
        """
        if self.closed:
            raise InstanceGone(id, f"instance {id} was given up while connecting to it")

    async def discard(self) -> None:
        """Close the connection, if there is one; another one may follow."""
        connection, self.connection = self.connection, None
        if connection is None:
            return
        try:
            await call_within(CLOSE_SECONDS, connection.aclose, shield=True)
        except DeadlineExceeded:
            logger.warning("closing a connection took longer than %gs", CLOSE_SECONDS)
        except Exception as error:  # noqa: BLE001 - a connector can raise anything
            # Without its traceback, which shows values that may be secrets.
            logger.error("closing a connection failed: %s", describe_bug(error, where=True))  # noqa: TRY400 - as above

    async def close(self) -> None:
        """Close it for good."""
        self.give_up()
        async with anyio.create_task_group() as closing:
            for one in (self, *self._of_users.values()):
                closing.start_soon(one.discard)


class Connections:
    """The connections of a scaler, by group and instance.

    Args:
        connect: makes a connection.
        settings: the operator's, by group.

    Attributes:
        cache: what is known about reaching the instances.
    """

    def __init__(
        self,
        connect: Callable[[ConnectInfo], Awaitable[Connection]],
        settings: Mapping[str, ConnectorSettings],
    ) -> None:
        self.cache = ConnectInfoCache()
        self._connect = connect
        self._settings = settings
        self._shared: dict[tuple[str, str], SharedConnection] = {}

    def slot_user(self, group: str, slot: int) -> str:
        """Return the user of a slot; empty if that is the user of the instance.

        Raises:
            NotSupported: `slot_users` names too few users.
        """
        users = self._settings[group].slot_users
        if not users:
            return ""
        if slot >= len(users):
            raise NotSupported(
                f"connector_config.slot_users names no user for slot {slot} of an instance; "
                "name one for each slot"
            )
        return users[slot]

    async def get(
        self,
        group: InstanceGroup,
        id: str,
        provider_seconds: float,
        *,
        user: str = "",
        connector_seconds: float = float("inf"),
    ) -> Connection:
        """Return an open connection to an instance, after connecting to it if necessary.

        Args:
            group: its group.
            id: its id there.
            provider_seconds: how long the provider may take to return the connect info;
                the connector's own timeout comes on top of that.
            user: a user of `slot_users`; empty for that of the instance.
            connector_seconds: how long the connector may take, if its timeout is longer.

        Raises:
            FleetingError: connecting failed.
        """
        shared = self._shared.get((group.info.id, id))
        if shared is None:
            shared = self._shared[group.info.id, id] = SharedConnection()
        shared = shared.of_user(user)
        if (connection := shared.usable) is not None:
            return connection
        async with shared.lock:
            if (connection := shared.usable) is not None:
                return connection
            await shared.discard()
            return await self._open(
                shared, group, id, provider_seconds, user=user, connector_seconds=connector_seconds
            )

    def detach(self, group: str, id: str) -> SharedConnection | None:
        """Stop using the connection to an instance at once; return it, to be closed.

        The provider is asked again before the next connection, because a suspended
        instance may come back with another address.
        """
        self.cache.invalidate(group, id)
        shared = self._shared.pop((group, id), None)
        if shared is not None:
            shared.give_up()
        return shared

    async def aclose(self) -> None:
        """Close all connections, at the same time."""
        async with anyio.create_task_group() as closing:
            for group, id in list(self._shared):
                shared = self.detach(group, id)
                if shared is not None:
                    closing.start_soon(shared.close)

    async def _open(
        self,
        shared: SharedConnection,
        group: InstanceGroup,
        id: str,
        provider_seconds: float,
        *,
        user: str,
        connector_seconds: float,
    ) -> Connection:
        shared.check(id)
        info = self.cache.find(group.info.id, id)
        if info is None:
            info = await provider_calls.connect_info(group, id, provider_seconds)
            shared.check(id)
            info = self.cache.keep(group.info.id, id, info)
        try:
            # A key that the connector pins belongs to this machine, not to its id and address.
            info = replace(
                info.with_settings(self._settings[group.info.id]),
                incarnation=self.cache.life(group.info.id, id),
            )
            if user:
                info = replace(info, username=user)
            seconds = CONNECT_SECONDS if info.timeout is None else info.timeout.total_seconds()
            if connector_seconds < seconds:
                info = replace(info, timeout=timedelta(seconds=connector_seconds))
            connection = await self._call_connector(info)
        except ConnectorError:
            # The address or the credentials may have changed.
            if not shared.closed:
                self.cache.invalidate(group.info.id, id)
            raise
        shared.connection = connection
        try:
            shared.check(id)
        except InstanceGone:
            await shared.discard()
            raise
        self.cache.keep_host_keys(group.info.id, id, connection.host_keys)
        return connection

    async def _call_connector(self, info: ConnectInfo) -> Connection:
        """Connect, with a deadline for connectors that do not keep their own."""
        timeout = CONNECT_SECONDS if info.timeout is None else info.timeout.total_seconds()
        seconds = timeout + GRACE_SECONDS
        try:
            return await call_within(seconds, lambda: self._connect(info))
        except DeadlineExceeded:
            raise Unreachable(
                f"connecting to instance {info.id} took longer than {seconds:g}s, and the "
                f"connector {info.protocol!r} did not say why"
            ) from None
        except CancelledInside as error:
            raise Unreachable(
                f"connecting to instance {info.id} was cancelled inside the connector "
                f"{info.protocol!r} because of a bug"
            ) from error
