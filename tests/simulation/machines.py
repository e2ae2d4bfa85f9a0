"""One instance and one request, as the books know them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fleeting.types import State

if TYPE_CHECKING:
    from datetime import datetime

    from taskscaler.core import InstanceRecord, Rule

__all__ = ("NEVER", "Machine", "Request")

NEVER = float("-inf")


@dataclass(slots=True)
class Machine:
    """One instance, as the books know it.

    Attributes:
        group: the id of its group.
        id: its id.
        seen_at: when this life of the manager first knew of it, in monotonic seconds.
        born: when it was first seen by any life, as wall time.
        state: what the newest listing says.
        incarnation: the same.
        listed: whether the newest listing has it.
        record: its newest record; None for a stranger.
        preparing: whether the outcome of its preparation is awaited.
        ready: whether it was prepared, and not suspended since.
        idle_since: when a task last left it, or it became ready.
        proven_at: when it last showed that it works.
        checking: whether the outcome of a check is awaited.
        checked_at: when its last check ended.
        failures: failed checks in a row.
        failing_since: when the first of them ended.
        causes: the names of the events that are a reason to remove it.
        restored: whether an earlier life knew it.
        strange: whether no request could have brought it when it was first listed.
    """

    group: str
    id: str
    seen_at: float
    born: datetime
    state: State = State.UNKNOWN
    incarnation: str | None = None
    listed: bool = False
    record: InstanceRecord | None = None
    preparing: bool = False
    ready: bool = False
    idle_since: float = NEVER
    proven_at: float = NEVER
    checking: bool = False
    checked_at: float = NEVER
    failures: int = 0
    failing_since: float = NEVER
    causes: set[str] = field(default_factory=set[str])
    restored: bool = False
    strange: bool = False

    @property
    def rule(self) -> Rule | None:
        """Return why it goes; None if it stays."""
        return None if self.record is None else self.record.rule

    @property
    def serves(self) -> bool:
        """Return whether a task may get a slot on it."""
        return self.ready and self.rule is None and not self.failures


@dataclass(slots=True)
class Request:
    """One request for instances.

    Attributes:
        group: the id of the group.
        asked: when, in monotonic seconds.
        count: how many instances it may bring.
        seen: how many of them have come.
        settled: whether its answer has come.
        names: the ids that its answer named; None if it may bring others.
    """

    group: str
    asked: float
    count: int
    seen: int = 0
    settled: bool = False
    names: frozenset[str] | None = None
