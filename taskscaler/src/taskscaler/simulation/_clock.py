"""A simulated clock, which advances to the next planned action.

Times are seconds as floats, like in the core, and are never converted: an action that is
due at a moment that the core named happens at exactly that moment, so `then + pause <= now`
holds when it should. Actions of one moment happen in the order in which they were planned.
"""

from __future__ import annotations

import heapq
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from taskscaler.core import Now

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("Clock",)


class Clock:
    """Two clocks, and the actions that are planned on them.

    Args:
        start: the wall time at the beginning; aware.
        seconds: the monotonic time at the beginning; it need not be 0.

    Attributes:
        seconds: the monotonic time.
        steps: the number of actions so far.
    """

    __slots__ = ("_heap", "_now", "_planned", "_zero", "seconds", "steps")

    def __init__(self, start: datetime, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.steps = 0
        self._zero = start - timedelta(seconds=seconds)
        self._now = Now(seconds, start)
        self._heap: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._planned = 0

    @property
    def now(self) -> Now:
        """Return monotonic and wall time, as the core takes them."""
        if self._now.monotonic != self.seconds:
            self._now = Now(self.seconds, self._zero + timedelta(seconds=self.seconds))
        return self._now

    def jump(self, seconds: float) -> None:
        """Move the wall clock forward, or backward if negative."""
        self._zero += timedelta(seconds=seconds)
        self._now = Now(self.seconds, self._zero + timedelta(seconds=self.seconds))

    def at(self, seconds: float, action: Callable[..., object], *arguments: Any) -> None:
        """Plan an action for a moment; for now if that moment is past."""
        self._planned += 1
        heapq.heappush(self._heap, (max(seconds, self.seconds), self._planned, action, arguments))

    def after(self, seconds: float, action: Callable[..., object], *arguments: Any) -> None:
        """Plan an action after a number of seconds."""
        self.at(self.seconds + seconds, action, *arguments)

    def run(self, until: float) -> None:
        """Run all actions that are due until a moment, and stop there."""
        heap, pop = self._heap, heapq.heappop
        while heap and heap[0][0] <= until:
            self.seconds, _, action, arguments = pop(heap)
            self.steps += 1
            action(*arguments)
        self.seconds = max(self.seconds, until)
