"""The state machine: events in, effects out, and nothing else.

    effects = state.apply(event, now)

An event that cannot be is refused with `IllegalEvent`, and then nothing has
changed; every handler checks first and changes afterwards. The handlers are by
topic: what tasks want (`claims.py`), what groups and instances report
(`reports.py`); those that concern the scaler as a whole are here. `TimePassed`
takes the scaling decisions (`growth.py`, `removal.py`, `scaling.py`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, ClassVar

import msgspec

from taskscaler._errors import IllegalEvent
from taskscaler.core.model import backoff_records as troubles
from taskscaler.core.model import events
from taskscaler.core.model.decisions import PASSING
from taskscaler.core.model.effects import Decided, Refuse, WakeAt
from taskscaler.core.model.explain import Standing
from taskscaler.core.model.group import Group
from taskscaler.core.model.instance import Life
from taskscaler.core.model.outbox import Outbox
from taskscaler.core.model.policy import InForce, in_force
from taskscaler.core.model.tasks import Tasks
from taskscaler.core.model.throttle import TokenBucket
from taskscaler.core.rules import (
    claims,
    growth,
    health,
    listings,
    parting,
    removal,
    reports,
    restoring,
    scaling,
    suspension,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import timedelta

    from fleeting.types import GroupInfo
    from taskscaler.core.model.decisions import Clamp, Decision, Rule
    from taskscaler.core.model.demand import Demand
    from taskscaler.core.model.effects import Effect
    from taskscaler.core.model.events import Event, Now
    from taskscaler.core.model.instance import Instance
    from taskscaler.core.model.settings import Settings

__all__ = ("ScalerState",)

# Never is it later than this without a look at the policy.
UNKNOWN = datetime.min.replace(tzinfo=UTC)

# A wall clock that lags behind is asked again after this time, in seconds.
LAG_SECONDS = 0.1


class ScalerState:
    """Everything that the scaler knows, and the only thing that decides.

    Args:
        groups: the groups it drives, in order of preference, each id once.
        settings: the operator's.
        name: a prefix for the names of operations that no earlier life of this
            scaler has used.
        portion: how much of a listing is digested at once, where an instance that is as
            it was counts as one.

    Raises:
        IllegalEvent: two groups have one id, or there is none.

    Attributes:
        settings: those in force.
        portion: how much of a listing is digested at once.
        policy: the one in force.
        preemptive: whether a reservation needs a slot that is free now.
        keeps_idle: whether the policy ever wants idle slots.
        groups: by id.
        order: the same groups in order of preference.
        tasks: what they want and have.
        closing: whether the scaler shuts down.
        refusing: why no new tasks are taken; empty as long as they are.
        untouched: whether nothing has happened yet.
        probe_after: see the settings; in seconds.
        blocked: what the newest decision could not have, group by group.
        decided_at: when the newest decision was taken, in monotonic seconds.
    """

    def __init__(
        self,
        groups: Sequence[GroupInfo],
        settings: Settings,
        *,
        name: str,
        portion: int = listings.PORTION,
    ) -> None:
        self.settings = settings
        self.portion = portion
        self.tasks = Tasks()
        self.groups = {info.id: Group(info, settings, self.tasks) for info in groups}
        if len(self.groups) != len(groups) or not groups:
            raise IllegalEvent("a scaler needs at least one group, and each of them once")
        self.closing = False
        self.refusing = ""
        self.blocked: tuple[Decision, ...] = ()
        self.order = tuple(self.groups.values())
        self._name = name
        self._operations = 0
        self._removing = False
        self.untouched = True
        self._wake_at = float("inf")
        self._held: frozenset[tuple[str, Rule, Clamp | None]] = frozenset()
        self.decided_at = float("-inf")
        self.bucket = TokenBucket(settings)
        self._take(InForce(settings.policy, UNKNOWN, UNKNOWN))

    def apply(self, event: Event, now: Now) -> list[Effect]:
        """Take note of what happened, and return what is to be done about it.

        Raises:
            IllegalEvent: it cannot have happened; nothing has changed.
        """
        if self._scheduled and not self._since <= now.wall < self._until:
            effects = self._look_and_apply(event, now)
        else:
            effects = self._HANDLERS[type(event)](self, event, now)
        self.untouched = False
        return effects

    def _look_and_apply(self, event: Event, now: Now) -> list[Effect]:
        """Find out which policy is in force, and apply the event under that one."""
        before = InForce(self.policy, self._since, self._until)
        self._take(in_force(self.settings, now.wall))
        switched = self.policy != before.policy
        try:
            effects = self._HANDLERS[type(event)](self, event, now)
        except IllegalEvent:
            self._take(before)
            raise
        if switched and not isinstance(event, events.TimePassed):
            out = Outbox()
            # Slots that were promised to reservations may be free for everybody now.
            self.place(now, out)
            self.wake(now.monotonic, out)
            effects += out.finish()
        return effects

    def _take(self, held: InForce) -> None:
        """Go by a policy from now on."""
        self.policy, self._since, self._until = held
        self._scheduled = bool(self.settings.schedule)
        self.probe_after = self.settings.probe_after.total_seconds()
        self.preemptive = self.policy.preemptive
        self.keeps_idle = self.policy.idle_count > 0 or self.policy.scale_factor > 0

    def standing(self) -> Standing:
        """Return a summary of where everything stands, for people."""
        return Standing(
            self.demand(),
            {
                life.value: sum(one.lives[life] for one in self.order)
                for life in Life
                if life is not Life.GONE
            },
            self.blocked,
            {one.name: reason for one in self.order if (reason := one.trouble)},
        )

    @property
    def finished(self) -> bool:
        """Return whether it is closing and nothing of ours is left that was to be removed."""
        return self.closing and (
            not self._removing or all(removal.cleared(group) for group in self.order)
        )

    @property
    def drained(self) -> bool:
        """Return whether no task waits, is promised a slot or has one.

        Suspended ones do not count, unless they wait to go on.
        """
        tasks = self.tasks
        return not (tasks.reserved or tasks.waiting or tasks.held or tasks.resuming)

    @property
    def deletion_retry(self) -> timedelta:
        """Return when to ask again for a removal that had no effect."""
        if self._removing:
            return self.settings.shutdown_deletion_interval
        return self.settings.deletion_retry_interval

    # What the handlers share.

    def demand(self) -> Demand:
        """Return the inputs of the decisions as they are now."""
        return scaling.add_up(self.order, self.tasks, self.settings, self.policy)

    def group(self, name: str) -> Group:
        """Return a group by its id.

        Raises:
            IllegalEvent: there is none.
        """
        try:
            return self.groups[name]
        except KeyError:
            raise IllegalEvent(f"there is no group {name!r}") from None

    def expect(self, group: Group, now: Now, out: Outbox) -> None:
        """The group was changed: look at once, and then at the short interval."""
        group.list_at = min(group.list_at, max(now.monotonic, group.listing_backoff.until))
        self.wake(now.monotonic, out)

    def bind(self, key: str, group: Group, instance: Instance, now: Now, out: Outbox) -> None:
        """Give a task its slot: the only place where that happens."""
        group.acquire(instance, key)
        self.tasks.held[key] = (group, instance)
        health.confirm(self, key, now, out)

    def may_take(self) -> bool:
        """Return whether a task may take a free slot that is not promised to another one."""
        if not self.preemptive:
            return True
        return sum(group.slots.free for group in self.order) > len(self.tasks.reserved)

    def place(self, now: Now, out: Outbox) -> None:
        """Give free slots to the tasks that wait, the first come first."""
        while self.closing and self.tasks.waiting:
            out.add(Refuse(self.tasks.next(), self.refusing))
        for group in self.order:
            while self.tasks.waiting and (instance := group.slots.best()) is not None:
                if not self.may_take():
                    return
                self.bind(self.tasks.next(), group, instance, now, out)
                out.put(group.record(instance))

    # The scaler itself.

    def _changed(self, event: events.SettingsChanged, now: Now) -> list[Effect]:
        for name in ("capacity_per_instance", "max_use_count", "placement"):
            if getattr(event.settings, name) != getattr(self.settings, name):
                raise IllegalEvent(f"{name} cannot change while the scaler runs; restart it")
        readopt = event.settings.unknown_instances is not self.settings.unknown_instances
        self.settings = event.settings
        self.bucket.configure(event.settings, now.monotonic)
        self._take(in_force(event.settings, now.wall))
        out = Outbox()
        for group in self.order:
            group.settings = event.settings
            # What is not ours is judged again by the next listing, so that comes at once.
            pause = 0.0 if readopt else reports.interval(self, group)
            # A shorter interval makes no pause shorter that the cloud asked for.
            at = max(now.monotonic + pause, group.listing_backoff.until)
            group.list_at = min(group.list_at, at)
            group.judge_again = group.judge_again or readopt
        # Slots that were promised to reservations may be free for everybody now.
        self.place(now, out)
        self.wake(now.monotonic, out)
        return out.finish()

    def _drain(self, event: events.DrainAsked, now: Now) -> list[Effect]:
        del event, now
        self.refusing = self.refusing or "the scaler takes no new tasks, because it is drained"
        return []

    def _shut_down(self, event: events.ShutdownAsked, now: Now) -> list[Effect]:
        self.closing = True
        self.refusing = "the scaler shuts down"
        self._removing = event.remove
        out = Outbox()
        self.place(now, out)
        for key in sorted(self.tasks.resuming):
            out.add(Refuse(key, self.refusing))
        self.tasks.resuming.clear()
        self.wake(now.monotonic, out)
        return out.finish()

    def _time_passed(self, event: events.TimePassed, now: Now) -> list[Effect]:
        del event
        out = Outbox()
        for group in self.order:
            reports.go_on(self, group, now, out)
        if any(group.digestion for group in self.order):
            # What is not known yet could make a decision wrong.
            self.place(now, out)
            self._wake_at = now.monotonic
            out.add(WakeAt(self._wake_at))
            return out.finish()
        self.decided_at = now.monotonic
        suspension.expire(self, now, out)
        for group in self.order:
            removal.expire(group, now, out)
            removal.age(group, now, out)
            if self._removing:
                removal.clear(group, now, out)
            growth.review(group, now)
        # A switch of the policy may just have set slots free for those who wait.
        self.place(now, out)
        demand = self.demand()
        self._wake_at = float("inf")
        if not self.closing:
            removal.shrink(self.order, demand, self.policy, now, out)
            if self.tasks.reserved or any(group.parting for group in self.order):
                left = self.demand()
                parting.part(self.order, left, now, out, tasks=self.tasks, policy=self.policy)
            self._grow(demand, now, out)
        self._wake_at = min(self._wake_at, suspension.next_expiry(self, now))
        for group in self.order:
            health.check(group, now, out)
            suspension.ask(group, now, out)
            troubles.keep(group, now, out)
            removal.ask(group, demand, now, out, retry=self.deletion_retry)
            scaling.refresh(group, now, out)
            self._wake_at = min(self._wake_at, scaling.wake_time(group, self.policy, now))
        out.add(WakeAt(self._wake_at))
        return out.finish()

    def _grow(self, demand: Demand, now: Now, out: Outbox) -> None:
        """Grow, and tell what is held back once, not each time that it is."""
        if self.refusing:
            # Nobody will come for what is idle.
            demand = msgspec.structs.replace(demand, target=0)
        grown = growth.grow(
            self.order, demand, now, out, bucket=self.bucket, name_operation=self._name_operation
        )
        self.blocked = tuple(one for one in grown.decisions if one.clamped_by)
        idle = [one for one in self.blocked if not (one.decided or one.clamp in PASSING)]
        for decision in idle:
            if decision.kind not in self._held:
                out.add(Decided(decision))
        self._held = frozenset(one.kind for one in idle)
        self._wake_at = grown.again_at
        if self._scheduled:
            left = (self._until - now.wall).total_seconds()
            self._wake_at = min(self._wake_at, now.monotonic + max(left, LAG_SECONDS))

    def _name_operation(self) -> str:
        self._operations += 1
        return f"{self._name}-{self._operations}"

    # When to decide next.

    def want(self, at: float) -> list[Effect]:
        """Ask to be woken at a moment in monotonic seconds, unless that is to be sooner anyway."""
        if at >= self._wake_at:
            return []
        self._wake_at = at
        return [WakeAt(at)]

    def wake(self, at: float, out: Outbox) -> None:
        """Do the same as `want`, into an outbox."""
        for effect in self.want(at):
            out.add(effect)

    _HANDLERS: ClassVar[Mapping[type[Event], Callable[..., list[Effect]]]] = {
        events.TaskReserved: claims.reserved,
        events.TaskUnreserved: claims.unreserved,
        events.TaskAsked: claims.asked,
        events.TaskCancelled: claims.cancelled,
        events.TaskReleased: claims.released,
        events.ListingArrived: reports.listed,
        events.ListingFailed: reports.not_listed,
        events.IncreaseSettled: reports.increased,
        events.DecreaseSettled: reports.decreased,
        events.InstancePrepared: reports.prepared,
        events.PreparationFailed: reports.unprepared,
        events.InstanceBroke: reports.broke,
        events.InterruptionAnnounced: reports.interrupted,
        events.HealthPassed: health.passed,
        events.HealthFailed: health.failed,
        events.TaskSuspended: suspension.suspended,
        events.TaskResumed: suspension.resumed,
        events.SuspendedTaskDropped: suspension.dropped,
        events.SuspendSettled: suspension.suspend_settled,
        events.ResumeSettled: suspension.resume_settled,
        events.DrainAsked: _drain,
        events.SettingsChanged: _changed,
        events.RecordsRestored: restoring.restored,
        events.ShutdownAsked: _shut_down,
        events.TimePassed: _time_passed,
    }
