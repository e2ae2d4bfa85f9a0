"""A fake connection: commands are Python functions, files are a dictionary.

Theory of operation. `start` runs the handler of the command as one task in a
group of its own, with three byte pipes between it and the caller. The command
ends when the handler returns, when a signal cancels it, or when the connection
breaks, and `wait` reports which of these happened. Nothing outlives the `start`
block.
"""

from __future__ import annotations

import shlex
from collections import defaultdict
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import anyio
import anyio.lowlevel
import anyio.to_thread
from anyio.abc import ByteReceiveStream, ByteSendStream
from typing_extensions import override

from fleeting.abc import Connection, Connector, Process
from fleeting.errors import ConnectionLost
from fleeting.testing._fakes.files import FakeFiles
from fleeting.testing._fakes.script import Script
from fleeting.types import Exit

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Mapping
    from pathlib import Path

    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from fleeting.abc import CopyBudget
    from fleeting.types import ConnectInfo

__all__ = ("Command", "FakeConnection", "FakeConnector", "Handler", "run_default")

# How many writes a pipe holds until it is read.
PIPE_WRITES = 16


class Closable(Protocol):
    """An end of a pipe."""

    def close(self) -> None:
        """Close this end."""


class _Receiver(ByteReceiveStream):
    """The reading end of a pipe; `check` distinguishes a broken connection from end of file."""

    def __init__(
        self, pipe: MemoryObjectReceiveStream[bytes], check: Callable[[], None] | None = None
    ) -> None:
        self._pipe = pipe
        self._check = check or _always_fine
        self._rest = b""

    @override
    async def receive(self, max_bytes: int = 65536) -> bytes:
        self._check()
        if not self._rest:
            try:
                self._rest = await self._pipe.receive()
            except anyio.EndOfStream:
                self._check()
                raise
        data, self._rest = self._rest[:max_bytes], self._rest[max_bytes:]
        return data

    @override
    async def aclose(self) -> None:
        self._pipe.close()
        await anyio.lowlevel.checkpoint()


class _Sender(ByteSendStream):
    """The writing end of a pipe; a write waits while the pipe is full."""

    def __init__(
        self, pipe: MemoryObjectSendStream[bytes], check: Callable[[], None] | None = None
    ) -> None:
        self._pipe = pipe
        self._check = check or _always_fine

    @override
    async def send(self, item: bytes) -> None:
        self._check()
        if not item:
            return
        try:
            await self._pipe.send(item)
        except anyio.BrokenResourceError:
            self._check()
            raise

    @override
    async def aclose(self) -> None:
        self._pipe.close()
        await anyio.lowlevel.checkpoint()


def _always_fine() -> None:
    """Check nothing: the instance's end of a pipe does not depend on the connection."""


@dataclass(frozen=True, slots=True)
class Command:
    """A started command, as its handler sees it.

    Attributes:
        line: the command line.
        env: additional environment variables.
        cwd: the working directory; None for the home.
        instance: the id of the instance.
        files: the files of the instance, by path relative to the home.
        stdin: its standard input.
        stdout: its standard output; closed when the handler returns.
        stderr: its standard error; closed when the handler returns.
    """

    line: str
    env: Mapping[str, str]
    cwd: str | None
    instance: str
    files: FakeFiles
    stdin: ByteReceiveStream
    stdout: ByteSendStream
    stderr: ByteSendStream


# Plays a command and returns its exit status; a signal arrives as a cancellation.
Handler: TypeAlias = "Callable[[Command], Awaitable[Exit | int]]"


async def run_default(command: Command, /) -> Exit | int:
    """Play `true`, `false`, `echo`, `cat` and `exit N`; anything else is not found (127)."""
    match shlex.split(command.line):
        case ["true"]:
            return 0
        case ["false"]:
            return 1
        case ["exit", status]:
            return int(status)
        case ["echo", *words]:
            await command.stdout.send(" ".join(words).encode() + b"\n")
            return 0
        case ["cat"]:
            async for data in command.stdin:
                await command.stdout.send(data)
            return 0
        case _:
            await command.stderr.send(f"{command.line}: not found\n".encode())
            return 127


class _FakeProcess(Process):
    """The caller's side of a command."""

    def __init__(self, connection: FakeConnection) -> None:
        self._connection = connection
        self._ended = anyio.Event()
        self._outcome: Exit | None = None
        self._scope = anyio.CancelScope()
        self._signal = "KILL"

    @override
    async def wait(self) -> Exit:
        await self._ended.wait()
        if self._outcome is None:
            raise self._connection.lost()
        return self._outcome

    @override
    async def send_signal(self, signal: str) -> None:
        await anyio.lowlevel.checkpoint()
        if self._outcome is None:
            self._connection.check()
            self.end(signal)

    def end(self, signal: str) -> None:
        """Cancel the handler; the first signal is the one that is reported."""
        if not self._scope.cancel_called:
            self._signal = signal
            self._scope.cancel()

    async def play(self, handler: Handler, command: Command, ends: Iterable[Closable]) -> None:
        """Run the command to its end, then close its ends of the pipes."""
        try:
            with self._scope:
                status = await handler(command)
                self._outcome = status if isinstance(status, Exit) else Exit(status)
        except anyio.BrokenResourceError:
            self._outcome = Exit(None, "PIPE")  # It wrote to a closed pipe.
        finally:
            if not self._connection.is_open:
                self._outcome = None
            elif self._outcome is None:
                self._outcome = Exit(None, self._signal)
            for end in ends:
                end.close()
            self._ended.set()


class FakeConnection(Connection):
    """A connection whose commands are played by a Python function; made by `FakeConnector`.

    Attributes:
        info: the connection details that it was made with.
    """

    def __init__(self, connector: FakeConnector, info: ConnectInfo) -> None:
        self.info = info
        self._connector = connector
        self._processes: set[_FakeProcess] = set()
        self._lost: str | None = None

    @property
    @override
    def is_open(self) -> bool:
        return self._lost is None

    def break_(self, reason: str = "the network was cut") -> None:
        """Break the connection: everything in progress ends with `ConnectionLost`. Idempotent."""
        if self._lost is None:
            self._lost = reason
            self._connector.connections.remove(self)
            for process in self._processes:
                process.end("KILL")

    def lost(self) -> ConnectionLost:
        """Return the error that every method raises once the connection is broken or closed."""
        return ConnectionLost(
            f"the connection to instance {self.info.id} is lost ({self._lost}); connect again"
        )

    def check(self) -> None:
        """Check that the connection can be used.

        Raises:
            ConnectionLost: the connection is broken or closed.
        """
        if self._lost is not None:
            raise self.lost()

    @override
    @asynccontextmanager
    async def start(
        self,
        command: str,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> AsyncGenerator[Process]:
        for name in env or {}:
            if not name.isidentifier() or not name.isascii():
                raise ValueError(
                    f"{name!r} is not a valid variable name; use letters, digits and _"
                )
        await anyio.lowlevel.checkpoint()
        self.check()
        pipes = [anyio.create_memory_object_stream[bytes](PIPE_WRITES) for _ in range(3)]
        (stdin, inner_stdin), (inner_stdout, stdout), (inner_stderr, stderr) = pipes
        process = _FakeProcess(self)
        process.stdin = _Sender(stdin, self.check)
        process.stdout = _Receiver(stdout, self.check)
        process.stderr = _Receiver(stderr, self.check)
        inside = Command(
            line=command,
            env=dict(env or {}),
            cwd=cwd,
            instance=self.info.id,
            files=self._connector.files[self.info.id],
            stdin=_Receiver(inner_stdin),
            stdout=_Sender(inner_stdout),
            stderr=_Sender(inner_stderr),
        )
        self._processes.add(process)
        try:
            with _unwrapped():
                async with anyio.create_task_group() as running:
                    running.start_soon(
                        process.play,
                        self._connector.handler,
                        inside,
                        (inner_stdin, inner_stdout, inner_stderr),
                    )
                    try:
                        yield process
                    finally:
                        process.end("TERM")
        finally:
            self._processes.discard(process)
            for end in (end for pipe in pipes for end in pipe):
                end.close()

    @override
    async def put(self, source: Path, destination: str) -> None:
        await anyio.lowlevel.checkpoint()
        self.check()
        files = self._connector.files[self.info.id]
        await anyio.to_thread.run_sync(files.upload, source, destination)

    @override
    async def get(
        self,
        source: str,
        destination: Path,
        *,
        follow: bool = True,
        budget: CopyBudget | None = None,
    ) -> None:
        await anyio.lowlevel.checkpoint()
        self.check()
        files = self._connector.files[self.info.id]
        await anyio.to_thread.run_sync(files.download, source, destination)

    @override
    async def glob(self, pattern: str, *, budget: CopyBudget | None = None) -> list[str]:
        await anyio.lowlevel.checkpoint()
        self.check()
        return self._connector.files[self.info.id].glob(pattern)

    @override
    async def aclose(self) -> None:
        self.break_("it was closed")
        await anyio.lowlevel.checkpoint()


class FakeConnector(Connector):
    """Makes fake connections.

    Attributes:
        handler: plays every command that is started from now on.
        files: the files of each instance, by its id; they outlive connections.
        connections: the open connections.
        replies: the replies to the next attempts to connect; only `before` and `error`
            apply.
    """

    protocol = "fake"

    def __init__(self, handler: Handler = run_default) -> None:
        self.handler = handler
        self.files: defaultdict[str, FakeFiles] = defaultdict(FakeFiles)
        self.connections: list[FakeConnection] = []
        self.replies = Script()

    def break_(self, instance: str, reason: str = "the network was cut") -> None:
        """Break every open connection to an instance."""
        for connection in [one for one in self.connections if one.info.id == instance]:
            connection.break_(reason)

    @override
    async def connect(self, info: ConnectInfo) -> FakeConnection:
        await self.replies.enter()
        connection = FakeConnection(self, info)
        self.connections.append(connection)
        return connection


@contextmanager
def _unwrapped() -> Generator[None]:
    """Raise a single error as it is, without the exception group of a task group."""
    try:
        yield
    except BaseExceptionGroup as group:
        errors: BaseExceptionGroup[BaseException] = group
        first, *others = errors.exceptions
        if others:
            raise
        raise first from first.__cause__
