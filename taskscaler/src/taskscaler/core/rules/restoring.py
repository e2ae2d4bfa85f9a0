"""What an earlier life of the scaler left: taken up before anything else.

Instances come back as if they were being created: whether they are still there,
and whether they run, the first listings say. Nobody knows what a task did on an
instance when the scaler ended, so such an instance is removed, unless the
settings say that it is to be used again. Suspended tasks come back as they were.
An increase whose outcome was not known may bring all that was asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from fleeting.types import State
from taskscaler._errors import IllegalEvent
from taskscaler.core.model import backoff_records as troubles
from taskscaler.core.model.decisions import Rule
from taskscaler.core.model.instance import Life, Suspension
from taskscaler.core.model.operations import Operation
from taskscaler.core.model.outbox import Outbox
from taskscaler.core.model.records import (
    GroupRecord,
    InstanceRecord,
    OperationRecord,
    TombstoneRecord,
)

if TYPE_CHECKING:
    from datetime import datetime

    from taskscaler.core.machine import ScalerState
    from taskscaler.core.model import events
    from taskscaler.core.model.effects import Effect
    from taskscaler.core.model.events import Now
    from taskscaler.core.model.group import Group
    from taskscaler.core.model.instance import Instance

__all__ = ("restored",)

R = TypeVar("R", InstanceRecord, OperationRecord, TombstoneRecord, GroupRecord)


def restored(state: ScalerState, event: events.RecordsRestored, now: Now) -> list[Effect]:
    """Take up all records of the groups that are driven; those of others stay in the store."""
    if not state.untouched:
        raise IllegalEvent("records are restored before anything else")
    out = Outbox()
    # The oldest first, whatever the order in which the store has them.
    for record in sorted(_of_kind(event, InstanceRecord), key=lambda one: one.created_at):
        if (group := state.groups.get(record.group)) is not None:
            _take_up(group, record, now, out)
    for asked in sorted(_of_kind(event, OperationRecord), key=lambda one: one.asked_at):
        if (group := state.groups.get(asked.group)) is not None:
            _expect(group, asked, now, out)
    for stone in sorted(_of_kind(event, TombstoneRecord), key=lambda one: one.at):
        if (group := state.groups.get(stone.group)) is not None:
            group.remember(stone.id, stone.incarnation, out)
    for trouble in _of_kind(event, GroupRecord):
        if (group := state.groups.get(trouble.group)) is not None:
            troubles.recall(group, trouble, now)
    _sort_suspended(state)
    return out.finish()


def _expect(group: Group, record: OperationRecord, now: Now, out: Outbox) -> None:
    if not record.count:
        # All had come before the answer did, which nobody waits for any more.
        out.drop(record.key)
        return
    operation = Operation(record.id, record.count, now.monotonic, record.asked_at)
    operation.strangers = record.strangers
    group.strangers |= frozenset(record.strangers)
    group.operations.add(operation)
    group.operations.settle(record.id, None)


def _sort_suspended(state: ScalerState) -> None:
    """Put the suspended tasks in order, the longest suspended first."""
    kept = state.tasks.suspended
    for key in sorted(kept, key=lambda one: (kept[one][1].suspended[one].began, one)):
        kept[key] = kept.pop(key)


def _of_kind(event: events.RecordsRestored, kind: type[R]) -> list[R]:
    return [one for one in event.records if isinstance(one, kind)]


def _take_up(group: Group, record: InstanceRecord, now: Now, out: Outbox) -> None:
    instance = group.add(record.id, State.UNKNOWN, record.incarnation, Life.CREATING, now)
    instance.created_at = record.created_at
    instance.born = _monotonic(record.created_at, now)
    instance.ready_at = record.ready_at
    instance.used = record.used
    if instance.uses_left is not None:
        instance.uses_left = max(0, instance.uses_left - record.used)
    for key, slot, since in record.suspended:
        taken = slot in {one.slot for one in instance.suspended.values()}
        if slot < instance.capacity and not taken and key not in group.tasks.suspended:
            instance.suspend(key, Suspension(slot, since, _monotonic(since, now)))
            group.keeping[instance.id] = instance
            group.tasks.suspended[key] = (group, instance)
    rule, reason = _why_it_goes(group, instance, record)
    if rule is None:
        if record.tasks:
            out.put(group.record(instance))
    elif instance.suspended:
        # It goes when they are done.
        instance.rule, instance.reason = rule, reason
        out.put(group.record(instance))
    else:
        group.condemn(instance, rule, reason, now, out)


def _monotonic(at: datetime, now: Now) -> float:
    """Return a moment of an earlier life in monotonic seconds.

    None is later than now, whatever the wall clock did: ages are in the order of time.
    """
    return now.monotonic - max(0.0, (now.wall - at).total_seconds())


def _why_it_goes(
    group: Group, instance: Instance, record: InstanceRecord
) -> tuple[Rule | None, str]:
    if record.tasks and not group.settings.keep_instance_with_acquisitions:
        return Rule.FAILED, "it ran tasks when the scaler ended"
    if record.rule is not None:
        return record.rule, record.reason
    if instance.uses_left == 0:
        return Rule.USED_UP, "its use count is reached"
    return None, ""
