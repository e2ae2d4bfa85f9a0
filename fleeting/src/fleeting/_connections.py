"""The contracts of a way to one instance; `fleeting.abc` offers them.

What holds for every method there holds for these, too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Protocol

from fleeting._run import run_command
from fleeting.errors import NotSupported

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Mapping
    from contextlib import AbstractAsyncContextManager
    from datetime import timedelta
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from anyio.abc import ByteReceiveStream, ByteSendStream, ByteStream

    from fleeting.types import Completed, ConnectInfo, Exit

__all__ = ("AsyncOutput", "Connection", "Connector", "Output", "Process", "Terminal")


class Output(Protocol):
    """Takes what a command writes, such as a file opened in binary mode.

    If it has a `flush`, that is called after each write, so that output is live.
    """

    def write(self, data: bytes, /) -> object:
        """Take some bytes, in order; blocking here blocks everybody."""


class AsyncOutput(Protocol):
    """Takes what a command writes; while it is busy, the command waits."""

    async def __call__(self, data: bytes, /) -> object:
        """Take some bytes, in order."""


class Process(ABC):
    """A command that runs on an instance.

    Attributes:
        stdin: closing it gives the command its end of file.
        stdout: ends when the command and all that share its output have closed it.
        stderr: likewise. An output that nobody reads blocks the command, not us.
    """

    stdin: ByteSendStream
    stdout: ByteReceiveStream
    stderr: ByteReceiveStream

    @abstractmethod
    async def wait(self) -> Exit:
        """Wait for the command to end. The end of its output is not the end of it.

        May be called repeatedly; cancelling it does not touch the command.

        Raises:
            ConnectionLost: the connection broke first; how the command ended, and
                whether it did, is not known.
        """

    @abstractmethod
    async def send_signal(self, signal: str) -> None:
        """Send a signal to the command and the processes of its group; after its end, do nothing.

        Args:
            signal: the name without `SIG`, such as `TERM`.

        Raises:
            ConnectionLost: the connection is broken.
        """


class Terminal(Process):
    """A shell on a terminal: what is sent is typed there, and `stdout` is all that it shows."""

    @abstractmethod
    async def resize(self, columns: int, rows: int) -> None:
        """Tell the shell how large the window is now; after its end, do nothing.

        Raises:
            ConnectionLost: the connection is broken.
        """


class Connection(ABC):
    """A way to one instance, over which many things can be done at the same time.

    Also an async context manager that closes itself. After the connection broke,
    every method raises `ConnectionLost`; a new one must be made.

    Attributes:
        host_keys: what the instance has shown to prove who it is, in OpenSSH format;
            empty where the protocol has nothing of the kind. Given back as
            `ConnectInfo.host_keys`, it makes sure that it is the same machine.
    """

    host_keys: tuple[str, ...] = ()

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Return whether the connection can still be used, as far as is known without trying."""

    @abstractmethod
    def start(
        self,
        command: str,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> AbstractAsyncContextManager[Process]:
        """Return a context manager in which the command runs, with live streams.

        On leaving, a command that still runs gets TERM, a few seconds later KILL.

        Args:
            command: a command line for the user's shell on the instance.
            env: variables to add. They never travel on a command line, where other
                users of the instance could read them.
            cwd: where to run it; relative to the user's home, which is also the default.

        Raises:
            ConnectionLost: on entering or inside, the connection broke.
            ValueError: on entering, a variable's name cannot be one.
        """

    async def run(
        self,
        command: str,
        *,
        stdin: bytes | AsyncIterable[bytes] | None = None,
        stdout: Output | AsyncOutput | None = None,
        stderr: Output | AsyncOutput | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        timeout: timedelta | None = None,
        capture_limit: int = 16 * 1024 * 1024,
    ) -> Completed:
        """Run a command to its end. How it ended is a value and never an exception.

        Cancelling ends the command, as leaving `start` does.

        Args:
            command: a command line for the user's shell on the instance.
            stdin: what it reads; nothing by default, so it sees the end of file at once.
            stdout: where its output goes as it comes; by default it is kept and returned.
            stderr: likewise.
            env: variables to add; see `start`.
            cwd: where to run it; see `start`.
            timeout: after this time it is ended, and the result says so.
            capture_limit: how many bytes to keep of each output at most; what is
                beyond is dropped, and the result says so.

        Raises:
            ConnectionLost: the connection broke in the middle; the command's fate is unknown.
            ValueError: a variable's name cannot be one.
        """
        return await run_command(
            self.start(command, env=env, cwd=cwd),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            timeout=timeout,
            capture_limit=capture_limit,
        )

    def open_shell(
        self, *, kind: str, columns: int, rows: int
    ) -> AbstractAsyncContextManager[Terminal]:
        """Return a context manager in which a shell of the user runs on a terminal.

        Args:
            kind: of the terminal, as in the variable `TERM`.
            columns: how wide it is, in characters.
            rows: how high it is, in characters.

        Raises:
            NotSupported: this kind of connection, or this instance, has no terminals.
            ConnectionLost: on entering or inside, the connection broke.
        """
        raise NotSupported(f"this connection opens no shell (on {kind}, {columns} by {rows})")

    @abstractmethod
    async def put(self, source: Path, destination: str) -> None:
        """Copy a file or a whole folder to the instance, with its permission bits.

        Args:
            source: here.
            destination: there, the name of the copy itself; relative to the user's
                home. Missing folders above it are made; an existing file is replaced,
                an existing folder is merged into.

        Raises:
            TransferFailed: naming the path and the cause; what was copied so far stays.
            ConnectionLost: the connection broke.
        """

    @abstractmethod
    async def get(self, source: str, destination: Path) -> None:
        """Copy a file or a whole folder from the instance; see `put` for the rest.

        Raises:
            TransferFailed: naming the path and the cause; what was copied so far stays.
            ConnectionLost: the connection broke.
        """

    @abstractmethod
    async def glob(self, pattern: str) -> list[str]:
        """Return the paths on the instance that match, sorted; none is no error.

        Args:
            pattern: with `*`, `?`, `[...]` and `**`; relative to the user's home,
                and the answers are relative then too.

        Raises:
            ConnectionLost: the connection broke.
            TransferFailed: a folder could not be read.
        """

    async def open_tcp(self, host: str, port: int) -> ByteStream:
        """Open a stream to an address as seen from the instance.

        Raises:
            NotSupported: this kind of connection cannot.
            Unreachable: nobody listens there, or the instance does not permit it.
            ConnectionLost: the connection broke.
        """
        raise NotSupported(f"this connection opens no TCP streams (to {host}:{port})")

    async def open_unix(self, path: str) -> ByteStream:
        """Open a stream to a Unix socket on the instance.

        Raises:
            NotSupported: this kind of connection cannot.
            Unreachable: nobody listens there, or the instance does not permit it.
            ConnectionLost: the connection broke.
        """
        raise NotSupported(f"this connection opens no Unix sockets (to {path})")

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connection and end what still runs through it.

        Idempotent; raises nothing for a connection that is already broken. When
        cancelled, it closes at once instead of politely.
        """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


class Connector(ABC):
    """Makes connections of one protocol; registered by a plugin like a provider.

    Attributes:
        protocol: the name of its entry point, as in `ConnectInfo.protocol`.
    """

    protocol: ClassVar[str]

    @abstractmethod
    async def connect(self, info: ConnectInfo) -> Connection:
        """Make one connection, within `info.timeout` or a default of its own.

        Busy or booting instances are tried again until then. Cancelling leaves no
        half-open connection behind. Several calls may be under way; the connector
        bounds how many handshakes it has with one host at a time.

        Raises:
            Unreachable: it did not come about in time, with the last cause.
            AuthenticationFailed: the instance refused the credentials; not tried again.
            HostKeyMismatch: the instance is not the one it should be; not tried again.
            NotSupported: the information asks for something this connector cannot do.
        """
