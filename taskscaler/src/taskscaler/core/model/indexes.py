"""Find the next instance without looking at all of them: by free slots, and by age."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from taskscaler.core.model.agenda import CHANGED, EASED, TAKEN, Agenda

if TYPE_CHECKING:
    from collections.abc import Callable, Sized

    from taskscaler.core.model.instance import Suspension, TrackedInstance

__all__ = ("AgeQueue", "IdleQueue", "SlotIndex")

# Below this many entries a heap is not worth cleaning.
SMALL = 64


class SlotIndex:
    """The slots of one group: who has them, and which instance serves the next task.

    Instances are kept by how many tasks they could take, one heap for each number,
    the oldest on top. Packing looks into the lowest non-empty heap, spreading into
    the highest. An instance whose number has changed leaves its old entry behind;
    it is dropped when it comes to the top, or when a heap holds more dead entries
    than live ones. So an operation costs O(log n) on average, and memory is bounded.

    Attributes:
        free: how many tasks the instances could take together.
        acquired: how many slots tasks hold.
    """

    __slots__ = ("_agenda", "_buckets", "_filled", "_live", "_spread", "acquired", "free")

    def __init__(self, capacity: int, agenda: Agenda, *, spread: bool) -> None:
        self.free = 0
        self.acquired = 0
        self._agenda = agenda
        self._spread = spread
        self._buckets: list[list[tuple[int, TrackedInstance]]] = [[] for _ in range(capacity + 1)]
        self._live = [0] * (capacity + 1)
        # Which buckets have live entries, as bits.
        self._filled = 0

    def acquire(self, instance: TrackedInstance, key: str) -> None:
        """Give a slot to a task."""
        instance.acquire(key)
        self.acquired += 1
        self._agenda.news |= TAKEN
        self.update(instance)

    def release(self, instance: TrackedInstance, key: str) -> None:
        """Take a slot back."""
        instance.release(key)
        self.acquired -= 1
        self._agenda.news |= EASED
        self.update(instance)

    def suspend(self, instance: TrackedInstance, key: str, suspension: Suspension) -> None:
        """Keep the slot of a task that was suspended now, or by a previous process."""
        if key in instance.tasks:
            self.acquired -= 1
        instance.suspend(key, suspension)
        self._agenda.news |= CHANGED

    def resume(self, instance: TrackedInstance, key: str) -> int:
        """Give a suspended task its slot back, and return the slot's number."""
        self.acquired += 1
        self._agenda.news |= CHANGED
        return instance.resume(key)

    def drop(self, instance: TrackedInstance, key: str) -> None:
        """Take the slot of a suspended task back."""
        instance.drop(key)
        self._agenda.news |= CHANGED
        self.update(instance)

    def update(self, instance: TrackedInstance) -> None:
        """Bring the index up to date after an instance has changed. Idempotent."""
        before, after = instance.offered, instance.available
        if before == after:
            return
        instance.offered = after
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

    def best(self) -> TrackedInstance | None:
        """Return the instance for the next task, or None if no slot is free."""
        if not self._filled:
            return None
        if self._spread:
            number = self._filled.bit_length() - 1
        else:
            number = (self._filled & -self._filled).bit_length() - 1
        bucket = self._buckets[number]
        while bucket[0][1].offered != number:
            _, stale = heapq.heappop(bucket)
            stale.buckets &= ~(1 << number)
        return bucket[0][1]

    def _clean(self, number: int) -> None:
        kept = [entry for entry in self._buckets[number] if entry[1].offered == number]
        for _, instance in self._buckets[number]:
            instance.buckets &= ~(1 << number)
        for _, instance in kept:
            instance.buckets |= 1 << number
        heapq.heapify(kept)
        self._buckets[number] = kept


class AgeQueue:
    """Instances by a time that only grows, such as since when they are idle.

    A heap with at most one entry for each instance. An entry may be out of date: it
    is corrected or dropped when it comes to the top. So nothing needs to be done
    here when an instance becomes busy, which happens all the time.

    Args:
        time_of: returns an instance's time in monotonic seconds, never less than
            before; None while the instance does not belong here.
        alive: all instances that there are; many more entries than these are cleaned up.
    """

    __slots__ = ("_alive", "_entries", "_queued", "_time_of")

    def __init__(self, time_of: Callable[[TrackedInstance], float | None], alive: Sized) -> None:
        self._time_of = time_of
        self._alive = alive
        self._entries: list[tuple[float, int, TrackedInstance]] = []
        # The numbers of the instances that have an entry.
        self._queued: set[int] = set()

    def add(self, instance: TrackedInstance) -> None:
        """Add an instance if it belongs here. Idempotent."""
        if instance.number in self._queued:
            return
        at = self._time_of(instance)
        if at is None:
            return
        self._queued.add(instance.number)
        heapq.heappush(self._entries, (at, instance.number, instance))
        if len(self._entries) > SMALL + 2 * len(self._alive):
            self._clean()

    def first(self) -> TrackedInstance | None:
        """Return the instance with the earliest time, or None if there is none."""
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

    def drop_first(self) -> TrackedInstance:
        """Remove and return the instance that `first` returned; `add` takes it back."""
        _, number, instance = heapq.heappop(self._entries)
        self._queued.discard(number)
        return instance

    def bound(self) -> float | None:
        """Return a time not later than that of the first, or None if there is none.

        Much cheaper than `first`.
        """
        return self._entries[0][0] if self._entries else None

    def _clean(self) -> None:
        """Drop entries of instances that no longer belong here, which may be far from the top."""
        self._entries = [entry for entry in self._entries if self._time_of(entry[2]) is not None]
        self._queued = {entry[1] for entry in self._entries}
        heapq.heapify(self._entries)


class IdleQueue:
    """Ready instances without tasks, the longest idle first.

    Some of them are *closed*: only the reservations that existed when they were
    closed still count on them (`rules/removal.py`). A closed instance that gets a
    task, or changes in any other way, is open again.

    Attributes:
        closed: the closed instances by id, each with its free slots.
        closed_slots: the sum of these. Every reservation reads it.
    """

    __slots__ = ("_queue", "closed", "closed_slots")

    def __init__(self, alive: Sized) -> None:
        self.closed: dict[str, int] = {}
        self.closed_slots = 0
        self._queue = AgeQueue(_idle_since, alive)

    def add(self, instance: TrackedInstance) -> None:
        """Add an instance if it is idle. Idempotent."""
        self._queue.add(instance)

    def first(self) -> TrackedInstance | None:
        """Return the open instance that is idle the longest, or None if there is none."""
        return self._queue.first()

    def bound(self) -> float | None:
        """Return a time at or before that since which the first is idle; None without one."""
        return self._queue.bound()

    def close_first(self) -> None:
        """Close the instance that `first` returned."""
        instance = self._queue.drop_first()
        self.closed[instance.id] = instance.available
        self.closed_slots += instance.available

    def open(self, instance: TrackedInstance) -> None:
        """Open an instance again if it was closed."""
        slots = self.closed.pop(instance.id, None)
        if slots is not None:
            self.closed_slots -= slots
            self._queue.add(instance)


def _idle_since(instance: TrackedInstance) -> float | None:
    return instance.idle_since if instance.usable and instance.vacant else None
