"""The state machine: events in, effects out, and nothing else.

    effects = state.apply(event, now)

An event that cannot be is refused with `IllegalEvent`, and then nothing has
changed; every handler checks first and changes afterwards. Events about tasks
are the frequent ones: they touch one task and one instance and take no scaling
decision, but ask to be woken for one. `TimePassed` takes the decisions
(`scaling.py`). A report about an instance that is not there any more is
legal and ignored, because reports and removals cross on their way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from taskscaler.core import events, listings, scaling
from taskscaler.core.decisions import Rule
from taskscaler.core.effects import Grant, Persist, Refuse, WakeAt
from taskscaler.core.explain import Standing, refusal
from taskscaler.core.groups import Group
from taskscaler.core.instances import Life
from taskscaler.core.operations import Operation
from taskscaler.core.outbox import Outbox
from taskscaler.core.records import InstanceRecord
from taskscaler.core.tasks import Tasks
from taskscaler.errors import IllegalEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from fleeting.types import GroupInfo
    from taskscaler.core.decisions import Decision
    from taskscaler.core.effects import Effect
    from taskscaler.core.events import Event, Now
    from taskscaler.core.instances import Instance
    from taskscaler.core.records import Record
    from taskscaler.core.settings import Settings

__all__ = ("ScalerState",)

# Decisions that no task waits for are taken together, at most this often.
LEISURE_SECONDS = 0.1


class ScalerState:
    """Everything that the scaler knows, and the only thing that decides.

    Args:
        groups: the groups it drives, in order of preference, each id once.
        settings: the operator's.
        name: a prefix for the names of operations that no earlier life of this
            scaler has used.

    Raises:
        IllegalEvent: two groups have one id, or there is none.

    Attributes:
        settings: those in force.
        groups: by id, in order of preference.
        tasks: what they want and have.
        closing: whether no tasks are taken any more.
        blocked: what the newest decision could not have, group by group.
    """

    def __init__(self, groups: Sequence[GroupInfo], settings: Settings, *, name: str) -> None:
        self.settings = settings
        self.groups = {info.id: Group(info.id, info.max_size, settings) for info in groups}
        if len(self.groups) != len(groups) or not groups:
            raise IllegalEvent("a scaler needs at least one group, and each of them once")
        self.tasks = Tasks()
        self.closing = False
        self.blocked: tuple[Decision, ...] = ()
        self._order = tuple(self.groups.values())
        self._name = name
        self._operations = 0
        self._removing = False
        self._untouched = True
        self._wake_at = float("inf")
        self._decided_at = float("-inf")
        self._read_settings()

    def apply(self, event: Event, now: Now) -> list[Effect]:
        """Take note of what happened, and return what is to be done about it.

        Raises:
            IllegalEvent: it cannot have happened; nothing has changed.
        """
        effects = self._HANDLERS[type(event)](self, event, now)
        self._untouched = False
        return effects

    def standing(self) -> Standing:
        """Return a summary of where everything stands, for people."""
        return Standing(
            scaling.add_up(self._order, self.tasks, self.settings),
            {
                life.value: sum(one.lives[life] for one in self._order)
                for life in Life
                if life is not Life.GONE
            },
            self.blocked,
            {one.name: reason for one in self._order if (reason := one.trouble)},
        )

    @property
    def finished(self) -> bool:
        """Return whether it is closing and nothing of ours is left that was to be removed."""
        return self.closing and (
            not self._removing or all(group.empty and not group.decreasing for group in self._order)
        )

    # Tasks.

    def _reserved(self, event: events.TaskReserved, now: Now) -> list[Effect]:
        if event.key in self.tasks:
            raise IllegalEvent(f"task {event.key!r} reserves twice")
        del now
        if self.closing:
            return [Refuse(event.key, "the scaler shuts down")]
        if self._is_full():
            return [Refuse(event.key, refusal(self.standing(), preemptive=self._preemptive))]
        self.tasks.reserved.add(event.key)
        return []

    def _is_full(self) -> bool:
        """Return whether a reservation is to be refused."""
        free = -len(self.tasks.reserved) - len(self.tasks.waiting)
        for group in self._order:
            free += group.slots.free
        if free > 0 or self._preemptive:
            return free <= 0
        demand = scaling.add_up(self._order, self.tasks, self.settings)
        potential = scaling.potential(self._order, demand)
        return potential is not None and free + demand.coming + potential <= 0

    def _unreserved(self, event: events.TaskUnreserved, now: Now) -> list[Effect]:
        if event.key not in self.tasks.reserved:
            raise IllegalEvent(f"task {event.key!r} has no reservation to give back")
        self.tasks.reserved.discard(event.key)
        out = Outbox()
        self._place(out)
        self._want_leisurely(now, out)
        return out.finish()

    def _asked(self, event: events.TaskAsked, now: Now) -> list[Effect]:
        key, tasks = event.key, self.tasks
        promised = key in tasks.reserved
        if not promised and key in tasks:
            raise IllegalEvent(f"task {key!r} asks twice")
        tasks.reserved.discard(key)
        if self.closing:
            return [Refuse(key, "the scaler shuts down")]
        # A promise of a free slot comes before the queue; otherwise it is first come first served.
        if (promised and self._preemptive) or not tasks.waiting:
            for group in self._order:
                instance = group.slots.best()
                if instance is not None and self._may_take():
                    return self._grant(key, group, instance, now)
        tasks.wait(key)
        return self._want(now.monotonic)

    def _grant(self, key: str, group: Group, instance: Instance, now: Now) -> list[Effect]:
        grant = self._bind(key, group, instance)
        effects: list[Effect] = [Persist((group.record(instance),)), grant]
        if self._keeps_idle:
            effects += self._want(max(now.monotonic, self._decided_at + LEISURE_SECONDS))
        return effects

    def _bind(self, key: str, group: Group, instance: Instance) -> Grant:
        """Give a task its slot: the only place where that happens."""
        slot = group.acquire(instance, key)
        self.tasks.held[key] = (group, instance)
        return Grant(key, group.name, instance.id, slot)

    def _may_take(self) -> bool:
        """Return whether a task may take a free slot that is not promised to another one."""
        if not self._preemptive:
            return True
        return sum(group.slots.free for group in self._order) > len(self.tasks.reserved)

    def _cancelled(self, event: events.TaskCancelled, now: Now) -> list[Effect]:
        if event.key not in self.tasks.waiting:
            raise IllegalEvent(f"task {event.key!r} does not wait")
        self.tasks.cancel(event.key)
        out = Outbox()
        self._want_leisurely(now, out)
        return out.finish()

    def _released(self, event: events.TaskReleased, now: Now) -> list[Effect]:
        held = self.tasks.held.pop(event.key, None)
        if held is None:
            raise IllegalEvent(f"task {event.key!r} holds no slot")
        group, instance = held
        out = Outbox()
        # Otherwise the instance was lost, and the slot with it.
        if event.key in instance.tasks:
            group.release(instance, event.key, now, out)
            if instance.life is Life.REMOVING:
                self._wake(now.monotonic, out)
            else:
                out.put(group.record(instance))
                self._place(out)
                self._want_leisurely(now, out)
        return out.finish()

    def _place(self, out: Outbox) -> None:
        """Give free slots to the tasks that wait, the first come first."""
        for group in self._order:
            while self.tasks.waiting and (instance := group.slots.best()) is not None:
                if not self._may_take():
                    return
                out.add(self._bind(self.tasks.next(), group, instance))
                out.put(group.record(instance))

    # Groups and instances.

    def _listed(self, event: events.ListingArrived, now: Now) -> list[Effect]:
        group = self._group(event.group)
        out = Outbox()
        group.listing = False
        listings.digest(group, event.listing, now, out)
        group.list_at = now.monotonic + self._interval(group)
        self._wake(now.monotonic, out)
        return out.finish()

    def _not_listed(self, event: events.ListingFailed, now: Now) -> list[Effect]:
        group = self._group(event.group)
        out = Outbox()
        group.listing = False
        group.listing_backoff.failed(
            now.monotonic,
            str(event.error),
            first=self.settings.update_interval_when_expecting,
            limit=max(self.settings.update_interval, self.settings.update_interval_when_expecting),
            retry_after=event.error.retry_after,
        )
        group.list_at = group.listing_backoff.until
        self._wake(now.monotonic, out)
        return out.finish()

    def _interval(self, group: Group) -> float:
        settings = self.settings
        interval = (
            settings.update_interval_when_expecting if group.expecting else settings.update_interval
        )
        return interval.total_seconds()

    def _increased(self, event: events.IncreaseSettled, now: Now) -> list[Effect]:
        group = self._group(event.group)
        if event.operation not in group.operations:
            raise IllegalEvent(f"operation {event.operation!r} is not open")
        out = Outbox()
        error = event.accepted.error
        count = None if event.unknown else event.accepted.count
        asked = group.operations.expected(event.operation)
        operation = group.operations.settle(event.operation, count, event.accepted.ids)
        group.store_operation(operation, out)
        if error is not None:
            group.creation_failed(str(error), now, error.retry_after)
        elif operation.expected < asked:
            reason = f"{operation.expected} of {asked} instances were accepted, without a reason"
            group.creation_failed(reason, now)
        self._expect(group, now, out)
        return out.finish()

    def _decreased(self, event: events.DecreaseSettled, now: Now) -> list[Effect]:
        group = self._group(event.group)
        out = Outbox()
        group.decreasing = False
        retry_after = self.settings.deletion_retry_interval
        error = event.accepted.error
        if error is not None and error.retry_after is not None:
            # Some clouds say "in zero seconds".
            retry_after = max(error.retry_after, self.settings.backoff)
        for id in event.ids:
            instance = group.removing.get(id)
            if instance is not None:
                # Also when it was accepted: a removal may turn out to have had no effect.
                instance.ask_removal_at = now.monotonic + retry_after.total_seconds()
        self._expect(group, now, out)
        return out.finish()

    def _expect(self, group: Group, now: Now, out: Outbox) -> None:
        """The group was changed: look at once, and then at the short interval."""
        group.list_at = min(group.list_at, max(now.monotonic, group.listing_backoff.until))
        self._wake(now.monotonic, out)

    def _prepared(self, event: events.InstancePrepared, now: Now) -> list[Effect]:
        group = self._group(event.group)
        instance = group.instances.get(event.id)
        out = Outbox()
        if instance is not None and instance.life is Life.PREPARING:
            group.prepared(instance, now)
            self._place(out)
            self._wake(now.monotonic, out)
        return out.finish()

    def _unprepared(self, event: events.PreparationFailed, now: Now) -> list[Effect]:
        group = self._group(event.group)
        instance = group.instances.get(event.id)
        out = Outbox()
        if instance is not None and instance.life is Life.PREPARING:
            group.condemn(instance, Rule.FAILED, event.reason, now, out)
            reason = f"instance {instance.id} did not become ready: {event.reason}"
            group.creation_failed(reason, now)
            self._wake(now.monotonic, out)
        return out.finish()

    def _broke(self, event: events.InstanceBroke, now: Now) -> list[Effect]:
        group = self._group(event.group)
        instance = group.instances.get(event.id)
        out = Outbox()
        if instance is not None and instance.life is Life.READY:
            group.retire(instance, Rule.FAILED, event.reason, now, out)
            # The cloud may know more, and what it knows may concern other tasks there.
            self._expect(group, now, out)
        return out.finish()

    def _group(self, name: str) -> Group:
        try:
            return self.groups[name]
        except KeyError:
            raise IllegalEvent(f"there is no group {name!r}") from None

    # The scaler itself.

    def _restored(self, event: events.RecordsRestored, now: Now) -> list[Effect]:
        if not self._untouched:
            raise IllegalEvent("records are restored before anything else")
        out = Outbox()
        # The oldest first, whatever the order in which the store has them.
        for record in sorted(event.records, key=_began):
            group = self.groups.get(record.group)
            if group is None:
                continue  # Of a group that is not driven any more; its record stays.
            if isinstance(record, InstanceRecord):
                group.restore(record, now, out)
            else:
                operation = Operation(record.id, record.count, now.monotonic, record.asked_at)
                group.operations.add(operation)
                group.operations.settle(record.id, None)
        return out.finish()

    def _changed(self, event: events.SettingsChanged, now: Now) -> list[Effect]:
        for name in ("capacity_per_instance", "max_use_count", "placement"):
            if getattr(event.settings, name) != getattr(self.settings, name):
                raise IllegalEvent(f"{name} cannot change while the scaler runs; restart it")
        readopt = event.settings.unknown_instances is not self.settings.unknown_instances
        self.settings = event.settings
        self._read_settings()
        out = Outbox()
        for group in self._order:
            group.settings = event.settings
            group.list_at = min(group.list_at, now.monotonic + self._interval(group))
            # Not before the next listing: until then they count against the limits.
            group.judge_again = group.judge_again or readopt
        # Slots that were promised to reservations may be free for everybody now.
        self._place(out)
        self._wake(now.monotonic, out)
        return out.finish()

    def _read_settings(self) -> None:
        policy = self.settings.policy
        self._preemptive = policy.preemptive
        self._keeps_idle = policy.idle_count > 0 or policy.scale_factor > 0

    def _shut_down(self, event: events.ShutdownAsked, now: Now) -> list[Effect]:
        self.closing = True
        self._removing = event.remove
        out = Outbox()
        while self.tasks.waiting:
            out.add(Refuse(self.tasks.next(), "the scaler shuts down"))
        self._wake(now.monotonic, out)
        return out.finish()

    def _time_passed(self, event: events.TimePassed, now: Now) -> list[Effect]:
        del event
        out = Outbox()
        self._decided_at = now.monotonic
        for group in self._order:
            scaling.expire(group, now, out)
            if self._removing:
                scaling.clear(group, now, out)
        demand = scaling.add_up(self._order, self.tasks, self.settings)
        if not self.closing:
            scaling.shrink(self._order, demand, self.settings, now, out)
            decisions = scaling.grow(self._order, demand, now, out, self._name_operation)
            self.blocked = tuple(one for one in decisions if one.clamped_by)
        self._wake_at = float("inf")
        for group in self._order:
            scaling.remove(group, demand, now, out)
            scaling.refresh(group, now, out)
            self._wake_at = min(self._wake_at, scaling.wake_time(group, demand, now))
        out.add(WakeAt(self._wake_at))
        return out.finish()

    def _name_operation(self) -> str:
        self._operations += 1
        return f"{self._name}-{self._operations}"

    # When to decide next.

    def _want(self, at: float) -> list[Effect]:
        if at >= self._wake_at:
            return []
        self._wake_at = at
        return [WakeAt(at)]

    def _wake(self, at: float, out: Outbox) -> None:
        for effect in self._want(at):
            out.add(effect)

    def _want_leisurely(self, now: Now, out: Outbox) -> None:
        """Something is less needed than before: see, without haste, whether it can go."""
        idle_seconds = self.settings.policy.idle_time.total_seconds()
        for group in self._order:
            since = group.idle_since()
            if since is not None:
                at = max(since + idle_seconds, self._decided_at + LEISURE_SECONDS, now.monotonic)
                self._wake(at, out)

    _HANDLERS: ClassVar[Mapping[type[Event], Callable[..., list[Effect]]]] = {
        events.TaskReserved: _reserved,
        events.TaskUnreserved: _unreserved,
        events.TaskAsked: _asked,
        events.TaskCancelled: _cancelled,
        events.TaskReleased: _released,
        events.ListingArrived: _listed,
        events.ListingFailed: _not_listed,
        events.IncreaseSettled: _increased,
        events.DecreaseSettled: _decreased,
        events.InstancePrepared: _prepared,
        events.PreparationFailed: _unprepared,
        events.InstanceBroke: _broke,
        events.SettingsChanged: _changed,
        events.RecordsRestored: _restored,
        events.ShutdownAsked: _shut_down,
        events.TimePassed: _time_passed,
    }


def _began(record: Record) -> datetime:
    return record.created_at if isinstance(record, InstanceRecord) else record.asked_at
