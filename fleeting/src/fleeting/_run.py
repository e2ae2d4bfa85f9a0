"""Runs a started command to its end: the implementation of `Connection.run`.

A command can leave a background process that keeps its output open for ever. So
the end of the command, and not the end of its output, ends the run. After that,
output is read only while more keeps arriving, and for a limited time.

A command that has to end early, after a timeout or a cancellation, is sent TERM and gets some
time to clean up. Its output is passed on meanwhile, so that what it says about its end is not lost.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import TYPE_CHECKING, cast

import anyio

from fleeting.errors import FleetingError
from fleeting.types import Completed, Exit

if TYPE_CHECKING:
    from collections.abc import AsyncIterable
    from contextlib import AbstractAsyncContextManager
    from datetime import timedelta

    from anyio.abc import ByteReceiveStream, ByteSendStream

    from fleeting._processes import AsyncOutput, Output, Process

# After the command has ended: how long an output may stay silent before reading stops ...
SILENCE_SECONDS = 1.0
# ... and how long to wait for output in total. Everything the command itself wrote has arrived
# by then.
LINGER_SECONDS = 20.0

# How long an input iterator that is no longer needed may take to clean up.
CLOSE_SECONDS = 5.0
# How long the report of the end of a killed command may take to arrive ...
KILL_SECONDS = 1.0
# ... and the rest of the output of a command that was ended early.
REST_SECONDS = 5.0


class _Capture:
    """An output that keeps the first bytes it receives."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.data = bytearray()
        self.truncated = False

    def write(self, data: bytes) -> None:
        room = self.limit - len(self.data)
        self.data += data[:room]
        self.truncated = self.truncated or len(data) > room


class _Drain:
    """Copies one output of a process to its sink; a cancellation of the run does not end it."""

    def __init__(self, stream: ByteReceiveStream, sink: Output | AsyncOutput) -> None:
        self.scope = anyio.CancelScope(shield=True)
        self.done = anyio.Event()
        self.failed = False
        self._stream = stream
        self._sink = sink
        self._silence = self._budget = math.inf
        self._receiving: anyio.CancelScope | None = None

    def command_ended(self) -> None:
        """Start to treat silence as the end of the output."""
        self._silence, self._budget = SILENCE_SECONDS, LINGER_SECONDS
        if self._receiving is not None:
            self._receiving.deadline = anyio.current_time() + self._silence

    async def run(self) -> None:
        try:
            with self.scope:
                await self._copy()
        except BaseException:
            self.failed = True
            raise
        finally:
            self.done.set()

    async def _copy(self) -> None:
        while (data := await self._receive()) is not None:
            write = getattr(self._sink, "write", None)
            if write is None:
                await cast("AsyncOutput", self._sink)(data)
                continue
            write(data)
            flush = getattr(self._sink, "flush", None)
            if flush is not None:
                flush()

    async def _receive(self) -> bytes | None:
        began = anyio.current_time()
        with anyio.move_on_after(min(self._silence, self._budget)) as scope:
            self._receiving = scope
            try:
                return await self._stream.receive()
            except anyio.EndOfStream:
                return None
            finally:
                self._receiving = None
                # Only the time spent waiting counts: the sink may be slow.
                self._budget -= anyio.current_time() - began
        return None


async def _feed(stream: ByteSendStream, data: bytes | AsyncIterable[bytes] | None) -> None:
    try:
        if isinstance(data, bytes):
            await stream.send(data)
        elif data is not None:
            async for chunk in data:
                await stream.send(chunk)
        await stream.aclose()
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass  # The command does not read the rest of its input, as `head` does not.
    finally:
        if isinstance(data, AsyncGenerator):
            # Otherwise the garbage collector would close it at an arbitrary time.
            with anyio.move_on_after(CLOSE_SECONDS, shield=True):
                await data.aclose()


async def run_command(
    starting: AbstractAsyncContextManager[Process],
    *,
    stdin: bytes | AsyncIterable[bytes] | None,
    stdout: Output | AsyncOutput | None,
    stderr: Output | AsyncOutput | None,
    timeout: timedelta | None,
    grace: timedelta,
    capture_limit: int,
) -> Completed:
    """Feed, drain and await a process; see `Connection.run` for the contract."""
    captured_out, captured_err = _Capture(capture_limit), _Capture(capture_limit)
    ended = Exit(None)
    seconds = None if timeout is None else timeout.total_seconds()
    try:
        with anyio.move_on_after(seconds) as scope:
            async with starting as process:
                drains = (
                    _Drain(process.stdout, captured_out if stdout is None else stdout),
                    _Drain(process.stderr, captured_err if stderr is None else stderr),
                )
                ended = await _supervise(process, drains, stdin, grace)
    except BaseExceptionGroup as errors:
        raise first_error(errors) from errors
    return Completed(
        status=ended.status,
        signal=ended.signal,
        timed_out=scope.cancelled_caught,
        stdout=bytes(captured_out.data),
        stderr=bytes(captured_err.data),
        truncated=captured_out.truncated or captured_err.truncated,
    )


async def _supervise(
    process: Process,
    drains: tuple[_Drain, _Drain],
    stdin: bytes | AsyncIterable[bytes] | None,
    grace: timedelta,
) -> Exit:
    ended = Exit(None)
    async with anyio.create_task_group() as feeding:
        feeding.start_soon(_feed, process.stdin, stdin)
        async with anyio.create_task_group() as draining:
            for drain in drains:
                draining.start_soon(drain.run)
            try:
                ended = await process.wait()
                for drain in drains:
                    drain.command_ended()
                for drain in drains:
                    await drain.done.wait()
            except anyio.get_cancelled_exc_class():
                # If a drain has failed, there is nowhere to write the rest to.
                if not any(drain.failed for drain in drains):
                    await _end_early(process, drains, grace)
                raise
            finally:
                for drain in drains:
                    drain.scope.cancel()
        feeding.cancel_scope.cancel()  # The command has ended and reads no more input.
    return ended


async def _end_early(process: Process, drains: tuple[_Drain, _Drain], grace: timedelta) -> None:
    """Ask a command to end, then kill it; pass its output on. Takes a limited time."""
    with anyio.CancelScope(shield=True), suppress(FleetingError):
        ended = False
        for signal, seconds in (("TERM", grace.total_seconds()), ("KILL", KILL_SECONDS)):
            await process.send_signal(signal)
            with anyio.move_on_after(seconds):
                await process.wait()
                ended = True
                break
        if ended:
            for drain in drains:
                drain.command_ended()
            with anyio.move_on_after(REST_SECONDS):
                for drain in drains:
                    await drain.done.wait()


def first_error(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return one error of a group to raise instead of it: a `FleetingError` if there is one."""
    ours = errors.subgroup(FleetingError)
    error: BaseException = ours or errors
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error
