"""What tasks ask for and give back: the frequent events, each touching one task and one instance.

They take no scaling decision, but ask to be woken for one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskscaler._errors import IllegalEvent
from taskscaler.core.model.demand import target_idle
from taskscaler.core.model.effects import Refuse
from taskscaler.core.model.explain import Lack, refusal
from taskscaler.core.model.instance import Life
from taskscaler.core.model.outbox import Outbox
from taskscaler.core.rules import scaling, suspension

if TYPE_CHECKING:
    from taskscaler.core.machine import ScalerState
    from taskscaler.core.model import events
    from taskscaler.core.model.effects import Effect
    from taskscaler.core.model.events import Now
    from taskscaler.core.model.group import Group
    from taskscaler.core.model.instance import Instance

__all__ = ("asked", "cancelled", "released", "reserved", "unreserved", "want_leisurely")

# Decisions that no task waits for are taken together, at most this often.
LEISURE_SECONDS = 0.1


def reserved(state: ScalerState, event: events.TaskReserved, now: Now) -> list[Effect]:
    """Promise a slot, or refuse to."""
    if event.key in state.tasks:
        raise IllegalEvent(f"task {event.key!r} reserves twice")
    del now
    if state.refusing:
        return [Refuse(event.key, state.refusing)]
    lack = _lack(state)
    if lack is not None:
        return [Refuse(event.key, refusal(state.standing(), lack))]
    state.tasks.reserved.add(event.key)
    return []


def _lack(state: ScalerState) -> Lack | None:
    """Return why a reservation is to be refused; None if it is not."""
    tasks = state.tasks
    claimed = len(tasks.reserved) + len(tasks.waiting)
    free = parting = 0
    for group in state.order:
        free += group.slots.free
        parting += group.parting_slots
    if state.settings.reservation_throttling and free and _leaves_too_little(state, claimed, free):
        return Lack.THROTTLED
    if state.preemptive:
        # Older reservations may count on the parting ones, but not this one.
        if free <= claimed or free - parting <= claimed - len(tasks.older):
            return Lack.NOT_FREE
        return None
    if free > claimed:
        return None
    demand = state.demand()
    potential = scaling.potential(state.order, demand)
    if potential is not None and free + demand.coming + potential <= claimed:
        return Lack.NO_CAPACITY
    return None


def _leaves_too_little(state: ScalerState, claimed: int, free: int) -> bool:
    """Return whether one more reservation would leave too little that can become idle.

    What the policy wants idle cannot go anyway, so it is there to be reserved.
    """
    target = target_idle(state.policy, sum(group.acquired for group in state.order))
    return claimed >= max(target, free - state.settings.capacity_per_instance)


def unreserved(state: ScalerState, event: events.TaskUnreserved, now: Now) -> list[Effect]:
    """Forget a reservation."""
    if event.key not in state.tasks.reserved:
        raise IllegalEvent(f"task {event.key!r} has no reservation to give back")
    state.tasks.forget_reservation(event.key)
    out = Outbox()
    state.place(now, out)
    want_leisurely(state, now, out)
    return out.finish()


def asked(state: ScalerState, event: events.TaskAsked, now: Now) -> list[Effect]:
    """Give a task its slot, or let it wait for one."""
    key, tasks = event.key, state.tasks
    promised = key in tasks.reserved
    if not promised and key in tasks:
        raise IllegalEvent(f"task {key!r} asks twice")
    # What was kept for its reservation may go now.
    parts = promised and tasks.forget_reservation(key)
    # While it drains, a promise is kept.
    if state.closing or (state.refusing and not promised):
        return [Refuse(key, state.refusing)]
    # A promise of a free slot comes before the queue; otherwise it is first come first served.
    if (promised and state.preemptive) or not tasks.waiting:
        for group in state.order:
            instance = group.slots.best()
            if instance is not None and state.may_take():
                return _grant(state, key, group, instance, now, parts=parts)
    tasks.wait(key)
    return state.want(now.monotonic)


def _grant(
    state: ScalerState, key: str, group: Group, instance: Instance, now: Now, *, parts: bool
) -> list[Effect]:
    out = Outbox()
    state.bind(key, group, instance, now, out)
    out.put(group.record(instance))
    if state.keeps_idle or parts:
        state.wake(max(now.monotonic, state.decided_at + LEISURE_SECONDS), out)
    return out.finish()


def cancelled(state: ScalerState, event: events.TaskCancelled, now: Now) -> list[Effect]:
    """Take a task out of the queue; one that was to be resumed stays suspended."""
    out = Outbox()
    if event.key in state.tasks.resuming:
        suspension.cancelled(state, event.key, now, out)
        return out.finish()
    if event.key not in state.tasks.waiting:
        raise IllegalEvent(f"task {event.key!r} does not wait")
    state.tasks.cancel(event.key)
    want_leisurely(state, now, out)
    return out.finish()


def released(state: ScalerState, event: events.TaskReleased, now: Now) -> list[Effect]:
    """Take a slot back, and give it to the next."""
    held = state.tasks.held.pop(event.key, None)
    if held is None:
        raise IllegalEvent(f"task {event.key!r} holds no slot")
    group, instance = held
    out = Outbox()
    # Otherwise the instance was lost, and the slot with it.
    if event.key in instance.tasks:
        group.release(instance, event.key, now, out)
        out.put(group.record(instance))
        if instance.life in (Life.READY, Life.DRAINING):
            state.place(now, out)
            want_leisurely(state, now, out)
        else:
            state.wake(now.monotonic, out)
    return out.finish()


def want_leisurely(state: ScalerState, now: Now, out: Outbox) -> None:
    """Something is less needed than before: see, without haste, whether it can go."""
    idle_seconds = state.policy.idle_time.total_seconds()
    for group in state.order:
        since = float("-inf") if group.parting else group.idle.bound()
        if since is not None:
            at = max(since + idle_seconds, state.decided_at + LEISURE_SECONDS, now.monotonic)
            state.wake(at, out)
