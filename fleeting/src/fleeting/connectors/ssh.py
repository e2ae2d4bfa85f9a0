"""The SSH connector: the protocol of nearly every instance.

Connecting. A host that is booting refuses, resets or says nothing, and a busy
one drops connections before the login; all of that is tried again, with pauses
that grow and are jittered, until the time is up. A refused credential or a
wrong host key is not.

Host keys. Where the provider knows an instance's keys, it must show one of
them. Where it does not, the key of the first complete login is the one that
this connector expects from then on, for the same instance at the same address.

asyncssh is imported by the first `connect`, in a thread, and not by this module.
"""

from __future__ import annotations

import asyncio
import importlib
import random
import sys
from typing import TYPE_CHECKING, ClassVar

import anyio
import anyio.to_thread
from typing_extensions import override

from fleeting.abc import Connector
from fleeting.connectors._handshakes import Handshakes
from fleeting.connectors._pins import Pins
from fleeting.errors import ConnectionLost, HostKeyMismatch, NotSupported, Unreachable
from fleeting.plugin import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fleeting.abc import Connection
    from fleeting.connectors._ssh_connection import SSHConnection
    from fleeting.errors import ConnectorError
    from fleeting.types import ConnectInfo

__all__ = ("SSHConnector", "fleeting_connector")

DEFAULT_PORT = 22
HIGHEST_PORT = 65535
TIMEOUT_SECONDS = 60.0
# A single attempt gets less, so that a packet lost by a booting host costs not all the time.
ATTEMPT_SECONDS = 15.0
# OpenSSH begins to drop connections at ten that have not logged in.
HANDSHAKES_AT_ONCE = 8
# Of so many hosts the keys are remembered, a few hundred bytes each.
PINS = 20_000
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0

_LOGIN = "fleeting.connectors._ssh_login"


class SSHConnector(Connector):
    """Connects with SSH; see the module for what it does about keys and refusals."""

    protocol: ClassVar[str] = "ssh"

    def __init__(self) -> None:
        self._handshakes = Handshakes(HANDSHAKES_AT_ONCE)
        self._pins = Pins(PINS)

    @override
    async def connect(self, info: ConnectInfo) -> Connection:
        _require_asyncio()
        port = _port(info)
        where = f"instance {info.id} at {info.address}:{port}"
        seconds = TIMEOUT_SECONDS if info.timeout is None else info.timeout.total_seconds()
        attempts = 0
        failure: ConnectorError = Unreachable("it does not answer")
        if _LOGIN not in sys.modules:
            await anyio.to_thread.run_sync(importlib.import_module, _LOGIN)
        with anyio.move_on_after(seconds):
            for pause in _pauses():
                attempts += 1
                try:
                    return await self._attempt(info, where, port)
                except (Unreachable, ConnectionLost) as error:
                    failure = error
                await anyio.sleep(pause)
        raise Unreachable(
            f"{where} could not be reached within {seconds:g} s "
            f"({attempts} {'attempt' if attempts == 1 else 'attempts'}); the last time: {failure}"
        ) from failure

    async def _attempt(self, info: ConnectInfo, where: str, port: int) -> SSHConnection:
        from fleeting.connectors._ssh_login import log_in

        identity = (info.address, port, info.id)
        pinned = self._pins.find(*identity)
        expected = info.host_keys or ((pinned,) if pinned else ())
        async with self._handshakes.turn(info.address, port):
            with anyio.move_on_after(ATTEMPT_SECONDS):
                connection, shown = await log_in(info, where, port, expected)
                if not info.host_keys and not self._pins.keep(*identity, shown):
                    connection.abort()
                    raise HostKeyMismatch(f"{where} shows different host keys at the same time")
                return connection
        raise Unreachable(f"it did not answer within {ATTEMPT_SECONDS:g} s")


def _require_asyncio() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise NotSupported(
            "SSH connections need an asyncio event loop, and this runs on another one; "
            'start it with anyio.run(..., backend="asyncio")'
        ) from None


def _port(info: ConnectInfo) -> int:
    if not info.address:
        raise NotSupported(f"instance {info.id} has no address to connect to")
    if not info.username:
        raise NotSupported(
            f"nobody says which user to log in as on instance {info.id}; "
            "set `username` in the connector's settings"
        )
    port = DEFAULT_PORT if info.port is None else info.port
    if not 0 < port <= HIGHEST_PORT:
        raise NotSupported(f"instance {info.id} has the port {port}, which cannot be one")
    return port


def _pauses() -> Iterator[float]:
    """Yield seconds that grow to a limit, each off by up to a half so that callers spread out."""
    pause = FIRST_PAUSE_SECONDS
    while True:
        yield pause * random.uniform(0.5, 1.5)  # noqa: S311 - nobody gains by guessing it
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


_CONNECTOR = SSHConnector()


@hookimpl
def fleeting_connector() -> Connector:
    """Return this process's one connector, so that all share its pins and its bounds."""
    return _CONNECTOR
