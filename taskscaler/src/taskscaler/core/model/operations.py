"""Increases whose instances have not all been seen yet.

An instance that appears is counted for the operation whose answer named it. Most
clouds do not say which request an instance came from; then it counts for the
oldest operation that still waits for one. An operation whose answer was lost stays
open with its full count: to assume that everything may still come can cause a
delay, to assume that nothing will can exceed the limit. Instances that no listing
has shown by the creation timeout are written off, except those that the listing
calls pending. Without a listing nothing is written off, however long that takes.
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
        id: its unique name.
        expected: how many instances it may bring: the requested, then the accepted count.
        seen: how many have appeared.
        asked: when it was requested, in monotonic seconds.
        asked_at: the same as wall time.
        settled: whether its answer has come.
        names: ids that its answer named and that have not appeared.
        strangers: ids of the foreign instances that existed before it.
    """

    __slots__ = ("asked", "asked_at", "expected", "id", "names", "seen", "settled", "strangers")

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
        self.asked = asked
        self.asked_at = asked_at
        self.settled = False
        self.names: set[str] = set()
        self.strangers = strangers

    @property
    def outstanding(self) -> int:
        """Return how many instances it may still bring."""
        return max(0, self.expected - self.seen)

    def record(self, group: str) -> OperationRecord:
        """Return the part of it that must survive a restart."""
        return OperationRecord(group, self.id, self.outstanding, self.asked_at, self.strangers)


class Operations:
    """The open operations of one group, the oldest first."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[str, Operation] = {}

    @property
    def outstanding(self) -> int:
        """Return how many instances all of them may still bring."""
        if not self._open:  # As nearly always.
            return 0
        return sum(operation.outstanding for operation in self._open.values())

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
        late = (one for one in self._open.values() if one.asked + patience <= now)
        return sum(operation.outstanding for operation in late)

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

    def settle(self, id: str, accepted: int | None, names: Iterable[str] = ()) -> Operation:
        """Record an answer, and return the operation.

        Args:
            id: the id of an open operation.
            accepted: how many instances will come; None if the answer was lost.
            names: their ids, if the answer named them.
        """
        operation = self._open[id]
        operation.settled = True
        operation.names.update(names)
        if accepted is not None:
            operation.expected = accepted
        return self._close_if_done(operation)

    def claim(self, id: str) -> Operation | None:
        """Count a new instance for its operation, and return that; None if there is none."""
        named = next((one for one in self._open.values() if id in one.names), None)
        waiting = (one for one in self._open.values() if one.outstanding > len(one.names))
        operation = named or next(waiting, None)
        if operation is None:
            return None
        operation.names.discard(id)
        operation.seen += 1
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
            The operations that changed, each with the number of its lost instances.
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
        """Return whether an operation is open still."""
        return operation.id in self._open

    def _close_if_done(self, operation: Operation) -> Operation:
        if operation.settled and not operation.outstanding:
            del self._open[operation.id]
        return operation
