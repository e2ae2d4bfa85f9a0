"""One thread that owns something slow and blocking, and does what it is asked in batches.

Theory of operation
-------------------
What blocks stays off the event loop, and what may be used by one thread only has one.
The thread takes everything that waits, does it as one batch, and reports back with a
single visit to the event loop; while it is at work, the next batch gathers. So a
commit costs one flush to the disk when it comes alone, and so do two thousand that
come together.

Requests are put and taken under one lock, which nobody holds while working. A caller
that is cancelled leaves its request behind: it is done, and its report reaches nobody.
Closing means that no request is taken any more, and that those which wait are done
before the thread ends; whoever closes waits for that end, cancelled or not, but no longer
than `CLOSE_SECONDS`: a disk may hang for ever. Should the event loop be gone before that
end, the thread notices at its next report and ends.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, cast

import anyio
import anyio.from_thread
from anyio.lowlevel import current_token

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from typing import Any, Self

__all__ = ("Owned", "Request", "Writer")

logger = logging.getLogger("taskscaler")

# How long whoever closes waits for what is still to be done.
CLOSE_SECONDS = 60.0

T = TypeVar("T")
OwnedT = TypeVar("OwnedT", bound="Owned")


class Request(Generic[T]):
    """One thing to do, and what came of it.

    Attributes:
        work: does it, in the thread, and returns its result.
        durable: whether it must survive a power loss when it is done.
        result: what it returned; meaningless before it is done, and after a failure.
        error: what it raised; None if it did not.
        done: set on the event loop, once one of the two is known.
    """

    def __init__(self, work: Callable[[Any], T], *, durable: bool) -> None:
        self.work = work
        self.durable = durable
        self.result: T | None = None
        self.error: BaseException | None = None
        self.done = anyio.Event()

    async def wait(self) -> T:
        """Wait until it is done, and return or raise what came of it."""
        await self.done.wait()
        if self.error is not None:
            raise self.error
        return cast("T", self.result)


class Owned(Protocol):
    """What a thread can own."""

    def run(self, batch: Sequence[Request[Any]]) -> None:
        """Do everything, and give each request its result or its error.

        What it raises instead is the error of each request.
        """
        ...


class Writer(Generic[OwnedT]):
    """Owns something in a thread of its own, from entering to leaving; see the theory above.

    Args:
        opened: makes what is owned; entered and left in the thread.
        name: of the thread.
        closed: makes the error for whoever asks when it is too late.
    """

    def __init__(
        self,
        opened: Callable[[], AbstractContextManager[OwnedT]],
        *,
        name: str,
        closed: Callable[[], Exception],
    ) -> None:
        self._opened = opened
        self._name = name
        self._closed_error = closed
        self._changed = threading.Condition()
        self._waiting: list[Request[Any]] = []
        self._is_closing = False

    async def __aenter__(self) -> Self:
        self._token = current_token()
        self._opening = Request[None](lambda _: None, durable=False)
        self._ending = Request[None](lambda _: None, durable=False)
        # A daemon: an interpreter that goes down with the event loop is not to wait for it.
        threading.Thread(target=self._main, name=self._name, daemon=True).start()
        try:
            await self._opening.wait()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()
        if self._ending.done.is_set():
            await self._ending.wait()

    async def _close(self) -> None:
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        with anyio.move_on_after(CLOSE_SECONDS, shield=True):
            await self._ending.done.wait()
        if not self._ending.done.is_set():
            logger.error(
                "%s could not be closed within %gs, and what was asked of it last may not be done; "
                "see whether its disk hangs",
                self._name,
                CLOSE_SECONDS,
            )

    async def run(self, work: Callable[[OwnedT], T], *, durable: bool) -> T:
        """Have something done in the thread, together with what else waits.

        When cancelled, it is done nevertheless, now or later.

        Args:
            work: gets what is owned; its result and its exceptions are those of this call.
            durable: whether it must survive a power loss when this returns.
        """
        request = Request(work, durable=durable)
        with self._changed:
            if self._is_closing:
                raise self._closed_error()
            self._waiting.append(request)
            self._changed.notify()
        return await request.wait()

    def _main(self) -> None:
        stage = self._opening
        try:
            with self._opened() as owned:
                self._report([self._opening])
                stage = self._ending
                while batch := self._take():
                    _do(owned, batch)
                    self._report(batch)
        except anyio.RunFinishedError:
            return  # Nobody is left to be told.
        except BaseException as error:  # noqa: BLE001 - whoever entered or leaves is to hear of it
            stage.error = error
        self._finish()

    def _finish(self) -> None:
        with self._changed:
            self._is_closing = True
            left, self._waiting = self._waiting, []
        for request in left:
            request.error = self._closed_error()
        with contextlib.suppress(anyio.RunFinishedError):
            self._report([*left, self._opening, self._ending])

    def _take(self) -> list[Request[Any]]:
        """Return all that waits, when something does; nothing once all is done and closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closing)
            batch, self._waiting = self._waiting, []
        return batch

    def _report(self, batch: Sequence[Request[Any]]) -> None:
        anyio.from_thread.run_sync(_settle, batch, token=self._token)


def _do(owned: Owned, batch: Sequence[Request[Any]]) -> None:
    try:
        owned.run(batch)
    except BaseException as error:  # noqa: BLE001 - it belongs to those who asked, and they wait
        for request in batch:
            request.error = error


def _settle(batch: Sequence[Request[Any]]) -> None:
    for request in batch:
        request.done.set()
