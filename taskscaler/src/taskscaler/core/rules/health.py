"""Which instances still work: checks before a slot is handed out, and from time to time.

A task gets a slot on an instance that proved within `probe_after` that it
works: it was made ready, passed a check, or a task ended there. On another one
its slot is kept for it while the instance is checked; it hears of it when the
check has passed, and waits on, first in the queue, when it has failed. An
instance that failed a check gets no task until it passes one; after
`failure_threshold` failures in a row it is replaced. One that nothing is heard
of is checked every `heartbeat_interval`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskscaler.core.model.decisions import Rule
from taskscaler.core.model.effects import CheckHealth, Grant
from taskscaler.core.model.instance import Life
from taskscaler.core.model.outbox import Outbox
from taskscaler.core.rules import suspension

if TYPE_CHECKING:
    from taskscaler.core.machine import ScalerState
    from taskscaler.core.model import events
    from taskscaler.core.model.effects import Effect
    from taskscaler.core.model.events import Now
    from taskscaler.core.model.group import Group
    from taskscaler.core.model.instance import Instance

__all__ = ("check", "confirm", "failed", "next_check", "passed")

# How many instances of a group are checked at the same time because time has passed: a
# fleet that was made together is not to be checked all at once.
CHECKS_AT_ONCE = 50


def confirm(state: ScalerState, key: str, now: Now, out: Outbox) -> None:
    """Tell a task its slot, once the instance is known to work."""
    group, instance = state.tasks.held[key]
    if instance.proven_at + state.probe_after > now.monotonic:
        out.add(Grant(key, group.name, instance.id, instance.tasks[key]))
        group.use_up(instance)
        return
    instance.unconfirmed[key] = None
    if not instance.checking:
        _begin(group, instance, out, cloud=False)


def passed(state: ScalerState, event: events.HealthPassed, now: Now) -> list[Effect]:
    """Offer the instance again, and tell those who have a slot there."""
    group = state.group(event.group)
    instance = _checked(group, event.id, now)
    out = Outbox()
    if instance is None:
        return []
    before, was_sick = instance.available, instance.failures > 0
    instance.failures = 0
    instance.proven_at = now.monotonic
    group.sick.pop(instance.id, None)
    group.slots.moved(instance, before, instance.available)
    group.checks.add(instance, len(group.instances))
    for key in instance.unconfirmed:
        out.add(Grant(key, group.name, instance.id, instance.tasks[key]))
        group.use_up(instance)
    instance.unconfirmed.clear()
    if was_sick:
        group.stay(instance)
        suspension.serve(state, group, instance, now, out)
        state.place(now, out)
        state.wake(now.monotonic, out)
    else:
        _see_to_the_next(state, group, now, out)
    return out.finish()


def failed(state: ScalerState, event: events.HealthFailed, now: Now) -> list[Effect]:
    """Offer the instance no more; replace it if that happens too often."""
    group = state.group(event.group)
    instance = _checked(group, event.id, now)
    if instance is None:
        return []
    out = Outbox()
    before = instance.available
    instance.failures += 1
    group.sick[instance.id] = instance
    group.stay(instance)
    group.slots.moved(instance, before, instance.available)
    waiting = group.call_back(instance)
    group.rest(instance, now, out)
    if waiting and instance.life is not Life.REMOVING:
        out.put(group.record(instance))
    if instance.failures >= group.settings.failure_threshold:
        _replace(group, instance, event.reason, now, out)
    state.place(now, out)
    state.wake(now.monotonic, out)
    return out.finish()


def _replace(group: Group, instance: Instance, reason: str, now: Now, out: Outbox) -> None:
    cause = f"it failed {instance.failures} checks in a row, the last: {reason}"
    if instance.life is Life.READY:
        group.retire(instance, Rule.UNHEALTHY, cause, now, out)
    if instance.life is Life.DRAINING and group.settings.remove_unhealthy_with_tasks:
        group.take_down(instance, Rule.UNHEALTHY, cause, now, out)


def _checked(group: Group, id: str, now: Now) -> Instance | None:
    """Return the instance whose check has ended; None if nobody waits for that any more."""
    instance = group.instances.get(id)
    if instance is None or not instance.checking:
        return None
    instance.checking = False
    instance.checked_at = now.monotonic
    group.checking -= 1
    return instance


def _see_to_the_next(state: ScalerState, group: Group, now: Now, out: Outbox) -> None:
    if group.checking == CHECKS_AT_ONCE - 1:
        # Others may be due, and could not be begun.
        state.wake(now.monotonic, out)
    elif interval := group.settings.heartbeat_interval.total_seconds():
        state.wake(now.monotonic + interval, out)


def check(group: Group, now: Now, out: Outbox) -> None:
    """Begin the checks that are due."""
    interval = group.settings.heartbeat_interval.total_seconds()
    while interval and group.checking < CHECKS_AT_ONCE:
        instance = group.checks.first()
        if instance is None or _seen_well(instance) + interval > now.monotonic:
            break
        _begin(group, instance, out, cloud=True)
    pause = group.settings.probe_timeout.total_seconds()
    for instance in group.sick.values():
        if not instance.checking and instance.checked_at + pause <= now.monotonic:
            _begin(group, instance, out, cloud=True)


def next_check(group: Group) -> float:
    """Return when the next check is due, in monotonic seconds; early at worst."""
    pause = group.settings.probe_timeout.total_seconds()
    times = [one.checked_at + pause for one in group.sick.values() if not one.checking]
    interval = group.settings.heartbeat_interval.total_seconds()
    first = group.checks.bound()
    if interval and first is not None and group.checking < CHECKS_AT_ONCE:
        times.append(first + interval)
    return min(times, default=float("inf"))


def _seen_well(instance: Instance) -> float:
    return max(instance.checked_at, instance.proven_at)


def _begin(group: Group, instance: Instance, out: Outbox, *, cloud: bool) -> None:
    instance.checking = True
    group.checking += 1
    timeout_seconds = group.settings.probe_timeout.total_seconds()
    out.add(CheckHealth(group.name, instance.id, timeout_seconds, cloud))
