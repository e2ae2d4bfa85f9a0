"""Tasks that stop for now, and instances that sleep until one of them goes on.

A suspended task keeps its slot, and what it left on the instance. The instance
itself is suspended when nobody runs on it any more; until then its other slots
are as good as any. It counts against the limits all the time, a shutdown leaves
it alone, and a task that nobody resumes within `suspend_time_to_live` loses its
slot. A suspended instance is listed at the slow interval.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleeting.types import Duration, State
from taskscaler._errors import IllegalEvent
from taskscaler.core.model.decisions import Rule
from taskscaler.core.model.effects import Grant, Refuse, Resume, Revoke, Suspend
from taskscaler.core.model.instance import Life, Suspension, Trigger
from taskscaler.core.model.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fleeting.types import Instance as Listed
    from taskscaler.core.machine import ScalerState
    from taskscaler.core.model import events
    from taskscaler.core.model.effects import Effect
    from taskscaler.core.model.events import Now
    from taskscaler.core.model.group import Group
    from taskscaler.core.model.instance import Instance

__all__ = (
    "ask",
    "cancelled",
    "dropped",
    "expire",
    "next_ask",
    "next_expiry",
    "resume_settled",
    "resumed",
    "serve",
    "stopped",
    "suspend_settled",
    "suspended",
)

_LIVE = frozenset({Life.READY, Life.DRAINING})


# Tasks.


def suspended(state: ScalerState, event: events.TaskSuspended, now: Now) -> list[Effect]:
    """Keep the slot of a task that stops."""
    key = event.key
    held = state.tasks.held.get(key)
    if held is None or key not in held[1].tasks or key in held[1].unconfirmed:
        raise IllegalEvent(f"task {key!r} holds no slot that it could keep")
    group, instance = held
    if not group.can_suspend:
        raise IllegalEvent(f"group {group.name} cannot suspend instances")
    out = Outbox()
    del state.tasks.held[key]
    state.tasks.suspended[key] = held
    group.keeping[instance.id] = instance
    group.acquired -= 1
    # How many tasks it could take does not change by that.
    instance.suspend(key, Suspension(instance.tasks[key], now.wall, now.monotonic))
    out.put(group.record(instance))
    group.rest(instance, now, out)
    state.wake(now.monotonic, out)
    return out.finish()


def resumed(state: ScalerState, event: events.TaskResumed, now: Now) -> list[Effect]:
    """Let a suspended task go on, as soon as its instance runs."""
    key = event.key
    kept = state.tasks.suspended.get(key)
    if kept is None or key in state.tasks.resuming:
        raise IllegalEvent(f"task {key!r} is not suspended, or is being resumed already")
    if state.refusing:
        return [Refuse(key, state.refusing)]
    group, instance = kept
    out = Outbox()
    state.tasks.resuming.add(key)
    if instance.life is Life.SUSPENDED:
        _wake(group, instance, now)
    serve(state, group, instance, now, out)
    state.wake(now.monotonic, out)
    return out.finish()


def cancelled(state: ScalerState, key: str, now: Now, out: Outbox) -> None:
    """A task that wanted to go on stays suspended after all."""
    group, instance = state.tasks.suspended[key]
    state.tasks.resuming.discard(key)
    group.rest(instance, now, out)
    state.wake(now.monotonic, out)


def serve(state: ScalerState, group: Group, instance: Instance, now: Now, out: Outbox) -> None:
    """Give those tasks their slots back that want to go on, if the instance is ready."""
    if instance.life not in _LIVE or instance.failures:
        return
    for key in [one for one in instance.suspended if one in state.tasks.resuming]:
        state.tasks.forget_suspended(key)
        state.tasks.held[key] = (group, instance)
        group.acquired += 1
        out.add(Grant(key, group.name, instance.id, instance.go_on(key)))
        out.put(group.record(instance))
    if not instance.suspended:
        group.keeping.pop(instance.id, None)
    group.rest(instance, now, out)


def dropped(state: ScalerState, event: events.SuspendedTaskDropped, now: Now) -> list[Effect]:
    """Take the slot back from a task that will never go on."""
    if event.key not in state.tasks.suspended or event.key in state.tasks.resuming:
        raise IllegalEvent(f"task {event.key!r} is not suspended, or is being resumed")
    out = Outbox()
    _drop(state, event.key, "its suspended tasks were given up", now, out)
    state.place(now, out)
    state.wake(now.monotonic, out)
    return out.finish()


def expire(state: ScalerState, now: Now, out: Outbox) -> None:
    """Take the slots back of tasks that were suspended for too long."""
    time_to_live = state.settings.suspend_time_to_live
    for key, (_, instance) in list(state.tasks.suspended.items()):
        if instance.suspended[key].began + time_to_live.total_seconds() > now.monotonic:
            break  # The others are suspended since a later time.
        if key not in state.tasks.resuming:
            age = Duration(seconds=time_to_live.total_seconds())
            reason = f"its tasks were not resumed within {age}"
            _drop(state, key, reason, now, out)
            out.add(Revoke(key, instance.id, reason))


def next_expiry(state: ScalerState, now: Now) -> float:
    """Return when the next task will have been suspended for too long, in monotonic seconds."""
    seconds = state.settings.suspend_time_to_live.total_seconds()
    for key, (_, instance) in state.tasks.suspended.items():
        expiry = instance.suspended[key].began + seconds
        # One that is too old already is being resumed; how that ends is an event.
        if expiry > now.monotonic:
            return expiry
    return float("inf")


def _drop(state: ScalerState, key: str, reason: str, now: Now, out: Outbox) -> None:
    group, instance = state.tasks.suspended[key]
    state.tasks.forget_suspended(key)
    before = instance.available
    instance.drop(key)
    group.slots.moved(instance, before, instance.available)
    if not instance.suspended:
        group.keeping.pop(instance.id, None)
    out.put(group.record(instance))
    if instance.vacant and instance.life not in (*_LIVE, Life.CREATING, Life.PREPARING):
        group.condemn(instance, instance.rule or Rule.EXPIRED, instance.reason or reason, now, out)
    else:
        group.rest(instance, now, out)


# Instances.


def stopped(group: Group, instance: Instance, listed: Listed, now: Now, out: Outbox) -> None:
    """The cloud says that an instance is suspended, or will be."""
    if instance.tasks:
        cause = listed.reason or "the cloud suspended it"
        group.revoke_running(instance, cause, out)
    if not instance.suspended:
        group.condemn(instance, Rule.LOST, listed.reason or "the cloud suspended it", now, out)
        return
    if instance.life in (Life.READY, Life.DRAINING, Life.PREPARING):
        group.step(instance, Trigger.STOPS)
        instance.ask_at = now.monotonic
        out.put(group.record(instance))  # Without the tasks that ran there.
    if listed.state is State.SUSPENDED and instance.life in (Life.CREATING, Life.SUSPENDING):
        group.step(instance, Trigger.STOPPED)
        instance.ask_at = None
        if any(key in group.tasks.resuming for key in instance.suspended):
            _wake(group, instance, now)


def _wake(group: Group, instance: Instance, now: Now) -> None:
    group.step(instance, Trigger.WAKES)
    instance.ask_at = now.monotonic


def ask(group: Group, now: Now, out: Outbox) -> None:
    """Ask for the suspensions and resumptions that are due, each kind in one request."""
    for instance in list(group.keeping.values()):
        group.rest(instance, now, out)  # What failed before may be due again.
    timeout_seconds = group.settings.operation_timeout.total_seconds()
    if ids := _due(group, Life.SUSPENDING, group.suspending, now):
        out.add(Suspend(group.name, ids, timeout_seconds))
    if ids := _due(group, Life.RESUMING, group.resuming, now):
        out.add(Resume(group.name, ids, timeout_seconds))


def _due(group: Group, life: Life, instances: Mapping[str, Instance], now: Now) -> tuple[str, ...]:
    if life in group.calling:
        return ()
    due = [
        one for one in instances.values() if one.ask_at is not None and one.ask_at <= now.monotonic
    ]
    for one in due:
        one.ask_at = None
    if due:
        group.calling.add(life)
    return tuple(one.id for one in due)


def next_ask(group: Group, now: Now) -> float:
    """Return when the next request is due, in monotonic seconds."""
    times = [
        one.stop_at
        for one in group.keeping.values()
        if one.life in _LIVE and not one.tasks and one.stop_at > now.monotonic
    ]
    for life, instances in (
        (Life.SUSPENDING, group.suspending),
        (Life.RESUMING, group.resuming),
    ):
        if life not in group.calling:
            times += [one.ask_at for one in instances.values() if one.ask_at is not None]
    return min(times, default=float("inf"))


def suspend_settled(state: ScalerState, event: events.SuspendSettled, now: Now) -> list[Effect]:
    """Wait for those that will stop; use those on that will not, and try again later."""
    group = state.group(event.group)
    group.calling.discard(Life.SUSPENDING)
    out = Outbox()
    retry = group.settings.deletion_retry_interval.total_seconds()
    for id in event.ids:
        instance = group.suspending.get(id)
        if instance is None or instance.ask_at is not None:
            continue
        instance.ask_at = now.monotonic + retry
        if id not in event.accepted.ids and instance.state is State.RUNNING:
            instance.stop_at = now.monotonic + retry
            group.runs(instance, out)
    state.expect(group, now, out)
    return out.finish()


def resume_settled(state: ScalerState, event: events.ResumeSettled, now: Now) -> list[Effect]:
    """Wait for those that will run; ask again later for the others."""
    group = state.group(event.group)
    group.calling.discard(Life.RESUMING)
    out = Outbox()
    retry = group.settings.deletion_retry_interval.total_seconds()
    for id in event.ids:
        instance = group.resuming.get(id)
        if instance is not None and instance.ask_at is None:
            instance.ask_at = now.monotonic + retry
    state.expect(group, now, out)
    return out.finish()
