"""The way to an instance that cannot be reached directly: other SSH servers, or a program.

A way belongs to one connection. When the connection is lost, so is the way, and the other way
round; nothing of it is shared, so one broken way breaks one connection.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
from typing_extensions import override

from fleeting._text import foreign
from fleeting.errors import NotSupported

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import asyncssh

    from fleeting.types import ConnectInfo

__all__ = ("JumpWay", "ProxyWay", "Way", "proxy_arguments")

# How much of what a program wrote to its standard error is kept.
_SAID_BYTES = 2000
# How long a program may take to end after TERM, and to end by itself after a failure.
END_SECONDS = 1.0
_PLACEHOLDER = re.compile(r"\{(host|port|id|username)\}")


class Way(ABC):
    """How the bytes of one connection get to the next host.

    Attributes:
        options: for `asyncssh.connect`.
    """

    options: Mapping[str, Any]

    @abstractmethod
    async def explain(self) -> str:
        """Return what is known about a failure of the way, to end a sentence."""

    @abstractmethod
    def end(self) -> None:
        """Begin to end the way, because the connection has ended; idempotent."""

    @abstractmethod
    async def aclose(self) -> None:
        """Wait until the way has ended, for `END_SECONDS` at most; idempotent."""

    @abstractmethod
    def abort(self) -> None:
        """End the way at once; idempotent."""


class JumpWay(Way):
    """Leads through a connection to another SSH server, which ends its own way."""

    def __init__(self, connection: asyncssh.SSHClientConnection) -> None:
        self.options = {"tunnel": connection}
        self._connection = connection

    @override
    async def explain(self) -> str:
        return ""  # The server has told why it opened no stream.

    @override
    def end(self) -> None:
        self.abort()

    @override
    async def aclose(self) -> None:
        self._connection.close()
        with anyio.move_on_after(END_SECONDS):
            await self._connection.wait_closed()
        self.abort()

    @override
    def abort(self) -> None:
        self._connection.abort()


class ProxyWay(Way):
    """Leads through the standard streams of a program."""

    def __init__(self, ours: socket.socket, transport: Any, program: _Program) -> None:
        self.options = {"sock": ours}
        self._socket = ours
        self._transport = transport
        self._program = program
        self._ending = False

    @classmethod
    async def start(cls, arguments: Sequence[str]) -> ProxyWay:
        """Start the program; it is not run by a shell.

        Raises:
            NotSupported: it cannot be started.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)  # noqa: FBT003 -- it has no name
        try:
            # Starting takes a moment only, and asyncio leaks half a start.
            with theirs, anyio.CancelScope(shield=True):
                transport, program = await asyncio.get_running_loop().subprocess_exec(
                    _Program,
                    *arguments,
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=asyncio.subprocess.PIPE,
                    start_new_session=True,
                )
        except (OSError, ValueError) as error:
            ours.close()
            reason = (getattr(error, "strerror", None) or str(error)).lower()
            raise NotSupported(
                f"proxy_command: {foreign(arguments[0])} cannot be started ({reason}); install it, "
                "or correct its path"
            ) from error
        except BaseException:
            ours.close()
            raise
        return cls(ours, transport, program)  # pyright: ignore[reportPossiblyUnboundVariable] - the scope suppresses nothing

    @override
    async def explain(self) -> str:
        """Wait a moment for the end of the program, and return what it said."""
        with anyio.move_on_after(END_SECONDS):
            await self._program.ended.wait()
        said = foreign(self._program.said.decode(errors="replace").strip().replace("\n", "; "))
        status = self._transport.get_returncode()
        ended = "" if status is None else f"; the proxy_command ended with status {status}"
        return f"{ended}{f'; it wrote: {said}' if said else ''}"

    @override
    def end(self) -> None:
        """Ask the program to end, because it may have a session to close elsewhere."""
        if not self._ending:
            self._ending = True
            self._signal(signal.SIGTERM)
            asyncio.get_running_loop().call_later(END_SECONDS, self.abort)

    @override
    async def aclose(self) -> None:
        """Ask the program to end, and kill it if it does not."""
        self.end()
        with anyio.move_on_after(END_SECONDS):
            await self._program.ended.wait()
        self.abort()

    @override
    def abort(self) -> None:
        """Kill the program and those that it has started."""
        self._ending = True
        self._signal(signal.SIGKILL)
        self._transport.close()
        self._socket.close()

    def _signal(self, number: signal.Signals) -> None:
        # Until its status is known, its number is its own.
        if self._transport.get_returncode() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._transport.get_pid(), number)


class _Program(asyncio.SubprocessProtocol):
    """Keeps the last words of a program.

    Attributes:
        said: the end of its standard error.
        ended: set when it has ended and everything is read.
    """

    def __init__(self) -> None:
        self.said = b""
        self.ended = anyio.Event()

    @override
    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.said = (self.said + data)[-_SAID_BYTES:]

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()


def proxy_arguments(info: ConnectInfo, port: int) -> list[str]:
    """Return the program with its arguments, with the values of the instance in their places.

    Raises:
        NotSupported: a value of the instance could be mistaken for something else by a program.
    """
    values = {
        "host": info.address,
        "port": str(port),
        "id": info.id,
        "username": info.username,
    }
    used = {name for one in info.proxy_command for name in _PLACEHOLDER.findall(one)}
    for name in used:
        if values[name].startswith("-") or not values[name].isprintable() or " " in values[name]:
            raise NotSupported(
                f"proxy_command: the {name} {foreign(values[name])!r} of the instance looks like "
                "an option or has spaces or control characters, so it is not passed to a program"
            )
    return [
        _PLACEHOLDER.sub(lambda found: values[found[1]], argument)
        for argument in info.proxy_command
    ]
