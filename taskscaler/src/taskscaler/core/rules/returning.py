"""How the scaler returns to the groups that the operator prefers.

Another group serves while a preferred one has no capacity or does not deliver. It
must not serve for ever because of that, so:

* If an instance of a later group is used again and again, or kept idle, a preferred
  group that could have it is asked for one, at most once in each cooldown. The other
  instance serves meanwhile, so the attempt costs no task its time. A doubted group
  (`Creations.doubted`) is tried in the same way, whatever serves in its place.
* When a preferred group has free slots, instances of later groups that are fully in
  use are dismissed. Their tasks end first, and the free slots are kept until then.
* Idle instances of later groups go as soon as they are a surplus.

A group that is full by its own limit is not a reason to return: both groups are needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskscaler.core.model.decisions import Rule
from taskscaler.core.model.instance import Departure
from taskscaler.core.model.lifecycle import Phase
from taskscaler.core.rules import leaving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskscaler.core.model.demand import Demand
    from taskscaler.core.model.effects import Outbox
    from taskscaler.core.model.events import Now
    from taskscaler.core.model.fleet import Fleet
    from taskscaler.core.model.group import Group
    from taskscaler.core.model.instance import TrackedInstance

__all__ = ("due", "move", "next_at")

# Of the instances that could return, this part does at a time.
PART = 10


def due(fleet: Fleet, demand: Demand, now: Now) -> tuple[Group, int] | None:
    """Return the group to ask for instances in place of those of later groups, and how many."""
    if fleet.refusing or demand.excess >= demand.slots_per_instance or demand.moving:
        return None
    for index, group in enumerate(fleet.groups[:-1]):
        if group.coming or _may_return_at(fleet, group) > now.monotonic:
            continue
        later = fleet.groups[index + 1 :]
        if group.creations.doubted:
            # Whatever serves in its place is a reason to try it again.
            if any(other.members.serving or other.coming for other in later):
                return group, 1
        elif others := sum(1 for other in later for _ in _used_again(other)):
            return group, -(-others // PART)
    return None


def next_at(fleet: Fleet, now: Now) -> float:
    """Return when a group may be asked again that may not yet, in monotonic seconds."""
    times = [_may_return_at(fleet, group) for group in fleet.groups[:-1]]
    return min((at for at in times if at > now.monotonic), default=float("inf"))


def _may_return_at(fleet: Fleet, group: Group) -> float:
    creations = group.creations
    pause = fleet.settings.cooldown.total_seconds()
    doubt = creations.retry_at if creations.doubted else 0.0
    return max(creations.returned_at + pause, creations.cooldown.until, doubt)


def _used_again(group: Group) -> Iterator[TrackedInstance]:
    """Yield the instances that serve one task after the other, or are kept for the next."""
    if group.members.counts[Phase.READY]:
        for one in group.members:
            if one.phase is Phase.READY and (one.used > one.capacity or one.vacant):
                yield one


def move(fleet: Fleet, now: Now, out: Outbox) -> None:
    """Dismiss instances that are fully in use where a preferred group has slots for them."""
    settings, tasks = fleet.settings, fleet.tasks
    for index, group in enumerate(fleet.groups[:-1]):
        spare = group.slots.free - len(tasks.reserved) - fleet.moving
        limit = group.limit(settings)
        if spare <= 0 or any(group.creations.reluctance(now.monotonic, settings)):
            continue
        # Without room to grow the others are needed at the next peak.
        if limit is not None and group.size >= limit:
            continue
        departure = Departure(Rule.PREFERENCE, f"group {group.name} serves in its place")
        for other in reversed(fleet.groups[index + 1 :]):
            for one in [one for one in _used_again(other) if _is_full(one)]:
                if len(one.tasks) > spare:
                    return
                spare -= len(one.tasks)
                leaving.dismiss(fleet, other, one, departure, now, out)
                other.move(one)


def _is_full(instance: TrackedInstance) -> bool:
    """Return whether tasks that know it use all slots of an instance."""
    return bool(instance.tasks) and not instance.open_slots and not instance.unconfirmed
