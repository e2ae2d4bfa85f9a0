"""Which instances go, and why: everything that takes an instance away.

Groups are emptied in the reverse order of preference. An instance on which a
task runs is never removed for what the policy says; it drains first.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from fleeting.types import Duration, State
from taskscaler.core.decisions import Decision, Rule
from taskscaler.core.effects import Decrease
from taskscaler.core.instances import Life

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskscaler.core.demand import Demand
    from taskscaler.core.events import Now
    from taskscaler.core.groups import Group
    from taskscaler.core.instances import Instance
    from taskscaler.core.outbox import Outbox
    from taskscaler.core.settings import Policy

__all__ = ("ask", "clear", "expire", "shrink")

# How many instances a decision names before it only counts them.
NAMED = 20


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
    groups: Sequence[Group],
    demand: Demand,
    policy: Policy,
    now: Now,
    out: Outbox,
) -> None:
    """Let the instances go that are idle for long enough and that nobody needs.

    Above the limit, as many as are too many go although the policy wants them idle;
    only those that a reservation counts on stay.
    """
    surplus, spare = demand.surplus, demand.free - demand.reserved
    excess = _excess(groups, demand.max_instances)
    idle_seconds = policy.idle_time.total_seconds()
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


def _excess(groups: Sequence[Group], limit: int) -> int:
    """Return how many instances, those aside that go already, are beyond the limit."""
    if not limit:
        return 0
    staying = sum(group.size - group.lives[Life.REMOVING] for group in groups)
    return staying - limit


def ask(group: Group, demand: Demand, now: Now, out: Outbox) -> None:
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
