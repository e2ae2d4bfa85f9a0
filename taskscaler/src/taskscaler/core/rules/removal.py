"""Which instances are removed, and why.

Groups are emptied in the reverse order of preference. An instance on which a task runs is
removed when that has ended, if at all. The policy removes an instance that was idle for
`idle_time`, if the capacity that it adds was not needed at any moment of that time. Which
of several idle instances serves the next task is chance, so the age of one alone says
little.

A reservation protects idle instances from removal. A program that polls for tasks
almost always holds some reservation, each briefly. Without a further rule, one
of them would always protect an instance that is idle for ever. So an instance that was
idle for `idle_time`, and that neither the idle target nor waiting tasks need, is
*closed*: the reservations that exist at that moment, the *older* ones, still protect
it, and later ones do not count on it. The older ones end soon, one way or the other.
Later ones count on the other free slots, or on instances that can be created; in
preemptive mode they are refused if there are none. A task may still get a slot on a
closed instance, which opens it again.

Instances are closed in generations: the next when all of the last are removed or open
again. Otherwise every generation would make more reservations older ones.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from fleeting.types import Duration, State
from taskscaler.core.model.decisions import Decision, Rule
from taskscaler.core.model.effects import Decrease
from taskscaler.core.model.instance import Departure
from taskscaler.core.model.lifecycle import COMING, Phase
from taskscaler.core.rules import leaving, placing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import timedelta

    from taskscaler.core.model import events
    from taskscaler.core.model.demand import Demand
    from taskscaler.core.model.effects import Outbox
    from taskscaler.core.model.events import Now
    from taskscaler.core.model.fleet import Fleet
    from taskscaler.core.model.group import Group
    from taskscaler.core.model.instance import TrackedInstance
    from taskscaler.core.model.requests import DueRequest

__all__ = (
    "age",
    "clear",
    "cleared",
    "decreased",
    "enforce_limits",
    "expire_protection",
    "next_age",
    "request",
    "shrink",
)

# A shutdown leaves these alone: not ours, or on their way already.
_SPARED = frozenset(
    {Phase.FOREIGN, Phase.REMOVING, Phase.SUSPENDING, Phase.SUSPENDED, Phase.RESUMING}
)

_SHUTDOWN = Departure(Rule.SHUTDOWN, "the scaler shuts down")

# A dismissed instance that sleeps may stay for days, so it does not hold up the others.
_GOING = frozenset({Phase.PREPARING, Phase.DRAINING, Phase.REMOVING})

# How many instances a decision names before it only counts them.
NAMED = 20


# Limits.


def enforce_limits(fleet: Fleet, now: Now, out: Outbox) -> None:
    """Dismiss instances above `max_instances`, or above the limit of their group.

    A limit may have been lowered, or the cloud added instances. Those go first that lose
    nothing: idle ones, even if the policy wants them, and coming ones. Busy ones finish
    their tasks and then go, the fullest last. Those that a reservation counts on stay.
    """
    for group in reversed(fleet.groups):
        limit = fleet.settings.group_limits.get(group.name)
        if limit is not None:
            departure = Departure(
                Rule.GROUP_LIMIT, f"there are more instances than its group may have ({limit})"
            )
            _fit(fleet, (group,), limit, departure, now, out)
    limit = fleet.settings.max_instances
    if limit and sum(group.size for group in fleet.groups) > limit:
        departure = Departure(Rule.LIMIT, f"there are more instances than max_instances ({limit})")
        _fit(fleet, fleet.groups[::-1], limit, departure, now, out)


def _fit(
    fleet: Fleet,
    groups: Sequence[Group],
    limit: int,
    departure: Departure,
    now: Now,
    out: Outbox,
) -> None:
    excess = sum(group.size for group in groups) - limit
    if excess <= 0:
        return
    going = sum(_is_going(instance) for group in groups for instance in group.members)
    excess -= going
    # Instances that were requested and not seen may never come, so none that works goes for them.
    present = sum(len(group.members) for group in groups) - going - limit
    for group, instance, is_idle in _dispensable(groups):
        if (excess if is_idle else present) <= 0:
            break
        if instance.available <= max(0, fleet.free - len(fleet.tasks.reserved)):
            leaving.dismiss(fleet, group, instance, departure, now, out)
            excess -= 1
            present -= 1


def _is_going(instance: TrackedInstance) -> bool:
    return instance.departure is not None or instance.state is State.DELETING


def _dispensable(groups: Sequence[Group]) -> Iterator[tuple[Group, TrackedInstance, bool]]:
    """Yield the instances that may go, those that lose least first; and whether each is idle."""
    for group in groups:
        idle = [one for one in group.members if one.phase is Phase.READY and one.vacant]
        for instance in sorted(idle, key=lambda one: one.idle_since):
            yield group, instance, True
    for group in groups:
        for instance in reversed(list(group.members)):
            if instance.phase in COMING and not instance.suspended:
                yield group, instance, False
    for group in groups:
        busy = [one for one in group.members if one.phase is Phase.READY and not one.vacant]
        for instance in sorted(busy, key=lambda one: len(one.tasks) + len(one.suspended)):
            yield group, instance, False


# Idle instances.


def shrink(fleet: Fleet, demand: Demand, now: Now, out: Outbox) -> None:
    """Remove idle instances that are not needed, and were not for `idle_time`."""
    surplus = demand.surplus
    for group in reversed(fleet.groups):
        surplus = _remove_closed(group, surplus, now, out)
        while (instance := group.idle.first()) is not None:
            slots = instance.available
            if instance.idle_since + fleet.idle_seconds > now.monotonic or slots > surplus:
                # The first is idle the longest, so the others of this group stay, too.
                break
            surplus -= slots
            leaving.remove(group, instance, _idle(instance, now), now, out)


def _idle(instance: TrackedInstance, now: Now) -> Departure:
    idle_for = Duration(seconds=round(now.monotonic - instance.idle_since, 1))
    return Departure(Rule.IDLE, f"it was idle for {idle_for}")


# Idle instances that only reservations protect.


def expire_protection(fleet: Fleet, now: Now, out: Outbox) -> None:
    """Remove closed instances that nothing protects any more; if none is left, close others."""
    if not (fleet.tasks.reserved or any(group.idle.closed for group in fleet.groups)):
        return
    demand = fleet.demand()
    # How many slots could go if there were no reservations.
    unneeded = demand.unneeded
    if any(group.idle.closed for group in fleet.groups):
        _open_needed(fleet, unneeded)
        surplus = unneeded - _protected(fleet, demand)
        for group in reversed(fleet.groups):
            surplus = _remove_closed(group, surplus, now, out)
        if not any(group.idle.closed for group in fleet.groups):
            fleet.tasks.older.clear()
    elif demand.reserved and unneeded > 0:
        _close(fleet, unneeded, now)


def _protected(fleet: Fleet, demand: Demand) -> int:
    """Return the slots that reservations protect beyond those that the policy wants idle."""
    older = len(fleet.tasks.older)
    newer = demand.reserved - older
    if not demand.promised:
        # Later reservations do not count on closed instances.
        newer = min(newer, demand.free - sum(group.idle.closed_slots for group in fleet.groups))
    return max(0, older + newer - demand.target)


def _open_needed(fleet: Fleet, unneeded: int) -> None:
    """Open closed instances again that are needed after all."""
    closed = sum(group.idle.closed_slots for group in fleet.groups)
    for group in fleet.groups:
        for instance, slots in _closed(group):
            if closed > unneeded:
                group.idle.open(instance)
                closed -= slots


def _remove_closed(group: Group, surplus: int, now: Now, out: Outbox) -> int:
    """Remove closed instances, which are idle the longest; return the rest of the surplus."""
    for instance, slots in _closed(group) if group.idle.closed else ():
        if slots <= surplus:
            leaving.remove(group, instance, _idle(instance, now), now, out)
            surplus -= slots
    return surplus


def _closed(group: Group) -> list[tuple[TrackedInstance, int]]:
    return [
        (instance, slots)
        for id, slots in group.idle.closed.items()
        if (instance := group.members.get(id)) is not None
    ]


def _close(fleet: Fleet, unneeded: int, now: Now) -> None:
    for group in reversed(fleet.groups):
        while (instance := group.idle.first()) is not None:
            if (
                instance.idle_since + fleet.idle_seconds > now.monotonic
                or instance.available > unneeded
            ):
                break
            group.idle.close_first()
            unneeded -= instance.available
            fleet.tasks.close_to_new()


# Old instances.


def age(fleet: Fleet, now: Now, out: Outbox) -> None:
    """Dismiss instances that are too old, a tenth of each group at a time.

    Otherwise instances created together would all be replaced at once. One whose free slots
    were promised or belong to the idle capacity is *outgoing* until another one has taken
    its place. At a limit no other one can come, so only promises keep it.
    """
    fleet.outgoing = 0
    limit = fleet.settings.max_instance_age
    if not limit:
        return
    demand = fleet.demand()
    spare = demand.free - max(demand.promised, demand.target)
    if fleet.potential(demand) == 0 and not demand.coming:
        spare = demand.free - demand.promised
    departure = Departure(Rule.AGE, f"it is older than {Duration(seconds=limit.total_seconds())}")
    for group in fleet.groups:
        for instance in _aged(group, limit.total_seconds(), now):
            if instance.available <= max(0, spare):
                spare -= instance.available
                leaving.dismiss(fleet, group, instance, departure, now, out)
            else:
                fleet.outgoing += instance.available


def _aged(group: Group, seconds: float, now: Now) -> list[TrackedInstance]:
    """Return the instances of a group that may be replaced now for their age."""
    too_old = list(_too_old(group, seconds, now))
    aged = [one.phase for one in too_old if one.departure and one.departure.rule is Rule.AGE]
    room = -(-len(group.members) // 10) - sum(phase in _GOING for phase in aged)
    return [one for one in too_old if one.phase is Phase.READY][: max(0, room)]


def _too_old(group: Group, seconds: float, now: Now) -> Iterator[TrackedInstance]:
    """Return the instances that are older than they may be, the oldest first."""
    # Members are in the order in which they were first seen.
    return itertools.takewhile(lambda one: one.born + seconds <= now.monotonic, group.members)


def next_age(fleet: Fleet, group: Group, now: Now) -> float:
    """Return when the next instance will be too old, in monotonic seconds."""
    seconds = fleet.settings.max_instance_age.total_seconds()
    if not seconds:
        return float("inf")
    # Instances that are too old already are going, or wait until others are gone: events.
    later = (one.born + seconds for one in group.members)
    return next((at for at in later if at > now.monotonic), float("inf"))


# Shutdown.


def clear(fleet: Fleet, group: Group, now: Now, out: Outbox) -> None:
    """Remove every instance of ours, whatever runs there; suspended tasks keep theirs."""
    for instance in list(group.members):
        if instance.phase in _SPARED:
            continue
        placing.revoke_running(fleet, group, instance, _SHUTDOWN.reason, out)
        if instance.suspended:
            leaving.settle(group, instance, now, out)
        else:
            leaving.remove(group, instance, _SHUTDOWN, now, out)


def cleared(fleet: Fleet, group: Group) -> bool:
    """Return whether no instance of ours is left that will be removed.

    Suspended ones stay, and if the instances are kept, all that were not dismissed before, or
    that no listing has shown. One is given up after `shutdown_deletion_retries` without effect.
    """
    if fleet.removing and (group.creations.unseen or group.calling):
        return False
    retries = fleet.settings.shutdown_deletion_retries
    return all(
        one.phase in (Phase.FOREIGN, Phase.SUSPENDED)
        or not (fleet.removing or (one.phase is Phase.REMOVING and one.mark))
        or _is_hopeless(group.removals.get(one.id), retries)
        for one in group.members
    )


def _is_hopeless(request: DueRequest | None, retries: int) -> bool:
    return (
        request is not None
        and request.instance.state is not State.DELETING
        and request.calls > retries
    )


# Requests.


def request(fleet: Fleet, group: Group, demand: Demand, now: Now, out: Outbox) -> None:
    """Request the removals that are due, all in one call."""
    chosen: list[DueRequest] = []
    for one in group.removals.due(now.monotonic):
        if one.instance.state is State.DELETING:
            # The cloud is deleting it. Look again later: that may have no effect.
            group.removals.postpone(one, now.monotonic + _retry(fleet).total_seconds())
        else:
            chosen.append(one)
    if ids := group.removals.call(chosen):
        decisions = _decisions(group, [one.instance for one in chosen], demand, now)
        timeout_seconds = fleet.settings.operation_timeout.total_seconds()
        out.add(Decrease(group.name, ids, decisions, timeout_seconds))


def _retry(fleet: Fleet) -> timedelta:
    """Return when to repeat a removal request that had no effect."""
    if fleet.closing:
        return fleet.settings.shutdown_deletion_interval
    return fleet.settings.deletion_retry_interval


def _decisions(
    group: Group, instances: list[TrackedInstance], demand: Demand, now: Now
) -> tuple[Decision, ...]:
    by_rule: dict[Rule, list[str]] = {}
    for id, departure in [(one.id, one.departure) for one in instances if one.departure]:
        by_rule.setdefault(departure.rule, []).append(f"{id}: {departure.reason}")
    return tuple(
        Decision(
            at=now.wall,
            group=group.name,
            rule=rule,
            wanted=-len(reasons),
            decided=-len(reasons),
            clamped_by="",
            demand=demand,
            detail="; ".join(reasons[:NAMED]),
        )
        for rule, reasons in by_rule.items()
    )


def decreased(fleet: Fleet, event: events.DecreaseSettled, now: Now, out: Outbox) -> None:
    """A removal request was answered: repeat it later for the instances that stay."""
    del out
    group = fleet.group(event.group)
    retry = _retry(fleet)
    error = event.accepted.error
    if error is not None and error.retry_after is not None:
        # Some clouds say "in zero seconds".
        retry = max(error.retry_after, fleet.settings.backoff)
    group.removals.accept(event.accepted.ids)
    # Also after an acceptance: a removal may turn out to have had no effect.
    group.removals.settle(event.ids, now.monotonic + retry.total_seconds())
    group.listing.hasten(now.monotonic)
