"""What comes to be done, and when: drawn from chance, or as it once was."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from taskscaler.simulation._models import Delay
    from taskscaler.storage._abc import TaskEntry

__all__ = ("Arrival", "arrivals", "replay", "working_hours")

HOUR_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """One task that comes.

    Attributes:
        at_seconds: when, from the beginning of the simulation.
        runs_seconds: how long it holds its slot.
        reserves_seconds: how long before it asks it makes a reservation; None if it
            makes none.
        patience_seconds: how long it waits for a slot.
        pause_seconds: how long it is suspended half-way; None if it is not.
        leaves: whether it gives its reservation back instead of asking.
    """

    at_seconds: float
    runs_seconds: float
    reserves_seconds: float | None = None
    patience_seconds: float = math.inf
    pause_seconds: float | None = None
    leaves: bool = False


def working_hours(at: datetime) -> float:
    """Return how busy a moment is, on average 1: by day more than by night or at weekends."""
    if at.weekday() >= 5:
        return 0.3
    return 2.6 if 8 <= at.hour < 18 else 0.37


def arrivals(
    per_hour: float,
    runs: Delay,
    *,
    start: datetime,
    length: timedelta,
    seed: str,
    shape: Callable[[datetime], float] | None = None,
) -> Iterator[Arrival]:
    """Yield tasks that come independently of each other.

    Args:
        per_hour: how many on average.
        runs: how long they run.
        start: the wall time of the beginning; for `shape`.
        length: of the time in which they come.
        seed: where chance comes from.
        shape: how busy each hour is, relative to the average; None is always the same.
    """
    chance = Random(seed)
    at, end = 0.0, length.total_seconds()
    if per_hour <= 0:
        return
    for hour in itertools.count():
        rate = per_hour * (shape(start + timedelta(hours=hour)) if shape else 1.0) / HOUR_SECONDS
        limit = (hour + 1) * HOUR_SECONDS
        while rate > 0:
            at += chance.expovariate(rate)
            if at >= limit:
                break
            if at >= end:
                return
            yield Arrival(at, runs.draw(chance))
        at = limit
        if at >= end:
            return


def replay(entries: Iterable[TaskEntry]) -> Iterator[Arrival]:
    """Yield the tasks of a recorded history as they came, each running as long as it did.

    TaskPlayer that never got a slot come, and wait as long as they did then. The first one
    comes at the beginning.

    Args:
        entries: in any order.
    """
    ordered = sorted(entries, key=lambda entry: (entry.asked_at, entry.key))
    for entry in ordered:
        at = (entry.asked_at - ordered[0].asked_at).total_seconds()
        if entry.granted_at is None:
            waited = (entry.ended_at - entry.asked_at).total_seconds()
            yield Arrival(at, 0.0, patience_seconds=waited)
        else:
            yield Arrival(at, (entry.ended_at - entry.granted_at).total_seconds())
