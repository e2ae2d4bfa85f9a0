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
from taskscaler.core.model.decisions import Rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskscaler.core.model.demand import Demand
    from taskscaler.core.model.events import Now
    from taskscaler.core.model.group import Group
    from taskscaler.core.model.outbox import Outbox
    from taskscaler.core.model.settings import Policy
    from taskscaler.core.model.tasks import Tasks

__all__ = ("part",)


def part(
    groups: Sequence[Group],
    demand: Demand,
    now: Now,
    out: Outbox,
    *,
    tasks: Tasks,
    policy: Policy,
) -> None:
    """Remove the parting instances that are not protected any more, then mark others.

    Args:
        groups: in order of preference.
        demand: as it is after all other removals.
        now: when.
        out: for what is to be done.
        tasks: with the reservations.
        policy: the one in force.
    """
    # What could go if nobody had reserved anything.
    unneeded = demand.free - max(0, demand.waiting - demand.coming) - demand.target
    if any(group.parting for group in groups):
        _keep(groups, unneeded)
        _let_go(groups, unneeded - _protected(groups, demand, tasks), now, out)
        if not any(group.parting for group in groups):
            tasks.older.clear()
    elif demand.reserved and unneeded > 0:
        _mark(groups, tasks, unneeded, policy, now)


def _protected(groups: Sequence[Group], demand: Demand, tasks: Tasks) -> int:
    """Return the slots that reservations protect beyond those that the policy wants idle."""
    newer = demand.reserved - len(tasks.older)
    if not demand.promised:
        newer = min(newer, demand.free - sum(group.parting_slots for group in groups))
    return max(0, len(tasks.older) + newer - demand.target)


def _keep(groups: Sequence[Group], unneeded: int) -> None:
    """Let those stay that are needed after all."""
    parting = sum(group.parting_slots for group in groups)
    for group in groups:
        for id, slots in list(group.parting.items()):
            if parting > unneeded:
                group.stay(group.instances[id])
                parting -= slots


def _let_go(groups: Sequence[Group], surplus: int, now: Now, out: Outbox) -> None:
    """Remove those that nothing protects any more."""
    for group in reversed(groups):
        for id, slots in list(group.parting.items()):
            if slots <= surplus:
                instance = group.instances[id]
                idle_for = Duration(seconds=round(now.monotonic - instance.idle_since, 1))
                group.condemn(instance, Rule.IDLE, f"it was idle for {idle_for}", now, out)
                surplus -= slots


def _mark(groups: Sequence[Group], tasks: Tasks, unneeded: int, policy: Policy, now: Now) -> None:
    idle_seconds = policy.idle_time.total_seconds()
    for group in reversed(groups):
        while (instance := group.idle.first()) is not None:
            if instance.idle_since + idle_seconds > now.monotonic or instance.available > unneeded:
                break
            group.part()
            unneeded -= instance.available
            tasks.older = set(tasks.reserved)
