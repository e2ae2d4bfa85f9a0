"""What a scaler tells about itself: plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

__all__ = ("Capacity", "InstanceSummary")


@dataclass(frozen=True, slots=True)
class Capacity:
    """How much there is of everything at one moment.

    Attributes:
        instances: how many are in each life (`creating`, `preparing`, `ready`,
            `draining`, `removing`, `foreign`).
        slots_used: slots that tasks hold.
        slots_total: slots on instances that serve.
        waiting: tasks that wait for a slot.
        reserved: reservations that no task has used yet.
    """

    instances: Mapping[str, int]
    slots_used: int
    slots_total: int
    waiting: int
    reserved: int


@dataclass(frozen=True, slots=True)
class InstanceSummary:
    """The life of one instance so far.

    Attributes:
        id: its id in its group.
        group: the id of the group.
        created_at: when it was first seen.
        ready_at: when it could first take a task; None if it could not yet.
        removed_at: when it was found gone; None if it is there.
        removal_reason: why it went, or is to go; None as long as it is to stay.
        tasks: how many tasks were started on it.
    """

    id: str
    group: str
    created_at: datetime
    ready_at: datetime | None
    removed_at: datetime | None
    removal_reason: str | None
    tasks: int
