"""What happened: the only way to tell the core anything.

Events and effects are `msgspec.Struct`s rather than dataclasses because making
one is what the core does most, and a struct is made several times faster. They
are never part of a reference cycle, so the garbage collector need not look at
them (`gc=False`).
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from fleeting.errors import ProviderError
from fleeting.types import Accepted, Listing
from taskscaler.core.model.records import Record
from taskscaler.core.model.settings import Settings

__all__ = (
    "DecreaseSettled",
    "DrainAsked",
    "Event",
    "HealthFailed",
    "HealthPassed",
    "IncreaseSettled",
    "InstanceBroke",
    "InstancePrepared",
    "InterruptionAnnounced",
    "ListingArrived",
    "ListingFailed",
    "Now",
    "PreparationFailed",
    "RecordsRestored",
    "ResumeSettled",
    "SettingsChanged",
    "ShutdownAsked",
    "SuspendSettled",
    "SuspendedTaskDropped",
    "TaskAsked",
    "TaskCancelled",
    "TaskReleased",
    "TaskReserved",
    "TaskResumed",
    "TaskSuspended",
    "TaskUnreserved",
    "TimePassed",
)


class Now(msgspec.Struct, frozen=True, gc=False):
    """The time at which something happened.

    Attributes:
        monotonic: seconds on a clock that never jumps, for deadlines and intervals.
        wall: aware, for periods and for everything that is stored or shown.
    """

    monotonic: float
    wall: datetime


class Event(msgspec.Struct, frozen=True, gc=False):
    """The base of all events."""


class TaskReserved(Event, frozen=True, gc=False):
    """A task that does not exist yet wants to be sure of a slot."""

    key: str


class TaskUnreserved(Event, frozen=True, gc=False):
    """The reservation is not needed after all."""

    key: str


class TaskAsked(Event, frozen=True, gc=False):
    """A task wants a slot now; its reservation, if it has one, is used up by that."""

    key: str


class TaskCancelled(Event, frozen=True, gc=False):
    """A task that waits for a slot does so no longer."""

    key: str


class TaskReleased(Event, frozen=True, gc=False):
    """A task gives its slot back, or acknowledges that it lost it."""

    key: str


class ListingArrived(Event, frozen=True, gc=False):
    """A group reported all of its instances."""

    group: str
    listing: Listing


class ListingFailed(Event, frozen=True, gc=False):
    """A group did not report; what was known of it stays."""

    group: str
    error: ProviderError


class IncreaseSettled(Event, frozen=True, gc=False):
    """A request for more instances was answered, wholly, partly or with a refusal.

    Attributes:
        unknown: the answer was lost, so `accepted` says nothing.
    """

    group: str
    operation: str
    accepted: Accepted
    unknown: bool = False


class DecreaseSettled(Event, frozen=True, gc=False):
    """A request to remove instances was answered; what was not accepted is asked for again."""

    group: str
    ids: tuple[str, ...]
    accepted: Accepted


class InstancePrepared(Event, frozen=True, gc=False):
    """An instance was reached and proved to be ready for tasks."""

    group: str
    id: str


class PreparationFailed(Event, frozen=True, gc=False):
    """An instance runs, but could not be reached or made ready."""

    group: str
    id: str
    reason: str


class InstanceBroke(Event, frozen=True, gc=False):
    """An instance failed under a task; it is not to get another one."""

    group: str
    id: str
    reason: str


class HealthPassed(Event, frozen=True, gc=False):
    """An instance answered a check."""

    group: str
    id: str


class HealthFailed(Event, frozen=True, gc=False):
    """An instance did not answer a check, or answered that it does not work."""

    group: str
    id: str
    reason: str


class InterruptionAnnounced(Event, frozen=True, gc=False):
    """The cloud will take an instance away.

    Attributes:
        deadline: when at the latest, if the cloud says so.
    """

    group: str
    id: str
    reason: str
    deadline: datetime | None = None


class TaskSuspended(Event, frozen=True, gc=False):
    """A task stops for now; its slot and what is on the instance are kept for it."""

    key: str


class TaskResumed(Event, frozen=True, gc=False):
    """A suspended task wants to go on, in its slot; answered by `Grant` or `Refuse`.

    `TaskCancelled` while it waits leaves it suspended.
    """

    key: str


class SuspendedTaskDropped(Event, frozen=True, gc=False):
    """A suspended task will never go on."""

    key: str


class SuspendSettled(Event, frozen=True, gc=False):
    """A request to suspend instances was answered; what was not accepted runs on."""

    group: str
    ids: tuple[str, ...]
    accepted: Accepted


class ResumeSettled(Event, frozen=True, gc=False):
    """A request to resume instances was answered; what was not accepted is asked for again."""

    group: str
    ids: tuple[str, ...]
    accepted: Accepted


class DrainAsked(Event, frozen=True, gc=False):
    """No new tasks are taken; those that wait, are promised a slot or run go on."""


class SettingsChanged(Event, frozen=True, gc=False):
    """The operator changed something."""

    settings: Settings


class RecordsRestored(Event, frozen=True, gc=False):
    """What an earlier life of this scaler left in the store; comes before anything else."""

    records: tuple[Record, ...]


class TimePassed(Event, frozen=True, gc=False):
    """It is later now; decisions that depend on time are taken."""


class ShutdownAsked(Event, frozen=True, gc=False):
    """No more tasks are taken.

    Attributes:
        remove: whether all of our instances are to be removed.
    """

    remove: bool
