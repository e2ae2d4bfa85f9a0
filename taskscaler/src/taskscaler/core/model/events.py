"""The events: the only input of the core.

Events and effects are `msgspec.Struct`s rather than dataclasses, because the core
creates many, and creating a struct is several times faster. They are never part of a
reference cycle, so the garbage collector can skip them (`gc=False`).
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from fleeting.errors import FleetingError, ProviderError
from fleeting.types import Accepted, Listing
from taskscaler.core.model.obstacles import Stage
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
    "InstanceDelayed",
    "InstancePrepared",
    "InterruptionAnnounced",
    "ListingArrived",
    "ListingFailed",
    "Now",
    "OutcomeTold",
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
    """A reservation is given back unused."""

    key: str


class TaskAsked(Event, frozen=True, gc=False):
    """A task wants a slot now. This uses up its reservation, if it has one."""

    key: str


class TaskCancelled(Event, frozen=True, gc=False):
    """A task stops waiting for a slot."""

    key: str


class TaskReleased(Event, frozen=True, gc=False):
    """A task gives its slot back, or acknowledges that it has lost it.

    Attributes:
        proved: whether the instance demonstrably answered the task when it last used it.
            The end of a task alone proves nothing: it may have hung until its timeout.
    """

    key: str
    proved: bool = False


class ListingArrived(Event, frozen=True, gc=False):
    """A group reported all of its instances."""

    group: str
    listing: Listing


class ListingFailed(Event, frozen=True, gc=False):
    """A listing failed; everything known about the group stays."""

    group: str
    error: ProviderError


class IncreaseSettled(Event, frozen=True, gc=False):
    """A request for more instances was accepted, partly accepted or refused.

    Attributes:
        unknown: whether the answer was lost, so that `accepted` means nothing.
        told: whether the answer was lost, and `accepted` is what the provider said later.
    """

    group: str
    operation: str
    accepted: Accepted
    unknown: bool = False
    told: bool = False


class OutcomeTold(Event, frozen=True, gc=False):
    """A provider was asked what came of an increase of a previous process.

    Attributes:
        count: how many instances it creates; None if the provider cannot tell.
    """

    group: str
    operation: str
    count: int | None


class DecreaseSettled(Event, frozen=True, gc=False):
    """A removal request was answered; it is repeated for instances that stay."""

    group: str
    ids: tuple[str, ...]
    accepted: Accepted


class InstancePrepared(Event, frozen=True, gc=False):
    """An instance was reached and proved ready for tasks."""

    group: str
    id: str


class InstanceDelayed(Event, frozen=True, gc=False):
    """An attempt to make an instance ready failed; others follow, or `PreparationFailed`."""

    group: str
    id: str
    stage: Stage
    reason: str


class PreparationFailed(Event, frozen=True, gc=False):
    """An instance runs, but could not be reached or made ready.

    Attributes:
        error: the failure, if it says nothing about the instance: the provider refused, or the
            fault is on this computer. Another instance would fare no better.
    """

    group: str
    id: str
    reason: str
    error: FleetingError | None = None


class InstanceBroke(Event, frozen=True, gc=False):
    """An instance failed under a task; it must not get another one."""

    group: str
    id: str
    reason: str


class HealthPassed(Event, frozen=True, gc=False):
    """An instance passed a check."""

    group: str
    id: str


class HealthFailed(Event, frozen=True, gc=False):
    """An instance failed a check, or did not answer it.

    Attributes:
        error: the refusal of the provider, if that was the reason. It says nothing about
            the instance.
    """

    group: str
    id: str
    reason: str
    error: ProviderError | None = None


class InterruptionAnnounced(Event, frozen=True, gc=False):
    """The cloud will take an instance away.

    Attributes:
        deadline: when at the latest; None if the cloud does not say.
    """

    group: str
    id: str
    reason: str
    deadline: datetime | None = None


class TaskSuspended(Event, frozen=True, gc=False):
    """A task is suspended; its slot and its files on the instance are kept."""

    key: str


class TaskResumed(Event, frozen=True, gc=False):
    """A suspended task wants to continue in its slot; answered by `Grant` or `Refuse`.

    `TaskCancelled` while it waits leaves it suspended.
    """

    key: str


class SuspendedTaskDropped(Event, frozen=True, gc=False):
    """A suspended task will never be resumed."""

    key: str


class SuspendSettled(Event, frozen=True, gc=False):
    """A suspension request was answered; instances that were not accepted run on."""

    group: str
    ids: tuple[str, ...]
    accepted: Accepted


class ResumeSettled(Event, frozen=True, gc=False):
    """A resumption request was answered; it is repeated for instances that stay suspended."""

    group: str
    ids: tuple[str, ...]
    accepted: Accepted


class DrainAsked(Event, frozen=True, gc=False):
    """Accept no new tasks; those that wait, are promised a slot or run go on."""


class SettingsChanged(Event, frozen=True, gc=False):
    """The operator changed the settings."""

    settings: Settings


class RecordsRestored(Event, frozen=True, gc=False):
    """The records that a previous process left in the store. Must be the first event."""

    records: tuple[Record, ...]


class TimePassed(Event, frozen=True, gc=False):
    """Time has passed: take the decisions that depend on it."""


class ShutdownAsked(Event, frozen=True, gc=False):
    """Accept no more tasks.

    Attributes:
        remove: whether all of our instances are to be removed.
    """

    remove: bool
