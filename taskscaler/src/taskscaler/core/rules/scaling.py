"""What one scaling decision looks at, and when the next one is due.

One pass looks at each group once, adds up the demand once, and asks each group
for one increase and one decrease at most, however many tasks came since the
last pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskscaler.core.model.demand import Demand, target_idle
from taskscaler.core.model.effects import List
from taskscaler.core.model.instance import Life
from taskscaler.core.rules import health, removal, suspension

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from taskscaler.core.model.events import Now
    from taskscaler.core.model.group import Group
    from taskscaler.core.model.outbox import Outbox
    from taskscaler.core.model.settings import Policy, Settings
    from taskscaler.core.model.tasks import Tasks

__all__ = ("add_up", "patience", "potential", "refresh", "wake_time")

# What takes longer than this part of the time that it may take does not keep others waiting.
PATIENCE = 0.1


def patience(timeout: timedelta) -> float:
    """Return for how many seconds something with a timeout may hold up what depends on it."""
    return timeout.total_seconds() * PATIENCE


def add_up(groups: Sequence[Group], tasks: Tasks, settings: Settings, policy: Policy) -> Demand:
    """Return the inputs of the decisions as they are now."""
    acquired = sum(group.acquired for group in groups)
    per_instance = settings.capacity_per_instance
    if settings.max_use_count:
        per_instance = min(per_instance, settings.max_use_count)
    overdue = sum(group.overdue for group in groups)
    coming = (sum(group.coming for group in groups) - overdue) * per_instance
    # On those that come back from their sleep, suspended tasks keep their slots.
    coming -= sum(
        min(len(one.suspended), per_instance)
        for group in groups
        for one in group.keeping.values()
        if one.life in (Life.CREATING, Life.PREPARING)
    )
    return Demand(
        waiting=len(tasks.waiting),
        reserved=len(tasks.reserved),
        promised=len(tasks.reserved) if policy.preemptive else 0,
        acquired=acquired,
        free=sum(group.slots.free for group in groups),
        coming=coming,
        unavailable=sum(group.unavailable for group in groups),
        target=target_idle(policy, acquired),
        slots_per_instance=per_instance,
        instances=sum(group.size for group in groups),
        max_instances=settings.max_instances,
        idle_count=policy.idle_count,
        scale_factor=policy.scale_factor,
        scale_factor_limit=policy.scale_factor_limit,
        unhealthy=sum(group.unhealthy for group in groups),
        suspended=sum(group.suspended for group in groups),
        overdue=overdue * per_instance,
    )


def potential(groups: Sequence[Group], demand: Demand) -> int | None:
    """Return how many slots could still be added; None if there is no limit."""
    rooms = [demand.room]
    if all(group.limit is not None for group in groups):
        rooms.append(sum(max(0, (group.limit or 0) - group.size) for group in groups))
    limits = [room for room in rooms if room is not None]
    return min(limits) * demand.slots_per_instance if limits else None


def refresh(group: Group, now: Now, out: Outbox) -> None:
    """Ask for a listing if one is due."""
    if not group.listing and group.list_at <= now.monotonic:
        group.listing = True
        group.listing_since = now.monotonic
        out.add(List(group.name, group.settings.operation_timeout.total_seconds()))


def wake_time(group: Group, policy: Policy, now: Now) -> float:
    """Return when the group needs the next decision if nothing happens before, in seconds."""
    settings = group.settings
    times = [] if group.listing else [group.list_at]
    overdue_at = group.operations.overdue_at(now.monotonic, patience(settings.creation_timeout))
    if overdue_at is not None:
        times.append(overdue_at)
    if Life.REMOVING not in group.calling:
        asks = (instance.ask_at for instance in group.removing.values())
        times.extend(ask for ask in asks if ask is not None)
    times += (
        health.next_check(group),
        suspension.next_ask(group, now),
        removal.next_age(group, now),
    )
    idle = group.idle.first()
    if idle is not None:
        expiry = idle.idle_since + policy.idle_time.total_seconds()
        # One that is idle for long enough already stays because it is needed. What ends
        # that need is an event, and asks for a decision by itself.
        if expiry > now.monotonic:
            times.append(expiry)
    return min(times, default=float("inf"))
