"""A recorded history becomes the workload of a simulation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from taskscaler.simulation import Arrival, replay
from taskscaler.storage import TaskEntry

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """Return a moment after noon."""
    return NOON + timedelta(seconds=seconds)


def test_recorded_tasks_arrive_as_they_did() -> None:
    """In their order; one without a slot waits as long, one without known times is left out."""
    entries = [
        TaskEntry("late", at(5), None, at(9), outcome="timed out"),
        TaskEntry("killed", None, None, at(6), "g", "i", "lost"),
        TaskEntry("first", at(0), at(1), at(4), "g", "i"),
    ]
    assert list(replay(entries)) == [Arrival(0, 3), Arrival(5, 0, patience_seconds=4)]
