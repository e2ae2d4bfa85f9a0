"""Tasks that stop for a while, and instances that are suspended until one is resumed.

A suspended task keeps its slot and everything it left on the instance. The instance
is suspended when no task runs on it any more; until then its other slots are as good
as any. It counts against the limits all the time, and a shutdown leaves it alone. A
task that is not resumed within `suspend_time_to_live` loses its slot. A suspended
instance is listed at the slow interval. If it cannot be reached after it was resumed,
it is suspended again, and its tasks can be resumed another time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleeting.types import Duration, State
from taskscaler._errors import IllegalEvent
from taskscaler.core.model.decisions import Rule
from taskscaler.core.model.effects import Refuse, Resume, Revoke, Suspend
from taskscaler.core.model.instance import Departure, Suspension
from taskscaler.core.model.lifecycle import Phase, Trigger
from taskscaler.core.rules import leaving, placing

if TYPE_CHECKING:
    from taskscaler.core.model import events
    from taskscaler.core.model.effects import Outbox
    from taskscaler.core.model.events import Now
    from taskscaler.core.model.fleet import Fleet
    from taskscaler.core.model.group import Group
    from taskscaler.core.model.instance import TrackedInstance

__all__ = (
    "dropped",
    "expire",
    "next_expiry",
    "request",
    "resume_settled",
    "resumed",
    "stay",
    "suspend_settled",
    "suspended",
)

# A sleeping instance without a task on it is of no use to any other task.
_SLEEPS = (Phase.SUSPENDING, Phase.SUSPENDED, Phase.RESUMING)


# Tasks.


def suspended(fleet: Fleet, event: events.TaskSuspended, now: Now, out: Outbox) -> None:
    """Keep the slot of a task that stops."""
    key, tasks = event.key, fleet.tasks
    held = tasks.held.get(key)
    if held is None or not tasks.holds(key) or key in held[1].unconfirmed:
        raise IllegalEvent(f"task {key!r} holds no slot that it could keep")
    group, instance = held
    if not group.can_suspend:
        raise IllegalEvent(f"group {group.name} cannot suspend instances")
    tasks.suspend(key, group, instance)
    # How many tasks the instance could take does not change.
    group.suspend(instance, key, Suspension(instance.tasks[key], now.wall, now.monotonic))
    out.put(instance.record)
    leaving.settle(group, instance, now, out)


def resumed(fleet: Fleet, event: events.TaskResumed, now: Now, out: Outbox) -> None:
    """Resume a suspended task as soon as its instance runs."""
    key, tasks = event.key, fleet.tasks
    kept = tasks.suspended.get(key)
    if kept is None or key in tasks.resuming:
        raise IllegalEvent(f"task {key!r} is not suspended, or is being resumed already")
    # The task stays suspended: after a restart it can be resumed.
    if fleet.refusing:
        out.add(Refuse(key, fleet.refusing))
        return
    group, instance = kept
    tasks.resume(key)
    if instance.phase is Phase.SUSPENDED:
        group.step(instance, Trigger.WAKES, now)
    placing.resume_tasks(fleet, group, instance, out)
    leaving.settle(group, instance, now, out)


def dropped(fleet: Fleet, event: events.SuspendedTaskDropped, now: Now, out: Outbox) -> None:
    """Take the slot back from a task that will never be resumed."""
    key, tasks = event.key, fleet.tasks
    if key not in tasks.suspended or key in tasks.resuming:
        raise IllegalEvent(f"task {key!r} is not suspended, or is being resumed")
    _drop(fleet, key, "its suspended tasks were given up", now, out)
    placing.place(fleet, now, out)


def expire(fleet: Fleet, now: Now, out: Outbox) -> None:
    """Take the slots back from tasks that were suspended for too long."""
    seconds = fleet.settings.suspend_time_to_live.total_seconds()
    for key, (_, instance) in list(fleet.tasks.suspended.items()):
        if instance.suspended[key].began + seconds > now.monotonic:
            break  # The others were suspended later.
        if key not in fleet.tasks.resuming:
            reason = f"its tasks were not resumed within {Duration(seconds=seconds)}"
            _drop(fleet, key, reason, now, out)
            out.add(Revoke(key, instance.id, reason))


def next_expiry(fleet: Fleet, now: Now) -> float:
    """Return when the next task will have been suspended for too long, in monotonic seconds."""
    seconds = fleet.settings.suspend_time_to_live.total_seconds()
    began = (one.suspended[key].began for key, (_, one) in fleet.tasks.suspended.items())
    # A task beyond its time is being resumed; how that ends is an event.
    return next((at + seconds for at in began if at + seconds > now.monotonic), float("inf"))


def _drop(fleet: Fleet, key: str, reason: str, now: Now, out: Outbox) -> None:
    group, instance = fleet.tasks.suspended[key]
    fleet.tasks.forget_suspended(key)
    group.drop(instance, key, now.monotonic)
    out.put(instance.record)
    if instance.vacant and instance.phase in _SLEEPS:
        departure = instance.departure or Departure(Rule.EXPIRED, reason)
        leaving.remove(group, instance, departure, now, out)
    else:
        leaving.settle(group, instance, now, out)


# Instances.


def stay(
    fleet: Fleet, group: Group, instance: TrackedInstance, reason: str, now: Now, out: Outbox
) -> None:
    """Suspend an instance again that could not be reached for its suspended tasks.

    The tasks that wait to be resumed are told, stay suspended, and can be resumed again.
    """
    for key in [one for one in instance.suspended if one in fleet.tasks.resuming]:
        out.add(Refuse(key, f"instance {instance.id} could not be resumed: {reason}"))
        fleet.tasks.stay_suspended(key)
    group.step(instance, Trigger.STOPS, now)


def request(fleet: Fleet, group: Group, now: Now, out: Outbox) -> None:
    """Request the suspensions and resumptions that are due, each kind in one call."""
    for instance in list(group.suspensions.kept.values()):
        # A suspension that was refused before may be due again.
        leaving.settle(group, instance, now, out)
    timeout_seconds = fleet.settings.operation_timeout.total_seconds()
    stops, starts = group.suspensions.stops, group.suspensions.starts
    if ids := stops.call(stops.due(now.monotonic)):
        out.add(Suspend(group.name, ids, timeout_seconds))
    if ids := starts.call(starts.due(now.monotonic)):
        out.add(Resume(group.name, ids, timeout_seconds))


def suspend_settled(fleet: Fleet, event: events.SuspendSettled, now: Now, out: Outbox) -> None:
    """Wait for accepted instances to stop; use the others, and try again later."""
    group = fleet.group(event.group)
    retry_at = now.monotonic + fleet.settings.deletion_retry_interval.total_seconds()
    for instance in group.suspensions.stops.settle(event.ids, retry_at):
        # A refused instance still runs, so its other slots are of use until the next attempt.
        if instance.id not in event.accepted.ids and instance.state is State.RUNNING:
            group.suspensions.refuse(instance, retry_at)
            group.prepare(instance, fleet.settings, now, out)
    group.listing.hasten(now.monotonic)


def resume_settled(fleet: Fleet, event: events.ResumeSettled, now: Now, out: Outbox) -> None:
    """Wait for the instances to run; request again later those that do not."""
    del out
    group = fleet.group(event.group)
    retry_at = now.monotonic + fleet.settings.deletion_retry_interval.total_seconds()
    group.suspensions.starts.settle(event.ids, retry_at)
    group.listing.hasten(now.monotonic)
