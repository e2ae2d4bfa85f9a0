"""Finds the instance for the next task without looking at all of them.

Instances are kept by how many tasks they could take, one heap for each number,
the oldest on top. To pack is to look into the lowest non-empty heap, to spread
is to look into the highest. An instance whose number has changed leaves its
old entry behind, to be dropped when it comes to the top, or when a heap holds
more dead entries than live ones; so an operation costs O(log n) on average,
and memory stays bounded.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taskscaler.core.model.instance import Instance

__all__ = ("SlotIndex",)

# Below this many entries a heap is not worth cleaning.
SMALL = 64


class SlotIndex:
    """The instances of one group by how many tasks they could take.

    Attributes:
        free: how many tasks they could take together.
    """

    __slots__ = ("_buckets", "_filled", "_live", "_spread", "free")

    def __init__(self, capacity: int, *, spread: bool) -> None:
        self.free = 0
        self._spread = spread
        self._buckets: list[list[tuple[int, Instance]]] = [[] for _ in range(capacity + 1)]
        self._live = [0] * (capacity + 1)
        # Which buckets have live entries, as bits.
        self._filled = 0

    def moved(self, instance: Instance, before: int, after: int) -> None:
        """Take note that an instance could take `before` tasks, and can now take `after`."""
        if before == after:
            return
        self.free += after - before
        if before:
            self._live[before] -= 1
            if not self._live[before]:
                self._filled &= ~(1 << before)
        if after:
            self._live[after] += 1
            self._filled |= 1 << after
            if not instance.buckets >> after & 1:
                instance.buckets |= 1 << after
                bucket = self._buckets[after]
                heapq.heappush(bucket, (instance.number, instance))
                if len(bucket) > SMALL + 2 * self._live[after]:
                    self._clean(after)

    def best(self) -> Instance | None:
        """Return the instance that the next task should go to, or None if there is no slot."""
        if not self._filled:
            return None
        if self._spread:
            number = self._filled.bit_length() - 1
        else:
            number = (self._filled & -self._filled).bit_length() - 1
        bucket = self._buckets[number]
        while bucket[0][1].available != number:
            _, stale = heapq.heappop(bucket)
            stale.buckets &= ~(1 << number)
        return bucket[0][1]

    def _clean(self, number: int) -> None:
        kept = [entry for entry in self._buckets[number] if entry[1].available == number]
        for _, instance in self._buckets[number]:
            instance.buckets &= ~(1 << number)
        for _, instance in kept:
            instance.buckets |= 1 << number
        heapq.heapify(kept)
        self._buckets[number] = kept
