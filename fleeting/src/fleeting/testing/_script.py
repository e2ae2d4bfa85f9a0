"""What a test says about the calls to come: one `Reply` for each, taken in order.

A call has two moments, before and after its work is done. A `Reply` can hold
the call at either, spoil it, or change what comes of it. Calls that nothing
was said about are answered truthfully.
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
    """Holds calls until the test opens it, so that no test needs to sleep."""

    def __init__(self) -> None:
        self._reached = anyio.Event()
        self._opened = anyio.Event()

    async def reached(self) -> None:
        """Wait until a call has come to the gate; it stays there until `open`."""
        await self._reached.wait()

    def open(self) -> None:
        """Let the calls through that wait here, and all that come later."""
        self._opened.set()

    async def pass_through(self) -> None:
        """Wait here until the gate is open; what a held call does."""
        self._reached.set()
        await self._opened.wait()


@dataclass(frozen=True, slots=True)
class Reply:
    """How a fake answers one call.

    Attributes:
        before: holds the call before anything is done: a gate, or a time to pass.
        error: refuses the call, with nothing done; together with `accept`, it is
            what the value says about the part that was not accepted.
        accept: how many of the requested instances are accepted; all by default.
        create: how many instances an increase really makes, whatever it accepted:
            fewer is a lie, more a duplicate.
        become: the state in which new instances are and stay, such as `FAILED`.
        listing: what `update` makes of the true listing: an older one, another order.
        after: holds the call after its work is done and before the caller learns of it.
        lost: whether the caller gets `OutcomeUnknown` although the work is done.
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
    """The replies to one kind of call: those given for the next calls, then the usual one."""

    def __init__(self) -> None:
        self._next: deque[Reply] = deque()
        self.usual = Reply()

    def add(self, *replies: Reply) -> None:
        """Answer the next calls like this, one reply each, after those given before."""
        self._next.extend(replies)

    async def enter(self) -> Reply:
        """Begin a call: take its reply, and be held or refused if that says so."""
        reply = self._next.popleft() if self._next else self.usual
        await _hold(reply.before)
        if reply.error is not None and reply.accept is None:
            raise reply.error
        return reply

    async def leave(self, reply: Reply) -> None:
        """End a call whose work is done."""
        if reply.after is not None:
            await _hold(reply.after)
        if reply.lost:
            raise OutcomeUnknown("the reply was lost on its way; look at the next listing")


async def _hold(what: Gate | timedelta | None) -> None:
    if isinstance(what, Gate):
        await what.pass_through()
    elif isinstance(what, timedelta):
        await anyio.sleep(what.total_seconds())
    else:
        # Every call gives way once, so that it can be cancelled as a real one can.
        await anyio.lowlevel.checkpoint()


class Signal:
    """Tells waiters that something has changed, as often as it does."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def notify(self) -> None:
        """Wake everybody who waits now."""
        self._event.set()
        self._event = anyio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds, which is looked at after every change."""
        while not condition():
            await self._event.wait()
