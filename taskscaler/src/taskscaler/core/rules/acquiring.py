"""A task asks for a slot: it gets one at once, or waits in the queue.

These are the most frequent events. Each touches one task and one instance, and
takes no scaling decision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskscaler._errors import IllegalEvent
from taskscaler.core.model.effects import Refuse
from taskscaler.core.rules import leaving, placing

if TYPE_CHECKING:
    from taskscaler.core.model import events
    from taskscaler.core.model.effects import Outbox
    from taskscaler.core.model.events import Now
    from taskscaler.core.model.fleet import Fleet

__all__ = ("asked", "cancelled")


def asked(fleet: Fleet, event: events.TaskAsked, now: Now, out: Outbox) -> None:
    """Give a task a slot, or let it wait for one."""
    key, tasks = event.key, fleet.tasks
    reserved = key in tasks.reserved
    if reserved:
        tasks.use_reservation(key)
    elif key in tasks:
        raise IllegalEvent(f"task {key!r} already waits for or has a slot; use another key")
    # A scaler that drains keeps its promises; one that shuts down does not.
    if fleet.closing or (fleet.refusing and not reserved):
        out.add(Refuse(key, fleet.refusing))
        return
    # A promised slot comes before the queue; otherwise it is first come, first served.
    if (reserved and fleet.preemptive) or not tasks.waiting:
        for group in fleet.groups:
            instance = group.slots.best()
            if instance is not None and placing.may_take(fleet):
                placing.bind(fleet, key, group, instance, now, out)
                return
    tasks.wait(key)


def cancelled(fleet: Fleet, event: events.TaskCancelled, now: Now, out: Outbox) -> None:
    """Remove a task from the queue; one that waited to be resumed stays suspended."""
    key, tasks = event.key, fleet.tasks
    if key in tasks.resuming:
        group, instance = tasks.suspended[key]
        tasks.stay_suspended(key)
        leaving.settle(group, instance, now, out)
    elif key in tasks.waiting:
        tasks.cancel(key)
    else:
        raise IllegalEvent(f"task {key!r} does not wait for a slot")
