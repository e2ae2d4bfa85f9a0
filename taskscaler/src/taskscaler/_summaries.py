"""The reports of a scaler about itself, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskscaler.core import Life

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from taskscaler.core import ScalerState
    from taskscaler.core.model.instance import Instance

__all__ = (
    "Capacity",
    "InstanceSummary",
    "SuspendedTask",
    "capacity",
    "instances",
    "removable",
    "suspended",
)


@dataclass(frozen=True, slots=True)
class Capacity:
    """Instances, slots and tasks of a scaler at one moment, counted.

    Attributes:
        instances: how many are in each life (`creating`, `preparing`, `ready`,
            `draining`, `removing`, `foreign`).
        slots_used: slots that tasks hold.
        slots_total: slots on instances that serve tasks.
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
    """The history of one instance until now.

    Attributes:
        id: its id in its group.
        group: the id of the group.
        created_at: when it was first seen.
        ready_at: when it could first take a task; None if it never could.
        removed_at: when it was found gone; None if it still exists.
        removal_reason: why it was or will be removed; None while it stays.
        tasks: how many tasks were started on it.
    """

    id: str
    group: str
    created_at: datetime
    ready_at: datetime | None
    removed_at: datetime | None
    removal_reason: str | None
    tasks: int


@dataclass(frozen=True, slots=True)
class SuspendedTask:
    """A task that was suspended and can be resumed.

    Attributes:
        key: the task's.
        group: the id of the group of its instance.
        instance: the id of its instance.
        slot: the number of the slot that is kept for it.
        since: when it was suspended.
    """

    key: str
    group: str
    instance: str
    slot: int
    since: datetime


def capacity(state: ScalerState) -> Capacity:
    """Return the counts of now."""
    standing = state.standing()
    demand = standing.demand
    return Capacity(
        instances=standing.lives,
        slots_used=demand.acquired,
        slots_total=demand.acquired + demand.free + demand.unavailable,
        waiting=demand.waiting,
        reserved=demand.reserved,
    )


def instances(state: ScalerState) -> Iterator[InstanceSummary]:
    """Yield the instances of a scaler that exist."""
    for group in state.groups.values():
        yield from (_summary(group.name, one) for one in group.ours())


def removable(state: ScalerState) -> Iterator[InstanceSummary]:
    """Yield the instances that a shutdown must remove and has not removed yet."""
    for group in state.groups.values():
        yield from (
            _summary(group.name, one) for one in group.ours() if one.life is not Life.SUSPENDED
        )


def suspended(state: ScalerState) -> tuple[SuspendedTask, ...]:
    """Return the tasks that are suspended, the longest suspended first."""
    tasks: list[SuspendedTask] = []
    for key, (group, instance) in state.tasks.suspended.items():
        kept = instance.suspended[key]
        tasks.append(SuspendedTask(key, group.name, instance.id, kept.slot, kept.since))
    return tuple(tasks)


def _summary(group: str, one: Instance) -> InstanceSummary:
    return InstanceSummary(
        one.id, group, one.created_at, one.ready_at, None, one.reason or None, one.used
    )
