"""Limits the number of concurrent handshakes with one host.

An SSH server drops connections at random once about ten of them have not logged in
yet (`MaxStartups`), so most connections of an unlimited burst would fail.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class Handshakes:
    """Grants turns, a limited number at once for each host; keeps no record of idle hosts."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._hosts: dict[tuple[str, int], _Host] = {}

    @asynccontextmanager
    async def turn(self, address: str, port: int) -> AsyncGenerator[None]:
        """Return a context manager that waits for a turn with a host and holds it."""
        key = (address, port)
        host = self._hosts.setdefault(key, _Host(self._at_once))
        host.users += 1
        try:
            async with host.turns:
                yield
        finally:
            host.users -= 1
            if not host.users:
                del self._hosts[key]


class _Host:
    def __init__(self, at_once: int) -> None:
        self.turns = anyio.Semaphore(at_once)
        self.users = 0
