"""Scripts the replies to future calls: one `Reply` for each, in order.

A `Reply` can delay a call before or after its work is done, make it fail, or change
its result. Calls without a scripted reply succeed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from fleeting.errors import FleetingError, OutcomeUnknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from fleeting.types import Listing, State

__all__ = ("Gate", "Reply", "Script", "Signal")


class Gate:
    """Holds calls until the test opens it, so that tests need not sleep."""

    def __init__(self) -> None:
        self._reached = anyio.Event()
        self._opened = anyio.Event()

    async def reached(self) -> None:
        """Wait until a call has reached the gate, where it waits for `open`."""
        await self._reached.wait()

    def open(self) -> None:
        """Let all waiting and future calls pass."""
        self._opened.set()

    async def pass_through(self) -> None:
        """Wait until the gate is open; a held call does this."""
        self._reached.set()
        await self._opened.wait()


@dataclass(frozen=True, slots=True)
class Reply:
    """How a fake answers one call.

    Attributes:
        before: delays the call before its work is done: a gate, or a duration.
        error: makes the call fail without doing anything; together with `accept`, the
            error of the part that was not accepted.
        accept: how many of the requested instances are accepted; None for all.
        create: how many instances an increase really creates; None for as many as it
            accepted.
        become: the state that new instances have and keep, such as `FAILED`.
        listing: changes the listing that `update` returns, for example to an older one.
        after: delays the call after its work is done: a gate, or a duration.
        lost: whether the call raises `OutcomeUnknown` after its work is done.
    """

    before: Gate | timedelta | None = None
    error: FleetingError | None = None
    accept: int | None = None
    create: int | None = None
    become: State | None = None
    listing: Callable[[Listing], Listing] | None = None
    after: Gate | timedelta | None = None
    lost: bool = False


class Script:
    """The replies to one method: those for the next calls, then the usual one."""

    def __init__(self) -> None:
        self._next: deque[Reply] = deque()
        self.usual = Reply()

    def add(self, *replies: Reply) -> None:
        """Append replies for the next calls, one each."""
        self._next.extend(replies)

    async def enter(self) -> Reply:
        """Begin a call: take its reply, and wait or fail as the reply says."""
        reply = self._next.popleft() if self._next else self.usual
        await _hold(reply.before)
        if reply.error is not None and reply.accept is None:
            raise reply.error
        return reply

    async def leave(self, reply: Reply) -> None:
        """End a call whose work is done: wait or fail as the reply says."""
        if reply.after is not None:
            await _hold(reply.after)
        if reply.lost:
            raise OutcomeUnknown("the reply was lost; check the next listing")


async def _hold(what: Gate | timedelta | None) -> None:
    if isinstance(what, Gate):
        await what.pass_through()
    elif isinstance(what, timedelta):
        await anyio.sleep(what.total_seconds())
    else:
        # Every call awaits at least once, so that it can be cancelled like a real one.
        await anyio.lowlevel.checkpoint()


class Signal:
    """Wakes waiting tasks at each change."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def notify(self) -> None:
        """Wake all waiting tasks."""
        self._event.set()
        self._event = anyio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds; it is checked after every change."""
        while not condition():
            await self._event.wait()
