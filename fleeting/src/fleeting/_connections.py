"""The contracts of a connection to one instance; `fleeting.abc` exports them.

The general rules in `fleeting.abc` apply to every method here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar

from fleeting._run import run_command
from fleeting.errors import NotSupported

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Mapping
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from anyio.abc import ByteStream

    from fleeting._copy_budget import CopyBudget
    from fleeting._processes import AsyncOutput, Output, Process, Terminal
    from fleeting.types import Completed, ConnectInfo

__all__ = ("Connection", "Connector")


class Connection(ABC):
    """A connection to one instance, which can be used for many things at the same time.

    Also an async context manager that closes itself. Once the connection has
    broken, every method raises `ConnectionLost`, and a new connection is needed.

    Attributes:
        host_keys: the keys by which the instance identified itself, in OpenSSH format; empty
            if the protocol has none. Passed as `ConnectInfo.host_keys` the next time, they
            ensure that it is the same machine.
    """

    host_keys: tuple[str, ...] = ()

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Return whether the connection is usable, as far as is known without trying."""

    @abstractmethod
    def start(
        self,
        command: str,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> AbstractAsyncContextManager[Process]:
        """Return a context manager in which the command runs, with live streams.

        On leaving the block, a command that still runs is sent TERM, and KILL a few
        seconds later.

        Args:
            command: a command line for the user's shell on the instance.
            env: variables to add. They never travel on a command line, where other
                users of the instance could read them.
            cwd: the directory to run in, relative to the user's home, which is also the default.

        Raises:
            ConnectionLost: on entering or inside, the connection broke.
            ValueError: on entering, the name of a variable is invalid.
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
        grace: timedelta = timedelta(seconds=3),
        capture_limit: int = 16 * 1024 * 1024,
    ) -> Completed:
        """Run a command to its end. How it ended is returned as a value, never raised.

        Cancelling ends the command like its timeout, and takes as long as that.

        Args:
            command: a command line for the user's shell on the instance.
            stdin: its input; by default none, so it reads the end of file at once.
            stdout: receives its output as it arrives; by default the output is returned.
            stderr: likewise.
            env: variables to add; see `start`.
            cwd: the directory to run in; see `start`.
            timeout: end the command after this time; the result has `timed_out` set.
            grace: how long a command that has to end early may take after TERM, before it is
                sent KILL. Its output is still received.
            capture_limit: the maximum number of bytes to return of each output; the rest is
                dropped, and the result has `truncated` set.

        Raises:
            ConnectionLost: the connection broke meanwhile; the command may still run.
            ValueError: the name of a variable is invalid.
        """
        return await run_command(
            self.start(command, env=env, cwd=cwd),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            timeout=timeout,
            grace=grace,
            capture_limit=capture_limit,
        )

    def open_shell(
        self, *, kind: str, columns: int, rows: int
    ) -> AbstractAsyncContextManager[Terminal]:
        """Return a context manager in which the user's shell runs on a terminal.

        Args:
            kind: the type of the terminal, as in the variable `TERM`.
            columns: its width in characters.
            rows: its height in characters.

        Raises:
            NotSupported: this kind of connection, or this instance, has no terminals.
            ConnectionLost: on entering or inside, the connection broke.
        """
        raise NotSupported(
            f"this connection does not support terminals ({kind}, {columns} by {rows})"
        )

    @abstractmethod
    async def put(self, source: Path, destination: str) -> None:
        """Copy a file or a directory tree to the instance, with its permission bits.

        Args:
            source: the local path.
            destination: the path of the copy itself, relative to the user's home. Missing
                parent directories are created; an existing file is replaced, and an
                existing directory is merged into.

        Raises:
            TransferFailed: names the path and the cause; files already copied stay.
            ConnectionLost: the connection broke.
        """

    @abstractmethod
    async def get(
        self,
        source: str,
        destination: Path,
        *,
        follow: bool = True,
        budget: CopyBudget | None = None,
    ) -> None:
        """Copy a file or a directory tree from the instance; otherwise like `put`.

        The instance is not trusted. No file is written outside the
        destination, even if a symbolic link is put in the way during the copy: a link
        in the place of a file or a directory is replaced, and a link inside the
        destination is never followed.

        Args:
            source: the path on the instance, relative to the user's home.
            destination: the path of the copy itself.
            follow: whether symbolic links on the way to the destination are followed, as
                for any path that a user names. If not, the destination must be absolute,
                and a link on the way is an error. Choose this if other copies from an
                instance may have written there.
            budget: how much may be copied; by default any size, and a million files.

        Raises:
            TransferFailed: names the path and the cause; files already copied stay.
            ConnectionLost: the connection broke.
        """

    @abstractmethod
    async def glob(self, pattern: str, *, budget: CopyBudget | None = None) -> list[str]:
        """Return the paths on the instance that match, sorted; an empty list if none does.

        Args:
            pattern: with `*`, `?`, `[...]` and `**`. A relative pattern starts at the
                user's home, and its results are relative too.
            budget: charged for every entry that the instance reports, also if it does not
                match; by default a million.

        Raises:
            ConnectionLost: the connection broke.
            TransferFailed: a directory could not be read.
        """

    async def open_tcp(self, host: str, port: int) -> ByteStream:
        """Open a stream to an address as seen from the instance.

        Raises:
            NotSupported: this kind of connection has no TCP streams.
            Unreachable: nothing listens there, or the instance does not permit it.
            ConnectionLost: the connection broke.
        """
        raise NotSupported(f"this connection does not support TCP streams (to {host}:{port})")

    async def open_unix(self, path: str) -> ByteStream:
        """Open a stream to a Unix socket on the instance.

        Raises:
            NotSupported: this kind of connection has no Unix sockets.
            Unreachable: nothing listens there, or the instance does not permit it.
            ConnectionLost: the connection broke.
        """
        raise NotSupported(f"this connection does not support Unix sockets (to {path})")

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connection and end the commands that still run through it.

        Idempotent; raises nothing if the connection is already broken. When
        cancelled, it closes at once, without an orderly shutdown.
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
        """Make one connection, within `info.timeout` or a default of the connector.

        Until then, an instance that is busy or booting is tried again. Cancelling
        leaves no half-open connection. Several calls may run at the same time; the
        connector limits its concurrent handshakes with one host.

        Raises:
            Unreachable: no connection was made in time; the message has the last cause.
            AuthenticationFailed: the instance refused the credentials; not tried again.
            HostKeyMismatch: the instance showed an unexpected key; not tried again.
            NotSupported: `info` asks for something that this connector cannot do.
        """
