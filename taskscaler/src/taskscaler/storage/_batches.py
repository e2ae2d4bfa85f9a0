"""A thread that owns a blocking resource, and runs requests on it in batches.

Theory of operation
-------------------
Blocking calls stay off the event loop, and a resource for one thread only is used by
one thread only. The thread takes all requests that wait, runs them as one batch, and
reports back with a single visit to the event loop; while it works, the next batch
gathers. So two thousand commits that come together cost one flush to the disk, as one
that comes alone does.

Requests are added and taken under one lock, which is not held while they run. If a
caller is cancelled, its request runs nevertheless, and its report is ignored. After
closing has begun, new requests are refused, and the thread runs those that wait before
it ends. Closing waits for that end, even when cancelled, but no longer than
`CLOSE_SECONDS`: a disk may hang for ever. If the event loop ends first, the thread
notices at its next report and ends too.
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

__all__ = ("BatchRequest", "BatchThread", "Owned")

logger = logging.getLogger("taskscaler")

# How long closing waits for the requests that remain.
CLOSE_SECONDS = 60.0

T = TypeVar("T")
OwnedT = TypeVar("OwnedT", bound="Owned")


class BatchRequest(Generic[T]):
    """Work for the thread, and its outcome.

    Attributes:
        work: runs in the thread and returns the result.
        durable: whether it must survive a power loss when it is done.
        result: the result of the work; meaningless before it is done, and after an error.
        error: the exception of the work; None if it raised none.
        done: set on the event loop when the work is done.
    """

    def __init__(self, work: Callable[[Any], T], *, durable: bool) -> None:
        self.work = work
        self.durable = durable
        self.result: T | None = None
        self.error: BaseException | None = None
        self.done = anyio.Event()

    async def wait(self) -> T:
        """Wait until it is done; return its result or raise its error."""
        await self.done.wait()
        if self.error is not None:
            raise self.error
        return cast("T", self.result)


class Owned(Protocol):
    """A resource that a `BatchThread` can own."""

    def run(self, batch: Sequence[BatchRequest[Any]]) -> None:
        """Run all requests, and set the result or the error of each.

        An exception becomes the error of each request.
        """
        ...


class BatchThread(Generic[OwnedT]):
    """A thread that owns a resource from entering to leaving; see the theory above.

    Args:
        opened: opens the resource; entered and left in the thread.
        name: the thread's.
        closed: returns the error for requests that come too late.
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
        self._waiting: list[BatchRequest[Any]] = []
        self._is_closing = False

    async def __aenter__(self) -> Self:
        self._token = current_token()
        self._opening = BatchRequest[None](lambda _: None, durable=False)
        self._ending = BatchRequest[None](lambda _: None, durable=False)
        # A daemon, because an interpreter that ends with its event loop must not wait for it.
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
                "%s did not close within %gs, and its last requests may not be done; check whether "
                "its disk hangs",
                self._name,
                CLOSE_SECONDS,
            )

    async def run(self, work: Callable[[OwnedT], T], *, durable: bool) -> T:
        """Run work in the thread, in one batch with other requests that wait.

        When cancelled, the work runs nevertheless, sooner or later.

        Args:
            work: takes the resource; its result and its exceptions are those of this call.
            durable: whether it must survive a power loss when this returns.
        """
        request = BatchRequest(work, durable=durable)
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
            return  # The event loop has ended, so there is nothing to report to.
        except BaseException as error:  # noqa: BLE001 - it is raised by entering or leaving
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

    def _take(self) -> list[BatchRequest[Any]]:
        """Wait for requests and return them all; return none when closed and all are done."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closing)
            batch, self._waiting = self._waiting, []
        return batch

    def _report(self, batch: Sequence[BatchRequest[Any]]) -> None:
        anyio.from_thread.run_sync(_settle, batch, token=self._token)


def _do(owned: Owned, batch: Sequence[BatchRequest[Any]]) -> None:
    try:
        owned.run(batch)
    except BaseException as error:  # noqa: BLE001 - it is raised where the requests were made
        for request in batch:
            request.error = error


def _settle(batch: Sequence[BatchRequest[Any]]) -> None:
    for request in batch:
        request.done.set()
