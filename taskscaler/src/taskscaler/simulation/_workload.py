"""The tasks of a simulation: random, or recorded."""

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
    """One task.

    Attributes:
        at_seconds: when it arrives, from the beginning of the simulation.
        runs_seconds: how long it holds its slot.
        reserves_seconds: how long before its arrival it makes a reservation; None for no
            reservation.
        patience_seconds: how long it waits for a slot.
        pause_seconds: how long it is suspended half-way; None if it is not suspended.
        leaves: whether it gives back its reservation instead of asking for a slot.
    """

    at_seconds: float
    runs_seconds: float
    reserves_seconds: float | None = None
    patience_seconds: float = math.inf
    pause_seconds: float | None = None
    leaves: bool = False


def working_hours(at: datetime) -> float:
    """Return the load at a moment, on average 1: higher by day than at night or weekends."""
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
    """Yield tasks that arrive independently of each other (a Poisson process).

    Args:
        per_hour: the average number of tasks per hour.
        runs: how long each task runs.
        start: the wall time of the beginning; for `shape`.
        length: the time in which tasks arrive.
        seed: the seed of the random numbers.
        shape: the load of each hour relative to the average; None for a constant load.
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
    """Yield the tasks of a recorded history, with the arrival and run times that they had.

    A task that never got a slot waits as long as it did then. The first task arrives at
    the beginning.

    Args:
        entries: the recorded tasks, in any order.
    """
    # Of a task that ran when its process was killed, no time is known.
    known = [(entry.asked_at, entry) for entry in entries if entry.asked_at is not None]
    known.sort(key=lambda pair: (pair[0], pair[1].key))
    for asked_at, entry in known:
        at = (asked_at - known[0][0]).total_seconds()
        if entry.granted_at is None:
            waited = (entry.ended_at - asked_at).total_seconds()
            yield Arrival(at, 0.0, patience_seconds=waited)
        else:
            yield Arrival(at, (entry.ended_at - entry.granted_at).total_seconds())
