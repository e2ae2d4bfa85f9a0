"""Increases whose instances have not all been seen yet.

An instance that appears is set against the operation whose answer named it, or,
because most clouds do not say which request it came from, against the oldest
that still waits for one. An operation whose answer was lost stays open with its
full count: assuming that everything may still come can delay, assuming that
nothing will can exceed the limit. What a listing still does not show when the
creation timeout is over is written off, except what it says is pending; without
a listing nothing is, however long that takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskscaler.core.model.records import OperationRecord

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

__all__ = ("Operation", "Operations")


class Operation:
    """One request for more instances.

    Attributes:
        id: names it for ever.
        expected: how many instances it may bring; what was asked, then what was accepted.
        seen: how many have appeared.
        asked: when, in monotonic seconds.
        asked_at: the same as wall time.
        settled: whether its answer has come.
        names: the ids of its instances that have not appeared, if the answer said so.
        strangers: the ids of the instances that were there before it, and are not ours.
    """

    __slots__ = ("asked", "asked_at", "expected", "id", "names", "seen", "settled", "strangers")

    def __init__(self, id: str, count: int, asked: float, asked_at: datetime) -> None:
        self.id = id
        self.expected = count
        self.seen = 0
        self.asked = asked
        self.asked_at = asked_at
        self.settled = False
        self.names: set[str] = set()
        self.strangers: tuple[str, ...] = ()

    @property
    def outstanding(self) -> int:
        """Return how many instances it may still bring."""
        return max(0, self.expected - self.seen)

    def record(self, group: str) -> OperationRecord:
        """Return what must survive of it."""
        return OperationRecord(group, self.id, self.outstanding, self.asked_at, self.strangers)


class Operations:
    """The operations of one group that are not done, the oldest first."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[str, Operation] = {}

    @property
    def outstanding(self) -> int:
        """Return how many instances may still come of all of them."""
        if not self._open:  # As nearly always.
            return 0
        return sum(operation.outstanding for operation in self._open.values())

    @property
    def unanswered(self) -> bool:
        """Return whether the answer to any of them is awaited."""
        return any(not operation.settled for operation in self._open.values())

    @property
    def newest(self) -> Operation:
        """Return the one that was asked for last; there must be one."""
        return next(reversed(self._open.values()))

    def overdue(self, now: float, patience: float) -> int:
        """Return how many instances were asked for that long ago and have not been seen.

        Args:
            now: monotonic seconds.
            patience: seconds.
        """
        late = (one for one in self._open.values() if one.asked + patience <= now)
        return sum(operation.outstanding for operation in late)

    def overdue_at(self, now: float, patience: float) -> float | None:
        """Return when `overdue` may next grow, in monotonic seconds; None if it will not."""
        times = (one.asked + patience for one in self._open.values())
        return next((at for at in times if at > now), None)

    def __contains__(self, id: str) -> bool:
        return id in self._open

    def __len__(self) -> int:
        return len(self._open)

    def add(self, operation: Operation) -> None:
        """Take up a new one."""
        self._open[operation.id] = operation

    def expected(self, id: str) -> int:
        """Return how many instances an open operation may bring in all."""
        return self._open[id].expected

    def settle(self, id: str, accepted: int | None, names: Iterable[str] = ()) -> Operation:
        """Take note of an answer.

        Args:
            id: of an operation that is open.
            accepted: how many instances will come; None if the answer was lost.
            names: their ids, if the answer told.
        """
        operation = self._open[id]
        operation.settled = True
        operation.names.update(names)
        if accepted is not None:
            operation.expected = accepted
        return self._close_if_done(operation)

    def claim(self, id: str) -> Operation | None:
        """Set a new instance against the operation that it came from, if there can be one."""
        named = next((one for one in self._open.values() if id in one.names), None)
        waiting = (one for one in self._open.values() if one.outstanding > len(one.names))
        operation = named or next(waiting, None)
        if operation is None:
            return None
        operation.names.discard(id)
        operation.seen += 1
        return self._close_if_done(operation)

    def has_named(self, id: str) -> bool:
        """Return whether an answer named this instance, which has not appeared yet."""
        return any(id in operation.names for operation in self._open.values())

    def fail(self, count: int) -> list[Operation]:
        """Take note that so many accepted instances will not come; return what changed."""
        changed: list[Operation] = []
        for operation in [one for one in self._open.values() if one.settled]:
            lost = min(count, operation.outstanding)
            if lost:
                count -= lost
                operation.expected -= lost
                operation.names.clear()
                changed.append(self._close_if_done(operation))
        return changed

    def write_off(self, before: float, pending: int) -> dict[Operation, int]:
        """Give up what was asked for before this moment, answered since, and never seen.

        Args:
            before: monotonic seconds.
            pending: how many instances the cloud still means to create; so many are
                kept, of the oldest operations.

        Returns:
            The operations that changed, with how many instances each has lost.
        """
        lost: dict[Operation, int] = {}
        for operation in list(self._open.values()):
            if not operation.settled or operation.asked > before:
                continue
            kept = min(pending, operation.outstanding)
            pending -= kept
            if kept < operation.outstanding:
                lost[operation] = operation.outstanding - kept
                operation.expected -= lost[operation]
                operation.names.clear()
                self._close_if_done(operation)
        return lost

    def is_open(self, operation: Operation) -> bool:
        """Return whether more is expected of it."""
        return operation.id in self._open

    def _close_if_done(self, operation: Operation) -> Operation:
        if operation.settled and not operation.outstanding:
            del self._open[operation.id]
        return operation
