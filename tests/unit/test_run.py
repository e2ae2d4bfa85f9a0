from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest

from fleeting import _run
from fleeting.errors import ConnectionLost
from fleeting.testing import Command, FakeConnection, FakeConnector, Handler, run_default
from fleeting.testing._fakes.connection import Closable, _Sender
from fleeting.types import Completed, ConnectInfo, Exit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run on both event loops."""
    return str(request.param)


async def _connect(handler: Handler = run_default) -> FakeConnection:
    return await FakeConnector(handler).connect(ConnectInfo("i-1", "fake"))


async def _never_ends(command: Command) -> int:
    await command.stdout.send(b"started")
    await anyio.sleep_forever()
    return 0


async def test_output_is_kept() -> None:
    """By default, both outputs and the exit status are returned."""

    async def both(command: Command) -> int:
        await command.stdout.send(b"out")
        await command.stderr.send(b"err")
        return 3

    completed = await (await _connect(both)).run("make")
    assert completed == Completed(status=3, stdout=b"out", stderr=b"err")
    assert not completed.succeeded


async def test_signal_is_not_a_status() -> None:
    """A command that a signal ended has the signal's name instead of a status."""

    async def killed(_: Command) -> Exit:
        await anyio.lowlevel.checkpoint()
        return Exit(None, "SEGV")

    assert await (await _connect(killed)).run("make") == Completed(None, signal="SEGV")


async def test_input_is_fed() -> None:
    """Input is bytes or an iterator of bytes; by default there is none."""

    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"one ", b"", b"two"):
            await anyio.lowlevel.checkpoint()
            yield piece

    connection = await _connect()
    assert (await connection.run("cat", stdin=b"x" * 200_000)).stdout == b"x" * 200_000
    assert (await connection.run("cat", stdin=pieces())).stdout == b"one two"
    assert await connection.run("cat") == Completed(0)


async def test_endless_input_is_not_waited_for() -> None:
    """The run ends with the command, although its input is not read."""

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 1000
            await anyio.lowlevel.checkpoint()

    async def silent() -> AsyncIterator[bytes]:
        await anyio.sleep_forever()
        yield b""

    connection = await _connect()
    assert (await connection.run("true", stdin=endless())).succeeded
    assert (await connection.run("true", stdin=silent())).succeeded


async def test_output_goes_to_sinks() -> None:
    """A file is written to and flushed each time; an asynchronous sink is awaited."""
    written: list[bytes] = []

    class File:
        flushed = 0

        def write(self, data: bytes) -> None:
            written.append(data)

        def flush(self) -> None:
            self.flushed += 1

    async def sink(data: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        written.append(data)

    connection, file = await _connect(), File()
    completed = await connection.run("echo hello", stdout=file)
    assert (completed.stdout, written, file.flushed) == (b"", [b"hello\n"], 1)
    completed = await connection.run("nonsense", stderr=sink)
    assert (completed.stderr, written[1:]) == (b"", [b"nonsense: not found\n"])


async def test_capture_is_limited() -> None:
    """No more than the limit is kept, and the result says that there was more."""
    connection = await _connect()
    completed = await connection.run("cat", stdin=b"12345678", capture_limit=5)
    assert (completed.stdout, completed.truncated) == (b"12345", True)
    completed = await connection.run("cat", stdin=b"12345", capture_limit=5)
    assert (completed.stdout, completed.truncated) == (b"12345", False)


@pytest.mark.parametrize("seconds", [0.05, 0])
async def test_time_runs_out(seconds: float) -> None:
    """A command is ended after its timeout, even after one of zero, and the result says so."""
    connection = await _connect(_never_ends)
    completed = await connection.run("make", timeout=timedelta(seconds=seconds))
    assert completed.timed_out
    assert completed.status is None
    assert connection.is_open


async def test_lost_connection_is_an_error() -> None:
    """If the connection breaks meanwhile, that is an error and never a status."""
    connection = await _connect(_never_ends)

    async def cut(_: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        connection.break_()

    with pytest.raises(ConnectionLost, match="instance i-1 is lost"):
        await connection.run("make", stdout=cut)
    with pytest.raises(ConnectionLost):
        await connection.run("true")


async def test_failing_sink_is_not_wrapped() -> None:
    """An exception of a sink ends the command and is raised, not in an exception group."""

    class Full:
        def write(self, data: bytes) -> None:
            raise OSError(28, "no space left", data)

    with pytest.raises(OSError, match="no space left"):
        await (await _connect(_never_ends)).run("make", stdout=Full())


async def test_background_process_does_not_hold_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run ends with its command, although another process keeps its output open."""
    monkeypatch.setattr(_run, "SILENCE_SECONDS", 0.01)
    kept: list[Closable] = []

    async def detach(command: Command) -> int:
        await command.stdout.send(b"out")
        assert isinstance(command.stdout, _Sender)
        kept.append(command.stdout._pipe.clone())
        return 0

    try:
        assert await (await _connect(detach)).run("daemon &") == Completed(0, stdout=b"out")
    finally:
        for end in kept:
            end.close()


async def test_invalid_variable_is_refused() -> None:
    """An invalid name of a variable is a `ValueError` before anything runs."""
    with pytest.raises(ValueError, match="'A-B' is not a valid variable name"):
        await (await _connect()).run("true", env={"A-B": "1"})
