"""When to grow and when to shrink: all decisions that depend on time.

One pass looks at each group once, adds up the demand once, and asks each group
for one increase and one decrease at most, however many tasks came since the
last pass. Groups are filled in the order of preference and emptied in the
reverse order; a group that pauses after failures, or is full, passes the rest
on to the next, but one that has not answered yet does not, because its answer
may be all that is needed.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from fleeting.types import Duration, State
from taskscaler.core.decisions import Decision, Rule
from taskscaler.core.demand import Demand, target_idle
from taskscaler.core.effects import Decrease, Increase, List
from taskscaler.core.instances import Instance, Life
from taskscaler.core.operations import Operation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from taskscaler.core.events import Now
    from taskscaler.core.groups import Group
    from taskscaler.core.outbox import Outbox
    from taskscaler.core.settings import Settings
    from taskscaler.core.tasks import Tasks

__all__ = (
    "add_up",
    "clear",
    "expire",
    "grow",
    "potential",
    "refresh",
    "remove",
    "shrink",
    "wake_time",
)

# How many instances a decision names before it only counts them.
NAMED = 20


def add_up(groups: Sequence[Group], tasks: Tasks, settings: Settings) -> Demand:
    """Return the inputs of the decisions as they are now."""
    acquired = sum(group.acquired for group in groups)
    per_instance = settings.capacity_per_instance
    if settings.max_use_count:
        per_instance = min(per_instance, settings.max_use_count)
    return Demand(
        waiting=len(tasks.waiting),
        reserved=len(tasks.reserved),
        promised=len(tasks.reserved) if settings.policy.preemptive else 0,
        acquired=acquired,
        free=sum(group.slots.free for group in groups),
        coming=sum(group.coming for group in groups) * per_instance,
        unavailable=sum(group.unavailable for group in groups),
        target=target_idle(settings.policy, acquired),
        slots_per_instance=per_instance,
        instances=sum(group.size for group in groups),
        max_instances=settings.max_instances,
    )


def potential(groups: Sequence[Group], demand: Demand) -> int | None:
    """Return how many slots could still be added; None if there is no limit."""
    rooms = [demand.room]
    if all(group.max_size is not None for group in groups):
        rooms.append(sum(max(0, (group.max_size or 0) - group.size) for group in groups))
    limits = [room for room in rooms if room is not None]
    return min(limits) * demand.slots_per_instance if limits else None


def clear(group: Group, now: Now, out: Outbox) -> None:
    """Condemn every instance of ours, whatever runs there."""
    for instance in list(group.instances.values()):
        if instance.life not in (Life.FOREIGN, Life.REMOVING):
            group.revoke(instance, "the scaler shuts down", out)
            group.condemn(instance, Rule.SHUTDOWN, "the scaler shuts down", now, out)


def expire(group: Group, now: Now, out: Outbox) -> None:
    """Give up instances that should be running by now."""
    timeout = group.settings.creation_timeout
    patience = Duration(seconds=timeout.total_seconds())
    late = itertools.takewhile(
        # The same sum as in `wake_time`, or rounding would have it woken too early for ever.
        lambda one: one.seen_at + timeout.total_seconds() <= now.monotonic,
        group.creating.values(),  # The first is the oldest, so this stops early.
    )
    for instance in list(late):
        reason = f"it did not run within {patience}"
        group.condemn(instance, Rule.FAILED, reason, now, out)
        group.creation_failed(f"instance {instance.id} was given up: {reason}", now)


def shrink(
    groups: Sequence[Group], demand: Demand, settings: Settings, now: Now, out: Outbox
) -> None:
    """Let the instances go that are idle for long enough and that nobody needs.

    Above the limit, as many as are too many go although the policy wants them idle;
    only those that a reservation counts on stay.
    """
    surplus, spare = demand.surplus, demand.free - demand.reserved
    excess = _excess(groups, settings)
    idle_seconds = settings.policy.idle_time.total_seconds()
    for group in reversed(groups):
        while (instance := group.first_idle()) is not None:
            if excess > 0 and instance.available <= spare:
                rule, reason = Rule.LIMIT, f"there are {excess} instances more than max_instances"
            elif (
                instance.idle_since + idle_seconds <= now.monotonic
                and instance.available <= surplus
            ):
                idle_for = Duration(seconds=round(now.monotonic - instance.idle_since, 1))
                rule, reason = Rule.IDLE, f"it was idle for {idle_for}"
            else:
                break
            excess -= 1
            spare -= instance.available
            surplus -= instance.available
            group.condemn(instance, rule, reason, now, out)


def _excess(groups: Sequence[Group], settings: Settings) -> int:
    """Return how many instances, those aside that go already, are beyond the limit."""
    if not settings.max_instances:
        return 0
    staying = sum(group.size - group.lives[Life.REMOVING] for group in groups)
    return staying - settings.max_instances


def remove(group: Group, demand: Demand, now: Now, out: Outbox) -> None:
    """Ask for the removals that are due, all in one request."""
    if group.decreasing:
        return
    due = [
        instance
        for instance in group.removing.values()
        if instance.ask_removal_at is not None and instance.ask_removal_at <= now.monotonic
    ]
    retry = group.settings.deletion_retry_interval.total_seconds()
    chosen: list[Instance] = []
    for instance in due:
        if instance.state is State.DELETING:
            instance.ask_removal_at = now.monotonic + retry
        else:
            instance.ask_removal_at = None
            chosen.append(instance)
    if not chosen:
        return
    group.decreasing = True
    out.add(
        Decrease(
            group.name,
            tuple(instance.id for instance in chosen),
            _removal_decisions(group, chosen, demand, now),
            group.settings.operation_timeout.total_seconds(),
        )
    )


def _removal_decisions(
    group: Group, chosen: list[Instance], demand: Demand, now: Now
) -> tuple[Decision, ...]:
    by_rule: dict[Rule, list[Instance]] = {}
    for instance in chosen:
        by_rule.setdefault(instance.rule or Rule.FAILED, []).append(instance)
    return tuple(
        Decision(
            at=now.wall,
            group=group.name,
            rule=rule,
            wanted=-len(instances),
            decided=-len(instances),
            clamped_by="",
            demand=demand,
            detail="; ".join(f"{one.id}: {one.reason}" for one in instances[:NAMED]),
        )
        for rule, instances in by_rule.items()
    )


def grow(
    groups: Sequence[Group],
    demand: Demand,
    now: Now,
    out: Outbox,
    name_operation: Callable[[], str],
) -> tuple[Decision, ...]:
    """Ask for the instances that are missing; return a decision for each group it came to."""
    decisions: list[Decision] = []
    rest, room = demand.wanted, demand.room
    rule = Rule.TASKS_WAIT if demand.waiting > demand.free + demand.coming else Rule.IDLE_CAPACITY
    for group in groups:
        if not rest:
            break
        count, clamped_by = _share(group, rest, room, now)
        decision = Decision(now.wall, group.name, rule, rest, count, clamped_by, demand)
        decisions.append(decision)
        if count:
            _increase(
                group, decision, Operation(name_operation(), count, now.monotonic, now.wall), out
            )
            rest -= count
            room = None if room is None else room - count
        elif group.operations.unanswered or not (group.listed or group.listing_backoff.failures):
            break
    return tuple(decisions)


def _share(group: Group, rest: int, room: int | None, now: Now) -> tuple[int, str]:
    """Return how many of the rest this group gets, and what kept it from getting all."""
    if group.operations.unanswered:
        return 0, "an earlier request is not answered yet"
    if not group.listed:
        return 0, group.listing_backoff.reason or "it is not listed yet"
    if group.backoff.until > now.monotonic:
        pause = Duration(seconds=round(group.backoff.until - now.monotonic, 1))
        return 0, (
            f"a pause of {pause} after {group.backoff.failures} failures in a row, "
            f"the last: {group.backoff.reason}"
        )
    count, clamped_by = rest, ""
    if room is not None and room < count:
        count, clamped_by = room, "max_instances"
    if group.max_size is not None and group.max_size - group.size < count:
        count = max(0, group.max_size - group.size)
        clamped_by = f"the group's size of {group.max_size}"
    return count, clamped_by


def _increase(group: Group, decision: Decision, operation: Operation, out: Outbox) -> None:
    # Stored before it is asked for, so that a restart knows what may have been created.
    group.operations.add(operation)
    group.store_operation(operation, out)
    timeout_seconds = group.settings.operation_timeout.total_seconds()
    out.add(Increase(group.name, decision.decided, operation.id, decision, timeout_seconds))


def refresh(group: Group, now: Now, out: Outbox) -> None:
    """Ask for a listing if one is due."""
    if not group.listing and group.list_at <= now.monotonic:
        group.listing = True
        out.add(List(group.name, group.settings.operation_timeout.total_seconds()))


def wake_time(group: Group, demand: Demand, now: Now) -> float:
    """Return when the group needs the next decision if nothing happens before, in seconds."""
    settings = group.settings
    times = [] if group.listing else [group.list_at]
    creation_seconds = settings.creation_timeout.total_seconds()
    if group.creating:
        times.append(next(iter(group.creating.values())).seen_at + creation_seconds)
    if demand.wanted and group.backoff.until > now.monotonic:
        times.append(group.backoff.until)
    if not group.decreasing:
        asks = (instance.ask_removal_at for instance in group.removing.values())
        times.extend(ask for ask in asks if ask is not None)
    idle = group.first_idle()
    if idle is not None:
        expiry = idle.idle_since + settings.policy.idle_time.total_seconds()
        # One that is idle for long enough already stays because it is needed. What ends
        # that need is an event, and asks for a decision by itself.
        if expiry > now.monotonic:
            times.append(expiry)
    return min(times, default=float("inf"))
