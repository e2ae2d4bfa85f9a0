"""One connection for each instance, made when it is first needed and shared by its slots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fleeting.abc import Connection, InstanceGroup
    from fleeting.types import ConnectInfo, ConnectorSettings

# How long closing one connection may take.
CLOSE_SECONDS = 5.0


class Connections:
    """The connections of a scaler, by group and instance."""

    def __init__(
        self,
        connect: Callable[[ConnectInfo], Awaitable[Connection]],
        settings: ConnectorSettings,
    ) -> None:
        self._connect = connect
        self._settings = settings
        self._open: dict[tuple[str, str], Connection] = {}
        self._locks: dict[tuple[str, str], anyio.Lock] = {}

    async def get(self, group: InstanceGroup, id: str) -> Connection:
        """Return the connection to an instance, made anew if there is none that works.

        Raises:
            FleetingError: it cannot be made.
        """
        key = (group.info.id, id)
        connection = self._open.get(key)
        if connection is not None and connection.is_open:
            return connection
        async with self._locks.setdefault(key, anyio.Lock()):
            connection = self._open.get(key)
            if connection is not None and connection.is_open:
                return connection
            if connection is not None:
                await self.close(*key)
            info = (await group.connect_info(id)).with_settings(self._settings)
            self._open[key] = await self._connect(info)
            return self._open[key]

    async def close(self, group: str, id: str) -> None:
        """Close the connection to an instance, if there is one."""
        connection = self._open.pop((group, id), None)
        if connection is not None:
            with anyio.move_on_after(CLOSE_SECONDS, shield=True):
                await connection.aclose()

    def forget(self, group: str, id: str) -> None:
        """Drop what is kept about an instance that has no connection any more."""
        self._locks.pop((group, id), None)

    async def aclose(self) -> None:
        """Close all connections, at the same time."""
        async with anyio.create_task_group() as closing:
            for key in list(self._open):
                closing.start_soon(self.close, *key)
