"""Reservations: a task that does not exist yet wants to be sure of a slot.

A reservation is granted while a slot is free, or could still be created. In
preemptive mode it needs a slot that is free now, and that slot is kept for it. A
reservation never causes an instance to be created, because it may never become a
task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskscaler._errors import IllegalEvent
from taskscaler.core.model.demand import target_idle
from taskscaler.core.model.effects import Refuse
from taskscaler.core.model.explain import Lack, refusal
from taskscaler.core.rules import placing

if TYPE_CHECKING:
    from taskscaler.core.model import events
    from taskscaler.core.model.effects import Outbox
    from taskscaler.core.model.events import Now
    from taskscaler.core.model.fleet import Fleet

__all__ = ("reserved", "unreserved")


def reserved(fleet: Fleet, event: events.TaskReserved, now: Now, out: Outbox) -> None:
    """Grant a reservation, or refuse it."""
    del now
    if event.key in fleet.tasks:
        raise IllegalEvent(f"the key {event.key!r} is in use, so it cannot be reserved")
    if fleet.refusing:
        out.add(Refuse(event.key, fleet.refusing))
    elif (lack := _lack(fleet)) is not None:
        out.add(Refuse(event.key, refusal(fleet.standing(), lack)))
    else:
        fleet.tasks.reserve(event.key)


def unreserved(fleet: Fleet, event: events.TaskUnreserved, now: Now, out: Outbox) -> None:
    """Forget a reservation; a waiting task may get the slot."""
    if event.key not in fleet.tasks.reserved:
        raise IllegalEvent(f"task {event.key!r} has no reservation")
    fleet.tasks.unreserve(event.key)
    placing.place(fleet, now, out)


def _lack(fleet: Fleet) -> Lack | None:
    """Return why a reservation is refused; None if it is granted."""
    tasks = fleet.tasks
    claimed = len(tasks.reserved) + len(tasks.waiting)
    free = closed = 0
    for group in fleet.groups:
        free += group.slots.free
        closed += group.idle.closed_slots
    if fleet.settings.reservation_throttling and free and _leaves_too_little(fleet, claimed, free):
        return Lack.THROTTLED
    if fleet.preemptive:
        # Older reservations may count on the slots of closed instances, but not this one.
        if free <= claimed or free - closed <= claimed - len(tasks.older):
            return Lack.NOT_FREE
        return None
    # A free slot is enough, and nearly always there is one; the sums below cost more.
    if free > claimed:
        return None
    demand = fleet.demand()
    potential = fleet.potential(demand)
    if potential is not None and free + demand.coming + potential <= claimed:
        return Lack.NO_CAPACITY
    return None


def _leaves_too_little(fleet: Fleet, claimed: int, free: int) -> bool:
    """Return whether one more reservation would leave less than one instance unreserved.

    The idle capacity that the policy wants stays anyway, so it may always be reserved;
    otherwise a single warm instance never could.
    """
    acquired = sum(group.slots.acquired for group in fleet.groups)
    target = target_idle(fleet.policy, acquired)
    return claimed >= max(target, free - fleet.settings.capacity_per_instance)
