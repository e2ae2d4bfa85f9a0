"""The observations of one life of the manager, and the exception for a broken invariant."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fleeting.types import Instance

if TYPE_CHECKING:
    from taskscaler.core import Settings

__all__ = ("DecisionRate", "IncreaseStreak", "Observations", "Place", "Violation", "incarnation")

# A group and the id of an instance in it.
Place = tuple[str, str]

# A second with more decisions than this, plus two for each other event, is a busy loop.
MAX_DECISIONS = 25
# The increases without a ready instance that are never too many.
FREE_INCREASES = 40


class Violation(Exception):
    """An invariant does not hold.

    Attributes:
        invariant: its name.
        what: what was observed instead.
    """

    def __init__(self, invariant: str, what: str) -> None:
        self.invariant = invariant
        self.what = what
        super().__init__(f"{invariant}: {what}")


@dataclass
class Observations:
    """All that was observed in one life of the manager; a new life starts with none.

    A slot is given as group, id and number.

    Attributes:
        reserved: the tasks with a reservation.
        waiting: the tasks that wait for a slot.
        held: the slot of each task that has one.
        suspended: the slot of each suspended task.
        suspended_at: the monotonic seconds at which each task was suspended.
        delivered: the tasks that know their slot.
        resumed: the tasks that got their slot back and do not know it yet.
        taken: the task in each slot that is held or kept for a suspended task.
        ready: the instances that became ready, each with the monotonic seconds since which no
            task holds a slot there.
        leaving: the instances that are being removed.
        unhealthy: the instances that failed or will be interrupted.
        doomed: the instances that an earlier life had decided to remove.
        listed: the instances of the newest listing of each group, by id.
        first_listed: the monotonic seconds of the first listing with an instance.
        late: how many instances of each group may have been taken for requested ones that no
            listing has shown yet.
        missing: the number of listings in a row without a busy instance.
        closing: whether the scaler was told to shut down.
    """

    reserved: set[str] = field(default_factory=set[str])
    waiting: set[str] = field(default_factory=set[str])
    held: dict[str, tuple[str, str, int]] = field(default_factory=dict[str, tuple[str, str, int]])
    suspended: dict[str, tuple[str, str, int]] = field(
        default_factory=dict[str, tuple[str, str, int]]
    )
    suspended_at: dict[str, float] = field(default_factory=dict[str, float])
    delivered: set[str] = field(default_factory=set[str])
    resumed: set[str] = field(default_factory=set[str])
    taken: dict[Place, dict[int, str]] = field(default_factory=dict[Place, dict[int, str]])
    ready: dict[Place, float] = field(default_factory=dict[Place, float])
    leaving: set[Place] = field(default_factory=set[Place])
    unhealthy: set[Place] = field(default_factory=set[Place])
    doomed: set[Place] = field(default_factory=set[Place])
    listed: dict[str, dict[str, Instance]] = field(default_factory=dict[str, dict[str, Instance]])
    first_listed: dict[Place, float] = field(default_factory=dict[Place, float])
    late: dict[str, int] = field(default_factory=dict[str, int])
    missing: dict[Place, int] = field(default_factory=dict[Place, int])
    closing: bool = False


def incarnation(seen: Observations, group: str, id: str) -> str | None:
    """Return the incarnation of an instance in the newest listing of its group."""
    one = seen.listed.get(group, {}).get(id)
    return None if one is None else one.incarnation


class DecisionRate:
    """Counts the decisions of each second: a decision must not cause the next one."""

    def __init__(self) -> None:
        self._second = 0
        self._decisions = 0
        self._events_before = 0

    def decided(self, seconds: float, events: int) -> None:
        """Count a decision.

        Args:
            seconds: the monotonic time.
            events: the number of events before it, decisions included.
        """
        if int(seconds) != self._second:
            self._second, self._decisions, self._events_before = int(seconds), 0, events
        others = events - self._events_before - self._decisions
        self._decisions += 1
        if self._decisions > MAX_DECISIONS + 2 * others:
            raise Violation("rest", f"{self._decisions} decisions in one second")


class IncreaseStreak:
    """Counts the increases of a group since one of its instances last became ready."""

    def __init__(self, seconds: float, requests: int) -> None:
        self._count = 0
        self._since = seconds
        self._requests_before = requests

    def increased(self, seconds: float, requests: int, settings: Settings) -> None:
        """Count an increase.

        Args:
            seconds: the monotonic time.
            requests: the number of reservations and requests for slots before it.
            settings: the settings in force.
        """
        self._count += 1
        pauses = (seconds - self._since) / settings.backoff_limit.total_seconds()
        requests -= self._requests_before
        if self._count > FREE_INCREASES + 2 * requests + 2 * pauses:
            raise Violation("I9", f"{self._count} increases, and no instance became ready")
