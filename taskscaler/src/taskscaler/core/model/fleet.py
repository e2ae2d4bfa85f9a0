"""All that the scaler knows; what every rule reads and changes."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from taskscaler._errors import IllegalEvent
from taskscaler.core.model.agenda import CHANGED, Agenda
from taskscaler.core.model.demand import Demand, target_idle
from taskscaler.core.model.explain import Standing
from taskscaler.core.model.group import Group
from taskscaler.core.model.lifecycle import COMING, Phase
from taskscaler.core.model.load import RecentLoad
from taskscaler.core.model.policy import InForce, in_force
from taskscaler.core.model.tasks import TaskBook
from taskscaler.core.model.throttle import TokenBucket

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fleeting.types import GroupInfo
    from taskscaler.core.model.decisions import Clamp, Decision, Rule
    from taskscaler.core.model.events import Now
    from taskscaler.core.model.settings import Settings

__all__ = ("Fleet",)

# Before the first event no policy was looked up, so the first event looks.
_NEVER = datetime.min.replace(tzinfo=UTC)


class Fleet:
    """The groups and tasks of one scaler, its settings, and its latest decision.

    Args:
        infos: the groups in order of preference.
        settings: the operator's.
        name: a prefix for the names of operations that no earlier process has used.
        portion: how much of a listing is digested at once (`rules/listings.py`).

    Raises:
        IllegalEvent: two groups have the same id, or none is given.

    Attributes:
        settings: those in force.
        portion: see above.
        touched: whether any event was applied.
        agenda: what has changed since the last decision.
        tasks: what they want and have.
        groups: in order of preference.
        load: how many tasks held or wanted a slot lately.
        outgoing: free slots on instances that are too old and go when others have come.
        bucket: limits how many instances are created at once.
        policy: the one in force.
        preemptive: whether a reservation needs a slot that is free now.
        keeps_idle: whether the policy ever wants idle slots.
        probe_after_seconds: `probe_after` of the settings; every grant reads these three.
        idle_seconds: `idle_time` of the policy; every release reads it.
        refusing: why no new tasks are accepted; empty as long as they are.
        closing: whether the scaler shuts down.
        removing: whether all our instances are to be removed for that.
        decided_at: when the newest decision was taken, in monotonic seconds.
        grow_at: when time alone makes another attempt to grow worthwhile, in monotonic
            seconds.
        blocked: decisions that the newest pass could not carry out fully, by group.
        reported: kinds of blocked decisions that were reported and still hold.
    """

    def __init__(
        self, infos: Sequence[GroupInfo], settings: Settings, name: str, portion: int
    ) -> None:
        if not infos:
            raise IllegalEvent("a scaler needs at least one group")
        ids = Counter(info.id for info in infos)
        if twice := [id for id, times in ids.items() if times > 1]:
            raise IllegalEvent(f"{', '.join(twice)} is given twice; give each group once")
        self.settings = settings
        self.portion = portion
        self.touched = False
        self.agenda = Agenda()
        self.tasks = TaskBook(self.agenda)
        self.groups = tuple(Group(info, settings, self.agenda) for info in infos)
        self.load = RecentLoad()
        self.outgoing = 0
        self.bucket = TokenBucket(settings)
        self.refusing = ""
        self.closing = False
        self.removing = False
        self.decided_at = float("-inf")
        self.grow_at = float("inf")
        self.blocked: tuple[Decision, ...] = ()
        self.reported: frozenset[tuple[str, Rule, Clamp | None]] = frozenset()
        self._by_name = {one.name: one for one in self.groups}
        self._name = name
        self._operations = 0
        self.follow(InForce(settings.policy, _NEVER, _NEVER))

    # The policy.

    @property
    def in_force(self) -> InForce:
        """Return the policy in force, and the time for which that is certain."""
        return InForce(self.policy, self.since, self.until)

    def follow(self, held: InForce) -> None:
        """Apply a policy from now on."""
        self.policy, self.since, self.until = held
        self.scheduled = bool(self.settings.schedule)
        self.probe_after_seconds = self.settings.probe_after.total_seconds()
        self.idle_seconds = self.policy.idle_time.total_seconds()
        self.preemptive = self.policy.preemptive
        self.keeps_idle = self.policy.idle_count > 0 or self.policy.scale_factor > 0

    def configure(self, settings: Settings, now: Now) -> None:
        """Apply changed settings from now on."""
        self.settings = settings
        self.bucket.configure(settings, now.monotonic)
        self.follow(in_force(settings, now.wall))
        self.agenda.news |= CHANGED

    def close(self, *, remove: bool) -> None:
        """Accept no tasks any more, and remove all our instances if asked to."""
        self.closing = True
        self.removing = remove
        self.refusing = "the scaler shuts down"
        self.agenda.news |= CHANGED

    # Groups.

    def group(self, name: str) -> Group:
        """Return a group by its id.

        Raises:
            IllegalEvent: there is none.
        """
        try:
            return self._by_name[name]
        except KeyError:
            raise IllegalEvent(f"no group has the id {name!r}") from None

    def find(self, name: str) -> Group | None:
        """Return a group by its id, or None."""
        return self._by_name.get(name)

    def name_operation(self) -> str:
        """Return a name for the next operation, unique for ever."""
        self._operations += 1
        return f"{self._name}-{self._operations}"

    # The load.

    def observe(self, now: Now) -> None:
        """Record how many tasks hold or want a slot; called at the end of every event."""
        level = len(self.tasks.waiting)
        for group in self.groups:
            level += group.slots.acquired
        if level != self.load.level:
            self.load.observe(level, now.monotonic)

    def needed(self, level: int) -> int:
        """Return the slots that so many tasks need together with the idle capacity."""
        return level + target_idle(self.policy, level)

    @property
    def recent(self) -> int:
        """Return the slots that were needed at the busiest moment of the last `idle_time`."""
        return self.needed(self.load.highest(self.decided_at, self.idle_seconds))

    # Sums.

    @property
    def free(self) -> int:
        """Return how many tasks could get a slot now."""
        return sum(group.slots.free for group in self.groups)

    @property
    def drained(self) -> bool:
        """Return whether no task waits, is promised a slot, has one or is being resumed."""
        tasks = self.tasks
        return not (tasks.reserved or tasks.waiting or tasks.held or tasks.resuming)

    @property
    def moving(self) -> int:
        """Return the slots in use that preferred groups keep free slots for."""
        return sum(group.moving_slots for group in self.groups)

    def dubious(self, group: Group) -> int:
        """Return how many of the coming instances of a group the other groups do not count on."""
        if group.creations.doubted and len(self.groups) > 1:
            return group.coming
        return group.creations.overdue(self.decided_at, self.settings)

    def demand(self) -> Demand:
        """Return the inputs of a decision as they are now."""
        tasks, settings, policy = self.tasks, self.settings, self.policy
        per_instance = settings.capacity_per_instance
        if settings.max_use_count:
            per_instance = min(per_instance, settings.max_use_count)
        acquired = free = coming = overdue = kept = instances = unavailable = 0
        unhealthy = recovering = suspended = endangered = moving = 0
        # One loop, because this is a large part of every decision.
        for group in self.groups:
            acquired += group.slots.acquired
            free += group.slots.free
            coming += group.coming
            overdue += self.dubious(group)
            kept += self._kept_slots(group, per_instance)
            instances += group.size
            unavailable += group.unavailable
            unhealthy += group.checks.sick_slots
            recovering += group.checks.recovering_slots(settings.failure_threshold)
            suspended += group.suspensions.slots
            endangered += group.endangered_slots
            moving += group.moving_slots
        return Demand(
            waiting=len(tasks.waiting),
            reserved=len(tasks.reserved),
            promised=len(tasks.reserved) if policy.preemptive else 0,
            acquired=acquired,
            free=free,
            coming=(coming - overdue) * per_instance - kept,
            unavailable=unavailable,
            target=target_idle(policy, acquired),
            slots_per_instance=per_instance,
            instances=instances,
            max_instances=settings.max_instances,
            idle_count=policy.idle_count,
            scale_factor=policy.scale_factor,
            scale_factor_limit=policy.scale_factor_limit,
            unhealthy=unhealthy,
            suspended=suspended,
            overdue=overdue * per_instance,
            recent=self.recent,
            outgoing=self.outgoing,
            endangered=endangered,
            capacity_per_instance=settings.capacity_per_instance,
            max_use_count=settings.max_use_count,
            recovering=recovering,
            moving=moving,
        )

    def _kept_slots(self, group: Group, per_instance: int) -> int:
        """Return the slots on coming instances of a group that no other task can use.

        One that is prepared again keeps suspended tasks, has uses already, or was dismissed.
        """
        kept = group.suspensions.kept
        if not kept or group.creations.doubted:
            return 0
        coming = (one for one in kept.values() if one.phase in COMING)
        return sum(per_instance - (0 if one.departure else one.open_slots) for one in coming)

    def potential(self, demand: Demand) -> int | None:
        """Return how many slots could still be added; None without a limit."""
        rooms = [] if demand.room is None else [demand.room]
        limits = [(group, group.limit(self.settings)) for group in self.groups]
        if all(limit is not None for _, limit in limits):
            rooms.append(sum(max(0, (limit or 0) - group.size) for group, limit in limits))
        return min(rooms) * demand.slots_per_instance if rooms else None

    def standing(self) -> Standing:
        """Return a summary for humans."""
        return Standing(
            self.demand(),
            {
                phase.value: sum(one.members.counts[phase] for one in self.groups)
                for phase in Phase
                if phase is not Phase.GONE
            },
            self.blocked,
            {one.name: trouble for one in self.groups if (trouble := one.trouble)},
            tuple(obstacle for one in self.groups for obstacle in one.obstacles),
            tuple(
                one.name for one in self.groups if one.listing.gone >= self.settings.missed_updates
            ),
        )
