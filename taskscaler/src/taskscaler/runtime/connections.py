"""One connection for each instance, made when it is first needed and shared by its slots.

A line is what there is to one instance: its connection, and a lock that lets one
task at a time make it while the others wait for the result. To close a line is
final. Who is about to connect through it at that moment closes what comes of
it, so that no connection outlives its instance; a later machine of the same id
gets another line. What the next line to the same machine can use again, its
address, credentials and host keys, is in the contacts.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from fleeting.errors import ConnectorError, InstanceGone, Unreachable
from taskscaler.runtime import provider_calls as _calls
from taskscaler.runtime.connect_info_cache import Contacts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fleeting.abc import Connection, InstanceGroup
    from fleeting.types import ConnectInfo, ConnectorSettings

__all__ = ("Connections", "Line")

logger = logging.getLogger("taskscaler")

# How long closing one connection may take.
CLOSE_SECONDS = 5.0

# How long a connector may take that was given no time, and how much longer than its time it
# is waited for: what it has to say for itself is better than that it said nothing.
CONNECT_SECONDS = 60.0
GRACE_SECONDS = 10.0


class Line:
    """The way to one instance.

    Attributes:
        lock: held while its connection is made.
        connection: None if there is none.
        closed: whether it must not be used any more.
    """

    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self.connection: Connection | None = None
        self.closed = False

    @property
    def working(self) -> Connection | None:
        """Return the connection if it works."""
        connection = self.connection
        return connection if connection is not None and connection.is_open else None

    def check(self, id: str) -> None:
        """Return if the line may be used.

        Raises:
            InstanceGone: it is closed.
        """
        if self.closed:
            reason = f"instance {id} was given up while it was being connected to"
            raise InstanceGone(id, reason)

    async def hang_up(self) -> None:
        """Close the connection, if there is one, politely but not for long."""
        connection, self.connection = self.connection, None
        if connection is None:
            return
        with anyio.move_on_after(CLOSE_SECONDS, shield=True):
            try:
                await connection.aclose()
            except Exception:
                logger.exception("closing a connection raised what it must not")
            except anyio.get_cancelled_exc_class():
                await anyio.lowlevel.checkpoint_if_cancelled()
                logger.exception("closing a connection was cancelled inside the connector")

    async def aclose(self) -> None:
        """Close the line for good."""
        self.closed = True
        await self.hang_up()


class Connections:
    """The connections of a scaler, by group and instance.

    Attributes:
        contacts: what is known of the ways to the instances.
    """

    def __init__(
        self,
        connect: Callable[[ConnectInfo], Awaitable[Connection]],
        settings: ConnectorSettings,
    ) -> None:
        self.contacts = Contacts()
        self._connect = connect
        self._settings = settings
        self._lines: dict[tuple[str, str], Line] = {}

    async def get(self, group: InstanceGroup, id: str, answer_seconds: float) -> Connection:
        """Return the connection to an instance, made anew if there is none that works.

        Args:
            group: its group.
            id: its id there.
            answer_seconds: how long the provider may take to say how to reach it; the
                connector gets its own time on top of that.

        Raises:
            FleetingError: it cannot be made.
        """
        line = self._lines.get((group.info.id, id))
        if line is None:
            line = self._lines[group.info.id, id] = Line()
        if (connection := line.working) is not None:
            return connection
        async with line.lock:
            if (connection := line.working) is not None:
                return connection
            await line.hang_up()
            return await self._dial(line, group, id, answer_seconds)

    async def _dial(
        self, line: Line, group: InstanceGroup, id: str, answer_seconds: float
    ) -> Connection:
        line.check(id)
        info = self.contacts.find(group.info.id, id)
        if info is None:
            info = await _calls.connect_info(group, id, answer_seconds)
            line.check(id)
            info = self.contacts.keep(group.info.id, id, info)
        try:
            line.connection = connection = await self._open(info.with_settings(self._settings))
        except ConnectorError:
            # An address or a credential may have changed.
            if not line.closed:
                self.contacts.doubt(group.info.id, id)
            raise
        try:
            line.check(id)
        except InstanceGone:
            await line.hang_up()
            raise
        self.contacts.see(group.info.id, id, connection.host_keys)
        return connection

    async def _open(self, info: ConnectInfo) -> Connection:
        """Connect, with a deadline for connectors that do not keep their own."""
        seconds = CONNECT_SECONDS if info.timeout is None else info.timeout.total_seconds()
        with anyio.move_on_after(seconds + GRACE_SECONDS):
            try:
                return await self._connect(info)
            except anyio.get_cancelled_exc_class() as error:
                # Unless it comes again, it was not we who were cancelled, but something in there.
                await anyio.lowlevel.checkpoint_if_cancelled()
                raise Unreachable(
                    f"connecting to instance {info.id} was cancelled inside the connector "
                    f"{info.protocol!r}, by a bug"
                ) from error
        raise Unreachable(
            f"no connection to instance {info.id} within {seconds + GRACE_SECONDS:g}s, "
            f"and no word from the connector {info.protocol!r} why"
        )

    def take(self, group: str, id: str) -> Line | None:
        """Let nobody use the line to an instance any more; return it, to be closed."""
        line = self._lines.pop((group, id), None)
        if line is not None:
            line.closed = True
        return line

    async def aclose(self) -> None:
        """Close all connections, at the same time."""
        async with anyio.create_task_group() as closing:
            for group, id in list(self._lines):
                line = self.take(group, id)
                if line is not None:
                    closing.start_soon(line.aclose)
