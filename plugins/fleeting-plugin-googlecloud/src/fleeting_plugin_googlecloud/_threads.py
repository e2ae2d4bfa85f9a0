"""Runs calls that block in threads that may be left behind.

A thread cannot be cancelled. If a call takes too long, or its caller is cancelled, its
thread is left to itself, and its turn goes to the next call, so hung calls do not hold
up others. Their number is bounded. The threads are daemons: a call that hangs, for
example because packets are dropped, does not keep the process from ending either.
"""

from __future__ import annotations

import threading
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Generic, TypeVar

import anyio
import anyio.from_thread
import anyio.lowlevel

from fleeting.errors import ProviderError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

__all__ = ("RequestThreads", "run_in_thread")

T = TypeVar("T")

# How many calls run at the same time.
THREADS = 8
# With so many calls left behind no more are made.
MOST_HUNG = 32


class _Call(Generic[T]):
    """One call, its result or error, and whether it has ended."""

    def __init__(self, call: Callable[[], T]) -> None:
        self.ended = anyio.Event()
        self._call = call
        self._results: list[T] = []
        self._error: BaseException | None = None
        self._token = anyio.lowlevel.current_token()

    def run(self) -> None:
        """Make the call, and tell the event loop."""
        try:
            self._results.append(self._call())
        except BaseException as error:  # noqa: BLE001 - the caller gets it
            self._error = error
        with suppress(RuntimeError):  # The event loop has ended meanwhile.
            anyio.from_thread.run_sync(self.ended.set, token=self._token)

    def result(self) -> T:
        """Return the result, or raise the error."""
        if self._error is not None:
            raise self._error
        return self._results[0]


async def run_in_thread(call: Callable[[], T]) -> T:
    """Make a call in a thread of its own. If this is cancelled, the thread is left behind.

    Raises:
        Exception: any that the call raises.
    """
    made = _Call(call)
    threading.Thread(target=made.run, name="googlecloud", daemon=True).start()
    await made.ended.wait()
    return made.result()


class RequestThreads:
    """Limits the threads of one group."""

    def __init__(self) -> None:
        self._turns = anyio.CapacityLimiter(THREADS)
        self._lock = threading.Lock()
        self._running = 0
        self._awaited = 0

    @property
    def hung(self) -> int:
        """Return the number of threads that run and that nothing waits for."""
        return max(0, self._running - self._awaited)

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """Wait for a turn to use a thread.

        Raises:
            ProviderError: too many threads were left behind.
        """
        async with self._turns:
            if self.hung >= MOST_HUNG:
                raise ProviderError(
                    f"{self.hung} requests to Google hang and were given up; no more are sent "
                    "until some of them end; check the network"
                )
            yield

    async def run(self, call: Callable[[], T]) -> T:
        """Make a call, during a turn; see `run_in_thread`."""

        def counted() -> T:
            with self._lock:
                self._running += 1
            try:
                return call()
            finally:
                with self._lock:
                    self._running -= 1

        self._awaited += 1
        try:
            return await run_in_thread(counted)
        finally:
            self._awaited -= 1
