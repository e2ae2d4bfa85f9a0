"""How many instances are needed: the capacity arithmetic, in slots.

*Free* slots are those that a task could get now; *coming* ones are on instances that
are requested, created or prepared. Together they must serve the tasks that *wait*
and the *idle* capacity that the policy wants:

    wanting   = waiting + endangered
    staying   = free - outgoing
    shortfall = wanting + max(promised, target idle - recovering) - staying - coming
    now       = staying - max(0, wanting - coming) - target idle
    unneeded  = min(now, acquired + free - recent) - moving
    surplus   = min(unneeded, staying - max(0, wanting - coming) - reserved - moving)

Slots are *outgoing* on an instance that is too old, until others have taken their place.

A task is *endangered* while it runs on an instance that the cloud will soon take away. It
may end before, or will want another slot.

*Recent* are the slots that the tasks and the policy needed at the busiest moment of the
last `idle_time`. Without them, random load would remove an instance of a warm pool at
each low tide and create it again at the next high tide.

A positive shortfall creates instances; an idle instance may be removed when the
surplus is at least its slots. Both cannot hold at once, and a removal never leaves a
shortfall, so no instance is removed only to be created again. A coming instance
saves a creation, but does not replace a ready one: it may take long, or fail. An
overdue instance saves a creation only in the group that owes it. Slots in use are
*moving* if their instance goes after its tasks, because a preferred group has free
slots to serve in its place; those stay until then.

An instance that failed a check has no free slots. Waiting tasks and promises get others
at once. Idle capacity does not: the instance is expected to *recover*, until it failed
too many checks and is replaced.

A reservation protects capacity but creates none, because it may never become a task.
Only in preemptive mode, where it was promised a slot that is free at once, that slot
must exist whatever else waits. Slots in use need nothing, and neither do slots that
were lost with their instance, so a claim that outlives its instance cannot create
another one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from taskscaler.core.model.settings import Policy

__all__ = ("Demand", "target_idle")


class Demand(msgspec.Struct, frozen=True):
    """The inputs of one decision: in slots, except where it says instances.

    Attributes:
        waiting: tasks that wait for a slot.
        reserved: reservations that no task has used yet.
        promised: those of them that were promised a slot at once.
        acquired: slots in use.
        free: slots that a task could get now.
        coming: slots on instances that are not ready yet, without overdue ones.
        unavailable: free slots on serving instances that no task will get.
        target: idle slots that the policy wants.
        slots_per_instance: the slots of one more instance that may be used.
        instances: in any phase, including those not seen yet.
        max_instances: the limit for them; 0 for no limit.
        idle_count: of the policy, in slots.
        scale_factor: of the policy, as a factor of the slots in use.
        scale_factor_limit: of the policy, in slots.
        unhealthy: slots on instances that fail their health checks.
        suspended: slots of suspended tasks.
        overdue: slots on instances that were requested and should have been seen by now, or
            that come from a group that delivered nothing last.
        moving: slots in use whose successors are free in a preferred group already.
        recent: slots that tasks and the policy needed at the busiest moment of the last
            `idle_time`.
        recovering: those of the unhealthy slots that are expected back.
        outgoing: those of the free slots that go when others have taken their place.
        endangered: slots in use on instances that the cloud will soon take away.
        capacity_per_instance: of the settings, in slots.
        max_use_count: of the settings.
    """

    waiting: int
    reserved: int
    promised: int
    acquired: int
    free: int
    coming: int
    unavailable: int
    target: int
    slots_per_instance: int
    instances: int
    max_instances: int
    idle_count: int = 0
    scale_factor: float = 0.0
    scale_factor_limit: int = 0
    unhealthy: int = 0
    suspended: int = 0
    overdue: int = 0
    recent: int = 0
    recovering: int = 0
    outgoing: int = 0
    endangered: int = 0
    capacity_per_instance: int = 0
    max_use_count: int = 0
    moving: int = 0

    @property
    def inputs(self) -> dict[str, float]:
        """Return all inputs, by the names that operators know from GitLab's log."""
        return {
            "instance_count": self.instances,
            "max_instance_count": self.max_instances,
            "capacity_per_instance": self.capacity_per_instance,
            "max_use_count": self.max_use_count,
            "slots_per_instance": self.slots_per_instance,
            "acquired": self.acquired,
            "pending": self.waiting,
            "endangered": self.endangered,
            "reserved": self.reserved,
            "promised": self.promised,
            "idle": self.free,
            "outgoing": self.outgoing,
            "unready": self.coming,
            "overdue": self.overdue,
            "unavailable_capacity": self.unavailable,
            "unhealthy": self.unhealthy,
            "recovering": self.recovering,
            "suspended": self.suspended,
            "moving": self.moving,
            "idle_count": self.idle_count,
            "scale_factor": self.scale_factor,
            "scale_factor_limit": self.scale_factor_limit,
            "recently_needed": self.recent,
            "required": self.wanted,
        }

    @property
    def wanting(self) -> int:
        """Return how many tasks want a slot, now or soon."""
        return self.waiting + self.endangered

    @property
    def staying(self) -> int:
        """Return how many free slots will stay."""
        return self.free - self.outgoing

    @property
    def shortfall(self) -> int:
        """Return how many slots are missing; negative if there are more than enough."""
        idle = max(self.promised, self.target - self.recovering)
        return self.wanting + idle - self.staying - self.coming

    @property
    def unneeded(self) -> int:
        """Return how many slots neither tasks nor the policy need, now or lately."""
        now = self.staying - max(0, self.wanting - self.coming) - self.target
        return min(now, self.acquired + self.free - self.recent) - self.moving

    @property
    def surplus(self) -> int:
        """Return how many slots could be removed; negative if there are too few."""
        unreserved = self.staying - max(0, self.wanting - self.coming) - self.reserved
        return min(self.unneeded, unreserved - self.moving)

    @property
    def excess(self) -> int:
        """Return how many free slots nothing needs now, whatever was needed lately."""
        needed = max(0, self.wanting - self.coming) + max(self.reserved, self.target)
        return self.staying - needed - self.moving

    @property
    def wanted(self) -> int:
        """Return how many instances to add, without regard to limits."""
        return max(0, -(-self.shortfall // self.slots_per_instance))

    @property
    def room(self) -> int | None:
        """Return how many instances the limit still allows; None without a limit."""
        if not self.max_instances:
            return None
        return max(0, self.max_instances - self.instances)


def target_idle(policy: Policy, acquired: int) -> int:
    """Return how many slots should be idle.

    Args:
        policy: the one in force.
        acquired: slots in use.
    """
    # 1.1 times 10 is 11, although the floats multiply to 11.000000000000002.
    scaled = math.ceil(round(policy.scale_factor * acquired, 6))
    if policy.scale_factor_limit:
        scaled = min(scaled, policy.scale_factor_limit)
    return max(policy.idle_count, scaled)
