"""Restore the state of a previous process, before any other event.

Instances come back as if they were being created; the first listings tell whether they
still exist and run. If tasks ran on an instance when the scaler ended, its condition is
unknown; it is removed, unless `keep_instance_with_acquisitions` says to use it
again. Suspended tasks come back as they were. The provider is asked what came of an
increase that was not answered; if it cannot tell, all that was requested may still come.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from fleeting.types import State
from taskscaler._errors import IllegalEvent
from taskscaler.core.model.decisions import Rule
from taskscaler.core.model.effects import AskOutcome
from taskscaler.core.model.instance import Departure, Suspension
from taskscaler.core.model.lifecycle import Phase
from taskscaler.core.model.operations import Operation
from taskscaler.core.model.records import (
    GroupRecord,
    InstanceRecord,
    OperationRecord,
    ThrottleRecord,
    TombstoneRecord,
)
from taskscaler.core.rules import leaving

if TYPE_CHECKING:
    from datetime import datetime

    from taskscaler.core.model import events
    from taskscaler.core.model.effects import Outbox
    from taskscaler.core.model.events import Now
    from taskscaler.core.model.fleet import Fleet
    from taskscaler.core.model.group import Group
    from taskscaler.core.model.instance import TrackedInstance
    from taskscaler.core.model.settings import Settings

__all__ = ("restored",)

# The groups of a store change, and a group that nothing drives for so long hardly comes back.
STRANGE_TOMBSTONES = timedelta(days=7)

R = TypeVar("R", InstanceRecord, OperationRecord, TombstoneRecord, GroupRecord, ThrottleRecord)


def restored(fleet: Fleet, event: events.RecordsRestored, now: Now, out: Outbox) -> None:
    """Restore the records of the groups that are driven; others stay in the store.

    A tombstone of another group is kept for a while only, because that group may be gone.
    """
    if fleet.touched:
        raise IllegalEvent("records must be restored before any other event")
    # The oldest first, whatever the order in which the store returns them.
    for record in sorted(_of_kind(event, InstanceRecord), key=lambda one: one.created_at):
        if (group := fleet.find(record.group)) is not None:
            _restore(fleet, group, record, now, out)
    for asked in sorted(_of_kind(event, OperationRecord), key=lambda one: one.asked_at):
        if (group := fleet.find(asked.group)) is not None:
            _expect(fleet, group, asked, now, out)
    for stone in sorted(_of_kind(event, TombstoneRecord), key=lambda one: one.at):
        if (group := fleet.find(stone.group)) is not None:
            group.ownership.remember(stone.id, stone.incarnation, out)
        elif stone.at + STRANGE_TOMBSTONES < now.wall:
            out.drop(stone.key)
    _restore_pauses(fleet, event, now)
    fleet.tasks.sort_suspended()


def _of_kind(event: events.RecordsRestored, kind: type[R]) -> list[R]:
    return [one for one in event.records if isinstance(one, kind)]


def _restore_pauses(fleet: Fleet, event: events.RecordsRestored, now: Now) -> None:
    for pauses in _of_kind(event, GroupRecord):
        if (group := fleet.find(pauses.group)) is not None:
            group.creations.restore_pauses(pauses, now, fleet.settings)
    for throttle in _of_kind(event, ThrottleRecord):
        fleet.bucket.restore(throttle, now)


def _expect(fleet: Fleet, group: Group, record: OperationRecord, now: Now, out: Outbox) -> None:
    if not record.count and not record.unlikely:
        # All instances had come before the answer, and that will never come.
        out.drop(record.key)
        return
    # They existed before the request, so the listings must not count them for it.
    group.ownership.strangers.update(dict.fromkeys(record.strangers))
    group.creations.restore(Operation.restored(record, now.monotonic))
    if not record.answered:
        timeout_seconds = fleet.settings.operation_timeout.total_seconds()
        out.add(AskOutcome(group.name, record.id, record.count, timeout_seconds))


def _restore(fleet: Fleet, group: Group, record: InstanceRecord, now: Now, out: Outbox) -> None:
    # Until a listing shows it, a restored instance may be gone, or not run.
    phase = Phase.CREATING
    instance = group.members.add(record.id, State.UNKNOWN, record.incarnation, phase, now)
    instance.created_at = record.created_at
    instance.born = _monotonic(record.created_at, now)
    instance.ready_at = record.ready_at
    instance.used = record.used
    for key, slot, since in record.suspended:
        taken = slot in {one.slot for one in instance.suspended.values()}
        if slot < instance.capacity and not taken and key not in fleet.tasks.suspended:
            group.suspend(instance, key, Suspension(slot, since, _monotonic(since, now)))
            fleet.tasks.suspend(key, group, instance)
    departure = _departure(instance, record, fleet.settings)
    if departure is not None:
        # At once, or when its suspended tasks have ended.
        leaving.dismiss(fleet, group, instance, departure, now, out)
    elif record.tasks:
        out.put(instance.record)


def _monotonic(at: datetime, now: Now) -> float:
    """Return a moment of a previous process in monotonic seconds.

    It is never later than now, even if the wall clock was put back: ages must be in the
    order of time.
    """
    return now.monotonic - max(0.0, (now.wall - at).total_seconds())


def _departure(
    instance: TrackedInstance, record: InstanceRecord, settings: Settings
) -> Departure | None:
    """Return why a restored instance must go; None if it may stay."""
    if record.tasks and not settings.keep_instance_with_acquisitions:
        return Departure(Rule.FAILED, "it ran tasks when the scaler ended")
    if record.rule is not None:
        return Departure(record.rule, record.reason)
    if instance.used_up:
        return Departure(Rule.USED_UP, "its use count is reached")
    return None
