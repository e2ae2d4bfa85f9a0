"""The contracts of a command that runs on an instance; `fleeting.abc` exports them.

The general rules in `fleeting.abc` apply to every method here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from anyio.abc import ByteReceiveStream, ByteSendStream

    from fleeting.types import Exit

__all__ = ("AsyncOutput", "Output", "Process", "Terminal")


class Output(Protocol):
    """Receives the output of a command, such as a file opened in binary mode.

    If it has a `flush` method, that is called after each write, so that output appears live.
    """

    def write(self, data: bytes, /) -> object:
        """Receive the next bytes. Called on the event loop, so it must not block for long."""


class AsyncOutput(Protocol):
    """Receives the output of a command; the command waits until the call returns."""

    async def __call__(self, data: bytes, /) -> object:
        """Receive the next bytes."""


class Process(ABC):
    """A command that runs on an instance.

    Attributes:
        stdin: closing it gives the command its end of file.
        stdout: ends when the command, and every process that shares its output, has closed it.
        stderr: likewise. Output that is not read blocks the command, not the event loop.
    """

    stdin: ByteSendStream
    stdout: ByteReceiveStream
    stderr: ByteReceiveStream

    @abstractmethod
    async def wait(self) -> Exit:
        """Wait for the command to end. The end of its output is not the end of the command.

        Can be called repeatedly. Cancelling it does not affect the command.

        Raises:
            ConnectionLost: the connection broke first. It is unknown how the command ended,
                or whether it did.
        """

    @abstractmethod
    async def send_signal(self, signal: str) -> None:
        """Send a signal to the command's process group; do nothing once the command has ended.

        Args:
            signal: the name without `SIG`, such as `TERM`.

        Raises:
            ConnectionLost: the connection is broken.
        """


class Terminal(Process):
    """A shell on a terminal: `stdin` is typed there, and `stdout` is everything it displays."""

    @abstractmethod
    async def resize(self, columns: int, rows: int) -> None:
        """Set the terminal's size in characters; do nothing once the shell has ended.

        Raises:
            ConnectionLost: the connection is broken.
        """
