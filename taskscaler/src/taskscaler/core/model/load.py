"""The busiest moment of late: how many tasks held or wanted a slot at the same time."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("RecentLoad",)


class RecentLoad:
    """The load now, and its earlier peaks.

    A past load matters only while no later one was at least as high. So the peaks fall
    from the oldest to the newest, and a change costs O(1) on average.

    Attributes:
        level: the tasks that hold or want a slot now.
    """

    __slots__ = ("_peaks", "level")

    def __init__(self) -> None:
        self.level = 0
        # Each with the moment at which the load fell below it.
        self._peaks: deque[tuple[float, int]] = deque()

    def observe(self, level: int, now: float) -> None:
        """Record the load from now on."""
        if level < self.level:
            self._peaks.append((now, self.level))
        else:
            while self._peaks and self._peaks[-1][1] <= level:
                self._peaks.pop()
        self.level = level

    def highest(self, now: float, seconds: float) -> int:
        """Return the highest load of the last seconds, and forget what was before."""
        while self._peaks and self._peaks[0][0] + seconds <= now:
            self._peaks.popleft()
        return self._peaks[0][1] if self._peaks else self.level

    def fell_at(self, fits: Callable[[int], bool]) -> float | None:
        """Return when the load last fell to one that fits; None if it was never higher.

        Args:
            fits: whether a load fits; all lower ones must fit as well.
        """
        higher = bisect_left(self._peaks, True, key=lambda peak: fits(peak[1]))  # noqa: FBT003 - what to look for
        return self._peaks[higher - 1][0] if higher else None
