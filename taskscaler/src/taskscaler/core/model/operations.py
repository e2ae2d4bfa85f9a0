"""Increases whose instances have not all been seen yet.

An instance that appears is counted for the operation whose answer named it. Most
clouds do not say which request an instance came from; then it counts for the
oldest operation that still waits for one. An operation whose answer was lost, and
whose provider cannot tell what came of it, stays open with its full count: to assume
that nothing will come can exceed the limit. Instances that no listing has shown by the
creation timeout are written off, except those that the listing calls pending. Without
a listing nothing is written off, however long that takes.

Some instances are *unlikely*: they count against the limits and are ours if they come,
but nothing waits for them. One is left where another instance was only probably the
one that was requested, and where the provider says that a request whose answer was
lost created fewer instances.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskscaler.core.model.records import OperationRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

__all__ = ("Operation", "Operations")


class Operation:
    """One request for more instances.

    Attributes:
        id: its unique name.
        expected: how many instances it may bring: the requested, then the accepted count.
        seen: how many have appeared.
        seen_before: how many of its instances a previous process saw, in addition.
        unlikely: how many more may come, although nothing waits for them.
        asked: when it was requested, in monotonic seconds.
        asked_at: the same as wall time.
        settled: whether its answer has come.
        lost: whether the answer was lost, and what came of it is not known.
        names: ids that its answer named and that have not appeared.
        strangers: ids of the foreign instances that existed before it.
    """

    __slots__ = (
        "asked",
        "asked_at",
        "expected",
        "id",
        "lost",
        "names",
        "seen",
        "seen_before",
        "settled",
        "strangers",
        "unlikely",
    )

    def __init__(
        self,
        id: str,
        count: int,
        asked: float,
        asked_at: datetime,
        strangers: tuple[str, ...] = (),
    ) -> None:
        self.id = id
        self.expected = count
        self.seen = 0
        self.seen_before = 0
        self.unlikely = 0
        self.asked = asked
        self.asked_at = asked_at
        self.settled = False
        self.lost = False
        self.names: set[str] = set()
        self.strangers = strangers

    @property
    def outstanding(self) -> int:
        """Return how many instances it is still expected to bring."""
        return max(0, self.expected - self.seen)

    def record(self, group: str) -> OperationRecord:
        """Return the part of it that must survive a restart."""
        return OperationRecord(
            group,
            self.id,
            self.outstanding,
            self.asked_at,
            self.strangers,
            self.seen_before + self.seen,
            self.unlikely,
            answered=self.settled and not self.lost,
        )

    @classmethod
    def restored(cls, record: OperationRecord, now: float) -> Operation:
        """Return the operation of a record, as if it had been requested now.

        Args:
            record: what a previous process stored.
            now: monotonic seconds.
        """
        operation = cls(record.id, record.count, now, record.asked_at, record.strangers)
        operation.seen_before = record.seen
        operation.unlikely = record.unlikely
        operation.settled = record.answered
        return operation


class Operations:
    """The open operations of one group, the oldest first."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[str, Operation] = {}

    @property
    def outstanding(self) -> int:
        """Return how many instances all of them are still expected to bring."""
        if not self._open:  # As nearly always.
            return 0
        return sum(operation.outstanding for operation in self._open.values())

    @property
    def unlikely(self) -> int:
        """Return how many more instances may come, although nothing waits for them."""
        return sum(operation.unlikely for operation in self._open.values()) if self._open else 0

    @property
    def unanswered(self) -> bool:
        """Return whether any answer is awaited."""
        return any(not operation.settled for operation in self._open.values())

    @property
    def newest(self) -> Operation:
        """Return the newest one; there must be one."""
        return next(reversed(self._open.values()))

    def overdue(self, now: float, patience: float) -> int:
        """Return how many instances were requested that long ago and have not been seen.

        Args:
            now: monotonic seconds.
            patience: seconds.
        """
        return sum(operation.outstanding for operation in self._late(now, patience))

    def lost(self, now: float, patience: float) -> int:
        """Return how many of the overdue ones belong to requests whose answer was lost."""
        return sum(one.outstanding for one in self._late(now, patience) if one.lost)

    def overdue_at(self, now: float, patience: float) -> float:
        """Return when `overdue` may grow next, in monotonic seconds."""
        times = (one.asked + patience for one in self._open.values())
        return next((at for at in times if at > now), float("inf"))

    def __contains__(self, id: str) -> bool:
        return id in self._open

    def add(self, operation: Operation) -> None:
        """Open an operation."""
        self._open[operation.id] = operation

    def expected(self, id: str) -> int:
        """Return how many instances an open operation may bring in total."""
        return self._open[id].expected

    def left(self, id: str, count: int | None) -> int | None:
        """Return how many instances a restored operation still brings if it creates so many."""
        operation = self._open[id]
        if count is None:
            return None
        coming = max(0, count - operation.seen_before - operation.seen)
        return operation.seen + min(coming, operation.outstanding)

    def settle(
        self, id: str, accepted: int | None, names: Iterable[str] = (), *, told: bool = False
    ) -> Operation:
        """Record an answer, and return the operation.

        Args:
            id: the id of an open operation.
            accepted: how many instances will come; None if that is not known.
            names: their ids, if the answer named them.
            told: whether the answer was lost, and the provider told later.
        """
        operation = self._open[id]
        operation.settled = True
        operation.lost = accepted is None
        operation.names.update(names)
        if accepted is not None:
            if told:
                operation.unlikely += max(0, operation.expected - accepted)
            operation.expected = accepted
        return self._close_if_done(operation)

    def claim(self, id: str, *, likely: bool = False) -> Operation | None:
        """Count a new instance for its operation, and return that; None if there is none.

        Args:
            id: the id of the instance.
            likely: whether it is only probably the one that was requested, unless it was
                named. Another one may come then.
        """
        every = self._open.values()
        named = next((one for one in every if id in one.names), None)
        waiting = next((one for one in every if one.outstanding > len(one.names)), None)
        operation = named or waiting
        if operation is not None:
            operation.seen += 1
            operation.unlikely += likely and named is None
        else:
            operation = next((one for one in every if one.unlikely), None)
            if operation is None or likely:
                return None
            operation.unlikely -= 1
        operation.names.discard(id)
        return self._close_if_done(operation)

    def has_named(self, id: str) -> bool:
        """Return whether an answer named this instance and it has not appeared yet."""
        return any(id in operation.names for operation in self._open.values())

    def fail(self, count: int) -> list[Operation]:
        """Expect so many accepted instances no longer; return the operations that changed."""
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
        """Write off instances that were requested long ago, accepted, and never seen.

        Args:
            before: only operations requested until then, in monotonic seconds.
            pending: how many instances the cloud still intends to create; as many are
                kept, of the oldest operations.

        Returns:
            The operations that changed, each with the number of its lost instances, which
            is 0 if only unlikely ones were written off.
        """
        lost: dict[Operation, int] = {}
        for operation in list(self._open.values()):
            if not operation.settled or operation.asked > before:
                continue
            kept = min(pending, operation.outstanding)
            pending -= kept
            if kept < operation.outstanding or operation.unlikely:
                lost[operation] = operation.outstanding - kept
                operation.expected -= lost[operation]
                operation.unlikely = 0
                operation.names.clear()
                self._close_if_done(operation)
        return lost

    def is_open(self, operation: Operation) -> bool:
        """Return whether an operation is open still."""
        return operation.id in self._open

    def _late(self, now: float, patience: float) -> Iterator[Operation]:
        return (one for one in self._open.values() if one.asked + patience <= now)

    def _close_if_done(self, operation: Operation) -> Operation:
        if operation.settled and not operation.outstanding and not operation.unlikely:
            del self._open[operation.id]
        return operation
