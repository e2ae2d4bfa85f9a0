"""Lets idle instances go that nothing but reservations keeps.

A reservation protects capacity from removal. Who polls for tasks holds one at any
time, each only for a moment, but the next before or just after the last; so there
would always be one to protect an instance that is idle for ever.

An instance that is idle for long enough, and that neither the idle target nor
waiting tasks need, is therefore marked as *parting*. The reservations that exist
then are the *older* ones, and they alone still protect it. They end soon, one way
or the other. Those that come later count on the other free slots, or on what can
be created; in preemptive mode they are refused where there is neither. A task may
still get a slot on it, and then it stays.

One generation is marked at a time, and the next not before all of it has gone or
stayed. Otherwise each mark would make more reservations older ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleeting.types import Duration
from taskscaler.core.decisions import Rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskscaler.core.demand import Demand
    from taskscaler.core.events import Now
    from taskscaler.core.groups import Group
    from taskscaler.core.outbox import Outbox
    from taskscaler.core.settings import Policy
    from taskscaler.core.tasks import Tasks

__all__ = ("part",)


def part(
    groups: Sequence[Group],
    tasks: Tasks,
    demand: Demand,
    policy: Policy,
    now: Now,
    out: Outbox,
) -> None:
    """Remove the parting instances that are not protected any more, then mark others.

    Args:
        groups: in order of preference.
        tasks: with the reservations.
        demand: as it is after all other removals.
        policy: the one in force.
        now: when.
        out: for what is to be done.
    """
    # What could go if nobody had reserved anything.
    unneeded = demand.free - max(0, demand.waiting - demand.coming) - demand.target
    if any(group.parting for group in groups):
        _let_go(groups, tasks, demand, unneeded, now, out)
    elif demand.reserved and unneeded > 0:
        _mark(groups, tasks, unneeded, policy, now)


def _let_go(
    groups: Sequence[Group], tasks: Tasks, demand: Demand, unneeded: int, now: Now, out: Outbox
) -> None:
    parting = sum(group.parting_slots for group in groups)
    newer = demand.reserved - len(tasks.older)
    if not demand.promised:
        newer = min(newer, demand.free - parting)
    protected = max(0, len(tasks.older) + newer - demand.target)
    surplus = unneeded - protected
    for group in reversed(groups):
        for id, slots in list(group.parting.items()):
            instance = group.instances[id]
            if slots <= surplus:
                idle_for = Duration(seconds=round(now.monotonic - instance.idle_since, 1))
                group.condemn(instance, Rule.IDLE, f"it was idle for {idle_for}", now, out)
                surplus -= slots
                unneeded -= slots
                parting -= slots
            elif parting > unneeded:
                group.stay(instance)
                parting -= slots
    if not any(group.parting for group in groups):
        tasks.older.clear()


def _mark(groups: Sequence[Group], tasks: Tasks, unneeded: int, policy: Policy, now: Now) -> None:
    idle_seconds = policy.idle_time.total_seconds()
    for group in reversed(groups):
        while (instance := group.idle.first()) is not None:
            if instance.idle_since + idle_seconds > now.monotonic or instance.available > unneeded:
                break
            group.part()
            unneeded -= instance.available
            tasks.older = set(tasks.reserved)
