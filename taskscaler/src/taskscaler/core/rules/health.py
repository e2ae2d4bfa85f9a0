"""Which instances still work: checks before a slot is granted, and regular ones.

The first kind is part of granting a slot (`placing.py`). An instance that was silent
for `heartbeat_interval` is checked as well. An instance that failed a check
gets no task until it passes one, and then serves again. After `failure_threshold`
failures in a row it is replaced: at its next failed check without a task on it.

When most of a group fails at the same time, the fault is more likely in the network, or
in this process, than in the instances. So if more instances fail than have answered since
then, at most a tenth of the group is replaced in five minutes, and the others are
expected to recover.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskscaler.core.model.decisions import Clamp, Decision, Rule
from taskscaler.core.model.effects import Decided
from taskscaler.core.model.instance import Departure
from taskscaler.core.model.lifecycle import SERVING, Phase
from taskscaler.core.model.wording import counted
from taskscaler.core.rules import leaving, placing

if TYPE_CHECKING:
    from taskscaler.core.model import events
    from taskscaler.core.model.effects import Outbox
    from taskscaler.core.model.events import Now
    from taskscaler.core.model.fleet import Fleet
    from taskscaler.core.model.group import Group
    from taskscaler.core.model.instance import TrackedInstance

__all__ = ("check", "failed", "passed")


def check(fleet: Fleet, group: Group, now: Now, out: Outbox) -> None:
    """Begin the checks that are due."""
    for instance in group.checks.due(now.monotonic, fleet.settings):
        group.check(instance, fleet.settings, out, cloud=True)


def passed(fleet: Fleet, event: events.HealthPassed, now: Now, out: Outbox) -> None:
    """Offer an instance, and tell the tasks that wait for its check their slots."""
    group = fleet.group(event.group)
    instance = group.members.get(event.id)
    if instance is None or not group.checks.end(instance, now.monotonic):
        return
    was_sick = group.check_passed(instance, now.monotonic)
    placing.confirm_all(group, instance, now, out)
    if was_sick:
        placing.resume_tasks(fleet, group, instance, out)
        leaving.settle(group, instance, now, out)
        placing.place(fleet, now, out)


def failed(fleet: Fleet, event: events.HealthFailed, now: Now, out: Outbox) -> None:
    """Offer an instance to no task, and replace it after too many failures."""
    group = fleet.group(event.group)
    instance = group.members.get(event.id)
    if instance is None or not group.checks.end(instance, now.monotonic):
        return
    group.check_failed(instance, event.reason, now)
    # Kept, because an instance that stops serving below forgets its failures.
    failures = instance.health.failures
    waiting = placing.call_back(fleet, group, instance)
    leaving.settle(group, instance, now, out)
    if waiting and instance.phase is not Phase.REMOVING:
        # A restart must not find tasks on it that were never told.
        out.put(instance.record)
    # A provider that refuses says nothing about the instance, and a new one needs it as well.
    if failures >= fleet.settings.failure_threshold and event.error is None:
        cause = f"it failed {counted(failures, 'check')} in a row, the last: {event.reason}"
        _replace(fleet, group, instance, Departure(Rule.UNHEALTHY, cause), now, out)
    placing.place(fleet, now, out)


def _replace(
    fleet: Fleet,
    group: Group,
    instance: TrackedInstance,
    departure: Departure,
    now: Now,
    out: Outbox,
) -> None:
    """Replace an instance, unless a task is left on it or most of the group fails.

    Tasks run on unless the operator prefers to lose them with the instance. With suspended
    tasks, the instance is suspended and not replaced.
    """
    with_tasks = fleet.settings.remove_unhealthy_with_tasks
    if instance.phase not in SERVING or not (instance.vacant or with_tasks):
        return
    serving = sum(group.members.counts[phase] for phase in SERVING)
    was_held_back = group.checks.held_back
    if group.checks.replace(instance, now.monotonic, serving):
        if instance.suspended:
            # Their work is on the instance, and need not be lost: it may work when it is resumed.
            placing.revoke_running(fleet, group, instance, departure.reason, out)
            out.put(instance.record)
            leaving.settle(group, instance, now, out)
        else:
            leaving.take_down(fleet, group, instance, departure, now, out)
    elif not was_held_back:
        _report(fleet, group, now, out)


def _report(fleet: Fleet, group: Group, now: Now, out: Outbox) -> None:
    threshold = fleet.settings.failure_threshold
    wanted = sum(one.health.failures >= threshold for one in group.checks.sick.values())
    decision = Decision(
        at=now.wall,
        group=group.name,
        rule=Rule.UNHEALTHY,
        wanted=-wanted,
        decided=0,
        clamped_by=group.checks.held_back,
        demand=fleet.demand(),
        clamp=Clamp.FAIL_TOGETHER,
    )
    out.add(Decided(decision))
