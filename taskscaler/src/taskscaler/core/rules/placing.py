"""Which task gets which slot, and how it loses it: the operations that the rules share.

A task gets a slot on an instance that showed within `probe_after` that it works. On
any other instance the slot is taken for the task, but the task is not told yet: it is
*unconfirmed* while the instance is checked. If the check passes, the task is told;
if it fails, the task returns to the front of the queue and has lost nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskscaler.core.model.decisions import Rule
from taskscaler.core.model.effects import Grant, Refuse, Revoke
from taskscaler.core.model.instance import Departure
from taskscaler.core.model.lifecycle import SERVING, Phase

if TYPE_CHECKING:
    from taskscaler.core.model.effects import Outbox
    from taskscaler.core.model.events import Now
    from taskscaler.core.model.fleet import Fleet
    from taskscaler.core.model.group import Group
    from taskscaler.core.model.instance import TrackedInstance

__all__ = (
    "bind",
    "call_back",
    "confirm_all",
    "may_take",
    "place",
    "resume_tasks",
    "revoke_all",
    "revoke_running",
)

_USED_UP = Departure(Rule.USED_UP, "its use count is reached")


def may_take(fleet: Fleet) -> bool:
    """Return whether a task may take a free slot that was not promised to it."""
    # In preemptive mode every reservation was promised a slot that was free at the time.
    return not fleet.preemptive or fleet.free > len(fleet.tasks.reserved)


def place(fleet: Fleet, now: Now, out: Outbox) -> None:
    """Give free slots to the waiting tasks, first come first served."""
    tasks = fleet.tasks
    while fleet.closing and tasks.waiting:
        out.add(Refuse(tasks.take_next(), fleet.refusing))
    for group in fleet.groups:
        while tasks.waiting and (instance := group.slots.best()) is not None:
            if not may_take(fleet):
                return
            bind(fleet, tasks.take_next(), group, instance, now, out)


def bind(
    fleet: Fleet, key: str, group: Group, instance: TrackedInstance, now: Now, out: Outbox
) -> None:
    """Give a task a slot on an instance. No other code does this."""
    group.acquire(instance, key)
    fleet.tasks.hold(key, group, instance)
    if instance.health.proven_at + fleet.probe_after_seconds > now.monotonic:
        _confirm(group, instance, key, now, out)
    else:
        instance.unconfirmed[key] = None
        if not instance.health.checking:
            # The task waits, so only the instance is asked: the cloud may be slow.
            group.check(instance, fleet.settings, out, cloud=False)
    out.put(instance.record)


def confirm_all(group: Group, instance: TrackedInstance, now: Now, out: Outbox) -> None:
    """Tell all unconfirmed tasks of an instance their slots, because its check passed."""
    keys = list(instance.unconfirmed)
    instance.unconfirmed.clear()
    for key in keys:
        _confirm(group, instance, key, now, out)


def _confirm(group: Group, instance: TrackedInstance, key: str, now: Now, out: Outbox) -> None:
    """Tell a task its slot. The last use of an instance dismisses it."""
    out.add(Grant(key, group.name, instance.id, instance.tasks[key]))
    # An unconfirmed task may still be called back; only a use that counts dismisses.
    if instance.max_uses and instance.used_up and instance.phase is Phase.READY:
        group.dismiss(instance, _USED_UP, now)


def resume_tasks(fleet: Fleet, group: Group, instance: TrackedInstance, out: Outbox) -> None:
    """Tell suspended tasks that wait to be resumed their slots, if the instance serves."""
    if instance.phase not in SERVING or instance.health.failures:
        return
    for key in [one for one in instance.suspended if one in fleet.tasks.resuming]:
        fleet.tasks.forget_suspended(key)
        fleet.tasks.hold(key, group, instance)
        out.add(Grant(key, group.name, instance.id, group.resume(instance, key)))
        out.put(instance.record)


def call_back(fleet: Fleet, group: Group, instance: TrackedInstance) -> bool:
    """Return unconfirmed tasks to the queue; return whether there were any."""
    waiting = list(instance.unconfirmed)
    for key in waiting:
        group.slots.release(instance, key)
    fleet.tasks.wait_again(waiting)
    return bool(waiting)


def revoke_running(
    fleet: Fleet, group: Group, instance: TrackedInstance, cause: str, out: Outbox
) -> None:
    """Tell the running tasks of an instance that they have lost their slots."""
    call_back(fleet, group, instance)
    for key in list(instance.tasks):
        # The claims stay, so that each task can acknowledge the loss by its release.
        group.slots.release(instance, key)
        out.add(Revoke(key, instance.id, cause))


def revoke_all(
    fleet: Fleet, group: Group, instance: TrackedInstance, cause: str, now: Now, out: Outbox
) -> None:
    """Tell all tasks of an instance, suspended ones too, that they have lost their slots."""
    revoke_running(fleet, group, instance, cause, out)
    for key in list(instance.suspended):
        group.drop(instance, key, now.monotonic)
        if fleet.tasks.forget_suspended(key):
            out.add(Refuse(key, f"instance {instance.id} was lost: {cause}"))
        else:
            out.add(Revoke(key, instance.id, cause))
