"""What groups and instances report: listings, answers to requests, what became of instances.

A report about an instance that is not there any more is legal and ignored,
because reports and removals cross on their way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskscaler._errors import IllegalEvent
from taskscaler.core.model.decisions import Rule
from taskscaler.core.model.instance import Life
from taskscaler.core.model.outbox import Outbox
from taskscaler.core.rules import listings, suspension

if TYPE_CHECKING:
    from taskscaler.core.machine import ScalerState
    from taskscaler.core.model import events
    from taskscaler.core.model.effects import Effect
    from taskscaler.core.model.events import Now
    from taskscaler.core.model.group import Group

__all__ = (
    "broke",
    "decreased",
    "go_on",
    "increased",
    "interrupted",
    "interval",
    "listed",
    "not_listed",
    "prepared",
    "unprepared",
)

# An instance of ours that is not ready, and may become so: for the first time, or once more.
_NOT_READY = frozenset(
    {Life.CREATING, Life.PREPARING, Life.SUSPENDING, Life.SUSPENDED, Life.RESUMING}
)


def listed(state: ScalerState, event: events.ListingArrived, now: Now) -> list[Effect]:
    """Bring a group up to date, and decide anew."""
    group = state.group(event.group)
    out = Outbox()
    listings.begin(group, event.listing, now, out)
    go_on(state, group, now, out)
    # Tasks whose slots were lost before they knew of them wait again.
    state.place(now, out)
    state.wake(now.monotonic, out)
    return out.finish()


def go_on(state: ScalerState, group: Group, now: Now, out: Outbox) -> None:
    """Digest the next part of a listing, if there is one."""
    digestion = group.digestion
    if digestion is not None and listings.digest(group, digestion, state.portion, now, out):
        group.listing = False
        group.list_at = now.monotonic + interval(state, group)


def not_listed(state: ScalerState, event: events.ListingFailed, now: Now) -> list[Effect]:
    """Try again later; what was known stays."""
    group = state.group(event.group)
    out = Outbox()
    group.listing = False
    group.listing_backoff.failed(
        now.monotonic,
        str(event.error),
        first=state.settings.update_interval_when_expecting,
        limit=max(state.settings.update_interval, state.settings.update_interval_when_expecting),
        retry_after=event.error.retry_after,
    )
    group.list_at = group.listing_backoff.until
    state.wake(now.monotonic, out)
    return out.finish()


def interval(state: ScalerState, group: Group) -> float:
    """Return the pause between two listings, in seconds."""
    settings = state.settings
    interval = (
        settings.update_interval_when_expecting if group.expecting else settings.update_interval
    )
    return interval.total_seconds()


def increased(state: ScalerState, event: events.IncreaseSettled, now: Now) -> list[Effect]:
    """Take note of what will come."""
    group = state.group(event.group)
    if event.operation not in group.operations:
        raise IllegalEvent(f"operation {event.operation!r} is not open")
    out = Outbox()
    error = event.accepted.error
    count = None if event.unknown else event.accepted.count
    asked = group.operations.expected(event.operation)
    # What a listing has shown already is not waited for by its name.
    names = [id for id in event.accepted.ids if _may_come(group, id)]
    operation = group.operations.settle(event.operation, count, names)
    group.store_operation(operation, out)
    if error is not None:
        group.creation_failed(str(error), now, error)
    elif operation.expected < asked:
        reason = f"{operation.expected} of {asked} instances were accepted, without a reason"
        group.creation_failed(reason, now)
    elif not event.unknown:
        group.cooldown.end()
    state.expect(group, now, out)
    return out.finish()


def _may_come(group: Group, id: str) -> bool:
    instance = group.instances.get(id)
    return instance is None or instance.life is Life.REMOVING


def decreased(state: ScalerState, event: events.DecreaseSettled, now: Now) -> list[Effect]:
    """Ask again, later, for what stays."""
    group = state.group(event.group)
    out = Outbox()
    group.calling.discard(Life.REMOVING)
    retry_after = state.deletion_retry
    error = event.accepted.error
    if error is not None and error.retry_after is not None:
        # Some clouds say "in zero seconds".
        retry_after = max(error.retry_after, state.settings.backoff)
    for id in event.ids:
        instance = group.removing.get(id)
        if instance is not None:
            # Also when it was accepted: a removal may turn out to have had no effect.
            instance.ask_at = now.monotonic + retry_after.total_seconds()
    state.expect(group, now, out)
    return out.finish()


def prepared(state: ScalerState, event: events.InstancePrepared, now: Now) -> list[Effect]:
    """Let an instance take tasks."""
    group = state.group(event.group)
    instance = group.instances.get(event.id)
    out = Outbox()
    if instance is not None and instance.life is Life.PREPARING:
        group.prepared(instance, now, out)
        suspension.serve(state, group, instance, now, out)
        group.retire_again(instance, now, out)
        state.place(now, out)
        state.wake(now.monotonic, out)
    return out.finish()


def unprepared(state: ScalerState, event: events.PreparationFailed, now: Now) -> list[Effect]:
    """Remove an instance that could not be made ready."""
    group = state.group(event.group)
    instance = group.instances.get(event.id)
    out = Outbox()
    if instance is not None and instance.life is Life.PREPARING:
        group.take_down(instance, Rule.FAILED, event.reason, now, out)
        reason = f"instance {instance.id} did not become ready: {event.reason}"
        group.creation_failed(reason, now)
        state.wake(now.monotonic, out)
    return out.finish()


def broke(state: ScalerState, event: events.InstanceBroke, now: Now) -> list[Effect]:
    """Give an instance that failed under a task no further one."""
    group = state.group(event.group)
    instance = group.instances.get(event.id)
    out = Outbox()
    if instance is not None and instance.life is Life.READY:
        group.retire(instance, Rule.FAILED, event.reason, now, out)
        state.place(now, out)
        # The cloud may know more, and what it knows may concern other tasks there.
        state.expect(group, now, out)
    return out.finish()


def interrupted(state: ScalerState, event: events.InterruptionAnnounced, now: Now) -> list[Effect]:
    """Give an instance that is to be taken away no further task, and replace it early."""
    group = state.group(event.group)
    instance = group.instances.get(event.id)
    out = Outbox()
    if instance is None:
        return []
    if instance.life is Life.READY:
        group.retire(instance, Rule.INTERRUPTED, event.reason, now, out)
    elif instance.life in _NOT_READY and instance.vacant:
        group.condemn(instance, Rule.INTERRUPTED, event.reason, now, out)
    elif instance.life in _NOT_READY and instance.rule is None:
        # Its suspended tasks keep it; it goes when they are done.
        instance.rule, instance.reason = Rule.INTERRUPTED, event.reason
        out.put(group.record(instance))
    state.place(now, out)
    state.expect(group, now, out)
    return out.finish()
