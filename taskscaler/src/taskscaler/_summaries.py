"""The reports of a scaler about itself, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskscaler.core import Phase

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from taskscaler.core import InstanceView, ScalerState

__all__ = (
    "Capacity",
    "InstanceSummary",
    "SuspendedTask",
    "capacity",
    "foreign",
    "instances",
    "leaving",
    "removable",
    "suspended",
)

# A shutdown does not remove the instances in these phases.
STAY = (Phase.FOREIGN, Phase.SUSPENDED)


@dataclass(frozen=True, slots=True)
class Capacity:
    """Instances, slots and tasks of a scaler at one moment, counted.

    Attributes:
        instances: how many are in each phase (`creating`, `preparing`, `ready`,
            `draining`, `suspending`, `suspended`, `resuming`, `removing`, `foreign`).
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
        instances=standing.phases,
        slots_used=demand.acquired,
        slots_total=demand.acquired + demand.free + demand.unavailable,
        waiting=demand.waiting,
        reserved=demand.reserved,
    )


def instances(state: ScalerState) -> Iterator[InstanceSummary]:
    """Yield the instances of a scaler that exist."""
    yield from (_summary(one) for one in state.instances() if one.phase is not Phase.FOREIGN)


def removable(state: ScalerState) -> Iterator[InstanceSummary]:
    """Yield the instances that a shutdown must remove, and whose removal has not begun.

    The cloud cannot take back a removal that has begun, but may take long to end it, for example
    because of a lifecycle hook.
    """
    left = (one for one in state.instances() if one.phase not in STAY and not one.deleting)
    yield from (_summary(one) for one in left)


def leaving(state: ScalerState) -> tuple[str, ...]:
    """Return the names of the instances that the cloud is still removing."""
    left = (one for one in state.instances() if one.phase not in STAY and one.deleting)
    return tuple(f"{one.group}/{one.id}" for one in left)


def foreign(state: ScalerState) -> tuple[str, ...]:
    """Return the names of the instances that the scaler did not create and leaves alone."""
    every = (one for one in state.instances() if one.phase is Phase.FOREIGN and not one.deleting)
    return tuple(f"{one.group}/{one.id}" for one in every)


def suspended(state: ScalerState) -> tuple[SuspendedTask, ...]:
    """Return the tasks that are suspended, the longest suspended first."""
    return tuple(
        SuspendedTask(one.key, one.group, one.instance, one.slot, one.since)
        for one in state.suspended()
        if one.slot is not None and one.since is not None
    )


def _summary(one: InstanceView) -> InstanceSummary:
    return InstanceSummary(
        one.id, one.group, one.created_at, one.ready_at, None, one.reason or None, one.used
    )
