"""Instances in the order of something that only grows, such as since when they are idle.

A heap with one entry at most for each instance. An entry may be out of date:
it is put right, or dropped, when it comes to the top, so that nothing is to be
done here when an instance becomes busy, which happens all the time.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskscaler.core.model.instance import Instance

__all__ = ("AgeQueue",)

# Below this many entries the queue is not worth cleaning.
SMALL = 64


class AgeQueue:
    """Instances by a time of theirs, the earliest first.

    Args:
        time_of: returns an instance's time in monotonic seconds, never less than it
            was before; None if the instance does not belong here now.
    """

    __slots__ = ("_entries", "_queued", "_time_of")

    def __init__(self, time_of: Callable[[Instance], float | None]) -> None:
        self._time_of = time_of
        self._entries: list[tuple[float, int, Instance]] = []
        # The numbers of the instances that have an entry.
        self._queued: set[int] = set()

    def add(self, instance: Instance, alive: int) -> None:
        """Take in an instance that belongs here now. Idempotent.

        Args:
            instance: the one.
            alive: how many instances there are, to know when it is worth cleaning up.
        """
        if instance.number in self._queued:
            return
        at = self._time_of(instance)
        if at is None:
            return
        self._queued.add(instance.number)
        heapq.heappush(self._entries, (at, instance.number, instance))
        if len(self._entries) > SMALL + 2 * alive:
            self._clean()

    def first(self) -> Instance | None:
        """Return the instance of the earliest time, or None if there is none."""
        while self._entries:
            at, number, instance = self._entries[0]
            now = self._time_of(instance)
            if now is None:
                heapq.heappop(self._entries)
                self._queued.discard(number)
            elif now == at:
                return instance
            else:
                heapq.heapreplace(self._entries, (now, number, instance))
        return None

    def drop_first(self) -> Instance:
        """Take out the instance that `first` returned, and return it; `add` takes it in again."""
        _, number, instance = heapq.heappop(self._entries)
        self._queued.discard(number)
        return instance

    def bound(self) -> float | None:
        """Return a time that is not later than that of the first, or None if there is none.

        Much cheaper than `first`.
        """
        return self._entries[0][0] if self._entries else None

    def _clean(self) -> None:
        """Drop the entries of instances that do not belong, which may be far from the top."""
        self._entries = [entry for entry in self._entries if self._time_of(entry[2]) is not None]
        self._queued = {entry[1] for entry in self._entries}
        heapq.heapify(self._entries)
