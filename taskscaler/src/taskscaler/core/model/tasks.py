"""What the tasks want and have: reservations, the queue, the slots they hold."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from taskscaler.core.model.group import Group
    from taskscaler.core.model.instance import Instance

__all__ = ("Tasks",)


class Tasks:
    """The claims of all tasks; each key has one of the four kinds at most.

    Attributes:
        reserved: keys with a reservation that is not used yet.
        older: those of them that were there when instances were last marked as parting.
        waiting: keys that wait for a slot, each with its place in the queue.
        held: keys that hold a slot, or held one on an instance that was lost.
        suspended: keys that are suspended, the longest suspended first.
        resuming: those of them that want to go on.
    """

    __slots__ = (
        "_first",
        "_last",
        "_queue",
        "held",
        "older",
        "reserved",
        "resuming",
        "suspended",
        "waiting",
    )

    def __init__(self) -> None:
        self.reserved: set[str] = set()
        self.older: set[str] = set()
        self.waiting: dict[str, int] = {}
        self.held: dict[str, tuple[Group, Instance]] = {}
        self.suspended: dict[str, tuple[Group, Instance]] = {}
        self.resuming: set[str] = set()
        # First come, first served. A task that was cancelled leaves its entry behind;
        # taking the first of a dict instead would look at all the deleted ones before it.
        self._queue: deque[tuple[str, int]] = deque()
        self._first = 0
        self._last = 0

    def __contains__(self, key: str) -> bool:
        return (
            key in self.reserved or key in self.waiting or key in self.held or key in self.suspended
        )

    def __iter__(self) -> Iterator[str]:
        """Return the waiting keys, the first to be served first."""
        return (key for key, place in self._queue if self.waiting.get(key) == place)

    def forget_reservation(self, key: str) -> bool:
        """Let a reservation go, if there is one; return whether instances part for its end."""
        self.reserved.discard(key)
        if key not in self.older:
            return False
        self.older.discard(key)
        return True

    def place(self, key: str) -> int | None:
        """Return how many tasks are served before and with this one; None if it does not wait."""
        number = self.waiting.get(key)
        if number is None:
            return None
        return sum(other <= number for other in self.waiting.values())

    def wait(self, key: str) -> None:
        """Put a task at the end of the queue."""
        self._last += 1
        self.waiting[key] = self._last
        self._queue.append((key, self._last))

    def wait_again(self, keys: Sequence[str]) -> None:
        """Put tasks whose slots fell through before they knew back at the front of the queue."""
        for key in reversed(keys):
            del self.held[key]
            self._first -= 1
            self.waiting[key] = self._first
            self._queue.appendleft((key, self._first))

    def forget_suspended(self, key: str) -> bool:
        """Forget a suspended task, and return whether it wanted to go on."""
        del self.suspended[key]
        resuming = key in self.resuming
        self.resuming.discard(key)
        return resuming

    def cancel(self, key: str) -> None:
        """Take a task out of the queue."""
        del self.waiting[key]
        # Dead entries must not outnumber the live ones for long.
        if len(self._queue) > 64 + 2 * len(self.waiting):
            self._queue = deque((one, self.waiting[one]) for one in self)

    def next(self) -> str:
        """Take the first task out of the queue; there must be one."""
        while True:
            key, place = self._queue.popleft()
            if self.waiting.get(key) == place:
                del self.waiting[key]
                return key
