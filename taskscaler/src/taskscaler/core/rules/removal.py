"""Which instances go, and why: everything that takes an instance away.

Groups are emptied in the reverse order of preference. An instance on which a
task runs is never removed for what the policy says; it drains first.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from fleeting.types import Duration, State
from taskscaler.core.model.decisions import Decision, Rule
from taskscaler.core.model.effects import Decrease
from taskscaler.core.model.instance import Life

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import timedelta

    from taskscaler.core.model.demand import Demand
    from taskscaler.core.model.events import Now
    from taskscaler.core.model.group import Group
    from taskscaler.core.model.instance import Instance
    from taskscaler.core.model.outbox import Outbox
    from taskscaler.core.model.settings import Policy

__all__ = ("age", "ask", "clear", "cleared", "expire", "next_age", "shrink")

# What a shutdown leaves alone, or has dealt with.
_CLEARED = frozenset({Life.FOREIGN, Life.REMOVING, Life.SUSPENDING, Life.SUSPENDED, Life.RESUMING})

# The lives in which age matters.
_COMES_AND_SERVES = frozenset({Life.PREPARING, Life.READY, Life.DRAINING, Life.REMOVING})

# How many instances a decision names before it only counts them.
NAMED = 20


def clear(group: Group, now: Now, out: Outbox) -> None:
    """Condemn every instance of ours, whatever runs there; suspended tasks keep theirs."""
    for instance in list(group.instances.values()):
        if instance.life in _CLEARED:
            continue
        group.revoke_running(instance, "the scaler shuts down", out)
        if instance.suspended:
            group.rest(instance, now, out)
        else:
            group.condemn(instance, Rule.SHUTDOWN, "the scaler shuts down", now, out)


def cleared(group: Group) -> bool:
    """Return whether nothing is left to be done so that all of our instances go.

    Suspended ones stay. One that was asked for often enough without effect is given up.
    """
    return (
        not group.unseen
        and not group.calling
        and all(
            one.life in (Life.FOREIGN, Life.SUSPENDED) or _is_hopeless(group, one)
            for one in group.instances.values()
        )
    )


def _is_hopeless(group: Group, instance: Instance) -> bool:
    return (
        instance.life is Life.REMOVING
        and instance.state is not State.DELETING
        and instance.asked > group.settings.shutdown_deletion_retries
        and instance.ask_at is not None
    )


def age(group: Group, now: Now, out: Outbox) -> None:
    """Retire instances that are too old, a part of the fleet at a time.

    A fleet that was made together would else be gone together.
    """
    limit = group.settings.max_instance_age
    if not limit:
        return
    too_old = [one for one in _oldest(group, now) if one.life in _COMES_AND_SERVES]
    leaving = sum(one.rule is Rule.AGE for one in too_old)
    # At most every tenth at a time.
    room = -(-len(group.instances) // 10) - leaving
    for instance in too_old:
        if room <= 0:
            break
        if instance.life is Life.READY:
            reason = f"it is older than {Duration(seconds=limit.total_seconds())}"
            group.retire(instance, Rule.AGE, reason, now, out)
            room -= 1


def _oldest(group: Group, now: Now) -> Iterator[Instance]:
    """Return the instances that are older than they may be, the oldest first."""
    seconds = group.settings.max_instance_age.total_seconds()
    # They are kept in the order in which they came.
    return itertools.takewhile(
        lambda one: one.born + seconds <= now.monotonic, group.instances.values()
    )


def next_age(group: Group, now: Now) -> float:
    """Return when the next instance will be too old, in monotonic seconds."""
    seconds = group.settings.max_instance_age.total_seconds()
    if not seconds:
        return float("inf")
    later = (one.born + seconds for one in group.instances.values())
    # Those that are too old already are leaving, or wait for others to be gone.
    return next((at for at in later if at > now.monotonic), float("inf"))


def expire(group: Group, now: Now, out: Outbox) -> None:
    """Give up instances that should be running by now, and by the newest listing do not.

    As long as the group cannot be listed nobody knows, and nothing is given up. Those
    that keep suspended tasks need not run: an earlier life left them, and they stay for
    as long as the tasks may.
    """
    timeout = group.settings.creation_timeout
    patience = Duration(seconds=timeout.total_seconds())
    late = itertools.takewhile(
        # Nothing wakes for it: a listing leads to a decision by itself.
        lambda one: one.seen_at + timeout.total_seconds() <= group.listed_at,
        group.creating.values(),  # The first is the oldest, so this stops early.
    )
    for instance in [one for one in late if not one.suspended]:
        reason = f"it did not run within {patience}"
        group.take_down(instance, Rule.FAILED, reason, now, out)
        group.creation_failed(f"instance {instance.id} was given up: {reason}", now)


def shrink(
    groups: Sequence[Group],
    demand: Demand,
    policy: Policy,
    now: Now,
    out: Outbox,
) -> None:
    """Let the instances go that are idle for long enough and that nobody needs.

    Above the limit of all, or of a group, as many as are too many go although the policy
    wants them idle; only those that a reservation counts on stay.
    """
    surplus, spare = demand.surplus, demand.free - demand.reserved
    for group in reversed(groups):
        slots = _fit(group, spare, now, out)
        surplus -= slots
        spare -= slots
    excess = _excess(groups, demand.max_instances)
    idle_seconds = policy.idle_time.total_seconds()
    for group in reversed(groups):
        while (instance := group.idle.first()) is not None:
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


def _fit(group: Group, spare: int, now: Now, out: Outbox) -> int:
    """Let those go that are beyond the group's own limit, and return how many slots they had."""
    limit = group.settings.group_limits.get(group.name)
    if limit is None:
        return 0
    slots, excess = 0, group.size - group.lives[Life.REMOVING] - limit
    while excess > 0 and (instance := group.idle.first()) is not None:
        if instance.available > spare - slots:
            break
        slots += instance.available
        reason = f"there are {excess} instances more than its group may have"
        group.condemn(instance, Rule.GROUP_LIMIT, reason, now, out)
        excess -= 1
    return slots


def _excess(groups: Sequence[Group], limit: int) -> int:
    """Return how many instances, those aside that go already, are beyond the limit."""
    if not limit:
        return 0
    staying = sum(group.size - group.lives[Life.REMOVING] for group in groups)
    return staying - limit


def ask(group: Group, demand: Demand, now: Now, out: Outbox, *, retry: timedelta) -> None:
    """Ask for the removals that are due, all in one request.

    Args:
        group: where.
        demand: the inputs of the decisions.
        now: the moment.
        out: takes the request.
        retry: when to look again at one that the cloud is deleting already.
    """
    if Life.REMOVING in group.calling:
        return
    chosen: list[Instance] = []
    for instance in group.removing.values():
        if instance.ask_at is None or instance.ask_at > now.monotonic:
            continue
        if instance.state is State.DELETING:
            instance.ask_at = now.monotonic + retry.total_seconds()
        else:
            instance.ask_at = None
            instance.asked += 1
            chosen.append(instance)
    if not chosen:
        return
    group.calling.add(Life.REMOVING)
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
