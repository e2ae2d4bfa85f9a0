"""Read-only views of tasks and instances, for drivers."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from fleeting.types import State
from taskscaler.core.model.decisions import Rule
from taskscaler.core.model.lifecycle import Phase

if TYPE_CHECKING:
    from taskscaler.core.model.group import Group
    from taskscaler.core.model.instance import TrackedInstance
    from taskscaler.core.model.tasks import TaskBook

__all__ = ("InstanceView", "TaskStatus", "TaskView", "held", "instance", "kept", "task")


class TaskStatus(enum.Enum):
    """The kinds of claims that a task can have."""

    RESERVED = "has a reservation"
    WAITING = "waits for a slot"
    UNCONFIRMED = "has a slot on an instance that is being checked"
    HOLDING = "holds a slot"
    LOST = "lost its slot, and has not released it"
    SUSPENDED = "is suspended"
    RESUMING = "waits to be resumed"


class TaskView(msgspec.Struct, frozen=True, gc=False):
    """The state of a task.

    Attributes:
        key: the task's.
        status: what it wants or has.
        group: the id of the group of its instance; empty without one.
        instance: the id of its instance; empty without one.
        phase: the phase of that instance; None without one.
        slot: the number of its slot; None without one.
        since: since when it is suspended; None if it is not.
    """

    key: str
    status: TaskStatus
    group: str = ""
    instance: str = ""
    phase: Phase | None = None
    slot: int | None = None
    since: datetime | None = None


class InstanceView(msgspec.Struct, frozen=True, gc=False):
    """The state of an instance.

    Attributes:
        group: the id of its group.
        id: its id in the group.
        incarnation: tells it from a later instance of the same id; None if not known.
        phase: where it is in its life.
        created_at: when it was first seen.
        ready_at: when it could first take a task; None if it could not yet.
        rule: the rule by which it was dismissed; None if it was not.
        reason: the same, human-readable; empty if it is not.
        used: how many tasks were started on it.
        available: how many tasks it could take now.
        deleting: whether the cloud reports that it removes the instance.
    """

    group: str
    id: str
    incarnation: str | None
    phase: Phase
    created_at: datetime
    ready_at: datetime | None
    rule: Rule | None
    reason: str
    used: int
    available: int
    deleting: bool = False


def task(tasks: TaskBook, key: str) -> TaskView | None:
    """Return the state of a task; None if its key is not in use."""
    if key in tasks.waiting:
        return TaskView(key, TaskStatus.WAITING)
    if (place := tasks.held.get(key)) is not None:
        return held(key, place)
    if (place := tasks.suspended.get(key)) is not None:
        return kept(tasks, key, place)
    return TaskView(key, TaskStatus.RESERVED) if key in tasks.reserved else None


def held(key: str, place: tuple[Group, TrackedInstance]) -> TaskView:
    """Return the view of a task that holds a slot, or has not released a lost one."""
    group, one = place
    slot = one.tasks.get(key)
    if slot is None:
        status = TaskStatus.LOST
    elif key in one.unconfirmed:
        status = TaskStatus.UNCONFIRMED
    else:
        status = TaskStatus.HOLDING
    return TaskView(key, status, group.name, one.id, one.phase, slot)


def kept(tasks: TaskBook, key: str, place: tuple[Group, TrackedInstance]) -> TaskView:
    """Return the view of a suspended task."""
    group, one = place
    status = TaskStatus.RESUMING if key in tasks.resuming else TaskStatus.SUSPENDED
    suspension = one.suspended[key]
    return TaskView(key, status, group.name, one.id, one.phase, suspension.slot, suspension.since)


def instance(one: TrackedInstance) -> InstanceView:
    """Return the view of an instance."""
    return InstanceView(
        one.group,
        one.id,
        one.incarnation,
        one.phase,
        one.created_at,
        one.ready_at,
        one.departure.rule if one.departure else None,
        one.departure.reason if one.departure else "",
        one.used,
        one.available,
        one.state is State.DELETING,
    )
