"""A cloud that exists in memory, and a look at everything that the core's state consists of."""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from fleeting.types import Accepted, GroupInfo, Instance, Listing, State
from taskscaler.core import (
    GroupRecord,
    Phase,
    Placement,
    Record,
    ScalerState,
    Settings,
    effects,
    events,
)
from taskscaler.core.model.lifecycle import SERVING

if TYPE_CHECKING:
    import builtins
    from collections.abc import Mapping, Sequence

    from taskscaler.core import InstanceView, TaskStatus
    from taskscaler.core.model.fleet import Fleet
    from taskscaler.core.model.group import Group
    from taskscaler.core.model.instance import TrackedInstance

E = TypeVar("E", bound=effects.Effect)
R = TypeVar("R", bound=Record)

START = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass
class Cloud:
    """The truth about one group, as opposed to what the core believes."""

    name: str
    members: dict[str, Instance] = field(default_factory=dict[str, Instance])
    nameless: int = 0
    made: int = 0
    # Whether it did something that the core could not foresee, so that the limit may be passed.
    unforeseen: bool = False
    previous: Listing | None = None
    vanished: list[Instance] = field(default_factory=list[Instance])

    def create(self, count: int) -> None:
        for _ in range(count):
            self.made += 1
            id = f"{self.name}-{self.made}"
            self.members[id] = Instance(id, State.CREATING, incarnation=str(self.made))

    def listing(self) -> Listing:
        return Listing(tuple(self.members.values()), self.nameless)

    def name_all(self) -> None:
        count, self.nameless = self.nameless, 0
        self.create(count)

    def turn(self, id: str, state: State) -> None:
        self.members[id] = replace(self.members[id], state=state)

    def forget_deleted(self) -> None:
        for one in [one for one in self.members.values() if one.state is State.DELETING]:
            del self.members[one.id]

    def happen(self, what: str, id: str) -> None:
        """Change an instance without a request."""
        match what:
            case "boots":
                self.turn(id, State.RUNNING)
            case "fails":
                self.turn(id, State.FAILED)
            case "is taken away":
                self.turn(id, State.DELETING)
            case "is stopped":
                self.turn(id, State.SUSPENDED)
            case "is not understood":
                self.turn(id, State.UNKNOWN)
            case "vanishes":
                self.vanished.append(self.members.pop(id))
            case _:
                self.made += 1
                self.members[id] = Instance(id, State.CREATING, incarnation=str(self.made))


def group_key(group: str) -> tuple[str, str, str]:
    """Return the key of the record of a group."""
    return ("group", group, "")


def fleet_of(state: ScalerState) -> Fleet:
    """Return what a core knows, to compare what it counts with what it has."""
    fleet: Fleet = inside(state, "_fleet")
    return fleet


def check_state(state: ScalerState) -> None:
    """Compare everything that is counted or kept for speed with what it is derived from."""
    fleet = fleet_of(state)
    for group in fleet.groups:
        check_group(group, fleet.settings)
    tasks = fleet.tasks
    assert tasks.older <= tasks.reserved
    assert tasks.resuming <= set(tasks.suspended)
    for key, (group, instance) in tasks.suspended.items():
        assert key in instance.suspended
        assert group.members.get(instance.id) is instance
    assert fleet.preemptive == fleet.policy.preemptive
    assert fleet.keeps_idle == bool(fleet.policy.idle_count or fleet.policy.scale_factor)
    assert fleet.probe_after_seconds == fleet.settings.probe_after.total_seconds()
    assert fleet.idle_seconds == fleet.policy.idle_time.total_seconds()
    assert fleet.agenda.news == 0, "every event ends with a look at the news"


def check_group(group: Group, settings: Settings) -> None:
    """Compare what the parts of a group count with the instances that it has."""
    instances = list(group.members)
    by_phase: dict[Phase, set[str]] = {phase: set() for phase in Phase}
    for one in instances:
        by_phase[one.phase].add(one.id)
    assert group.members.counts == {phase: len(ids) for phase, ids in by_phase.items()}
    assert set(group.members.creating) == by_phase[Phase.CREATING]
    for phase, requests in (
        (Phase.REMOVING, group.removals),
        (Phase.SUSPENDING, group.suspensions.stops),
        (Phase.RESUMING, group.suspensions.starts),
    ):
        assert set(inside(requests, "_open")) == by_phase[phase], "each waits for its request"
    coming = len(by_phase[Phase.CREATING]) + len(by_phase[Phase.PREPARING])
    assert group.coming == coming + group.creations.unseen
    live = [one for one in instances if one.phase in SERVING]
    assert group.unavailable == sum(
        one.capacity
        - len(one.tasks)
        - len(one.suspended)
        - (one.open_slots if one.phase is Phase.READY else 0)
        for one in live
    )
    assert set(group.suspensions.kept) == {one.id for one in instances if one.suspended}
    assert group.suspensions.slots == sum(len(one.suspended) for one in instances)
    sick = [one for one in live if one.health.failures]
    assert set(group.checks.sick) == {one.id for one in sick}
    ready = [one for one in sick if one.phase is Phase.READY]
    assert group.checks.sick_slots == sum(one.open_slots for one in ready)
    assert group.checks.under_way == sum(one.health.checking for one in instances)
    failing = set[str]().union(*(one.ids for one in inside(group.obstacles, "_failing").values()))
    assert failing <= by_phase[Phase.PREPARING] | {one.id for one in sick}
    assert {one.id for one in sick} <= failing
    closed = {one.id: one.available for one in instances if one.id in group.idle.closed}
    assert group.idle.closed == closed, "a closed instance is idle"
    assert group.idle.closed_slots == sum(closed.values())
    for one in instances:
        check_instance(one, settings)
    check_slots(group, settings)


def check_instance(one: TrackedInstance, settings: Settings) -> None:
    """Compare what an instance remembers with its phase and its tasks."""
    assert len(one.tasks) <= settings.capacity_per_instance, "I3"
    slots = [*one.tasks.values(), *(kept.slot for kept in one.suspended.values())]
    assert len(set(slots)) == len(slots), "I3"
    free = sum(1 << slot for slot in range(one.capacity) if slot not in slots)
    assert inside(one, "_free") == free
    assert set(one.unconfirmed) <= set(one.tasks)
    assert not one.health.checking or one.phase in SERVING
    assert not one.suspended or one.phase is not Phase.REMOVING
    assert not one.tasks or one.phase in SERVING, "I2"
    assert not settings.max_use_count or one.used <= settings.max_use_count, "I4"
    if one.phase in (Phase.READY, Phase.FOREIGN):
        assert one.departure is None
    if one.phase in (Phase.DRAINING, Phase.REMOVING):
        assert one.departure is not None


def check_slots(group: Group, settings: Settings) -> None:
    """Compare what the index of slots remembers with a scan of all instances."""
    instances = list(group.members)
    assert group.slots.free == sum(one.available for one in instances)
    assert group.slots.acquired == sum(len(one.tasks) for one in instances)
    heaps = cast("list[list[tuple[int, Any]]]", inside(group.slots, "_buckets"))
    entries = {(number, id(one)) for number, heap in enumerate(heaps) for _, one in heap}
    for one in instances:
        assert one.offered == one.available
        present = sum(1 << number for number in range(len(heaps)) if (number, id(one)) in entries)
        assert one.buckets == present
    best = group.slots.best()
    able = [one for one in instances if one.available]
    if best is None:
        assert not able
    else:
        spread = settings.placement is Placement.SPREAD
        wanted = (max if spread else min)(one.available for one in able)
        assert best.number == min(one.number for one in able if one.available == wanted)


def inside(value: object, name: str) -> Any:
    """Return a private attribute."""
    return object.__getattribute__(value, name)


def picture(value: Any, seen: frozenset[int] = frozenset()) -> Any:
    """Return everything that a state consists of, as plain values that can be compared."""
    if isinstance(value, str | int | float | bool | datetime | timedelta | enum.Enum | None):
        return value
    if id(value) in seen:
        return "..."
    seen |= {id(value)}
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value).items()
        return [(picture(key, seen), picture(one, seen)) for key, one in items]
    if isinstance(value, list | tuple | deque):
        return [picture(one, seen) for one in cast("list[Any]", value)]
    if isinstance(value, set):
        return sorted(cast("set[Any]", value), key=str)
    names = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    names += list(getattr(value, "__dict__", ()))
    return [(name, picture(getattr(value, name), seen)) for name in names if name != "__weakref__"]


class Play:
    """Drives a core by hand: says what happened, and keeps what is to be done.

    Attributes:
        state: the core.
        seconds: the time.
        todo: the effects that were answered so far and not taken yet.
        stored: what a store would hold now, by key.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *groups: GroupInfo,
        records: Sequence[Record] = (),
        outcomes: Mapping[str, int] | None = None,
    ) -> None:
        infos = groups or (GroupInfo("g"),)
        self.state = ScalerState(infos, settings or Settings(), name="op")
        self.seconds = 0.0
        self.todo: list[effects.Effect] = []
        self.stored: dict[tuple[str, str, str], Record] = {one.key: one for one in records}
        self.say(events.RecordsRestored(tuple(records)))
        while self.has(effects.AskOutcome):
            # Most providers cannot tell.
            asked = next(one for one in self.todo if isinstance(one, effects.AskOutcome))
            self.todo.remove(asked)
            count = (outcomes or {}).get(asked.operation)
            self.say(events.OutcomeTold(asked.group, asked.operation, count))
        self.say(events.TimePassed())

    def say(self, event: events.Event, after: float = 0.0) -> list[effects.Effect]:
        """Tell the core what happened, some seconds later; return its answer."""
        self.seconds += after
        now = events.Now(self.seconds, START + timedelta(seconds=self.seconds))
        answer = self.state.apply(event, now)
        check_state(self.state)
        for effect in answer:
            if isinstance(effect, effects.Persist):
                self.stored.update({one.key: one for one in effect.put})
                for key in effect.drop:
                    self.stored.pop(key, None)
        self.todo += answer
        return answer

    def tick(self, after: float = 0.0) -> list[effects.Effect]:
        """Let time pass; return the answer."""
        return self.say(events.TimePassed(), after)

    def take(self, kind: type[E], group: str | None = None) -> E:
        """Return the one effect of a kind that is to be done, and take it off the list."""
        found = [
            one
            for one in self.todo
            if isinstance(one, kind) and group in (None, getattr(one, "group", None))
        ]
        assert len(found) == 1, f"expected one {kind.__name__}: {self.todo}"
        self.todo.remove(found[0])
        return found[0]

    def has(self, kind: type[effects.Effect]) -> bool:
        """Return whether an effect of a kind is to be done."""
        return any(isinstance(one, kind) for one in self.todo)

    def list(self, *instances: Instance, group: str = "g", pending: int = 0) -> None:
        """Let the listing that was asked for arrive, then decide."""
        self.take(effects.List, group)
        self.say(events.ListingArrived(group, Listing(instances, pending)))
        self.tick()

    def one(self, id: str, group: str = "g") -> InstanceView:
        """Return what is known about an instance, which must be tracked."""
        found = self.state.instance(group, id)
        assert found is not None, f"{group}/{id} is not tracked"
        return found

    def phase(self, id: str, group: str = "g") -> Phase:
        """Return the phase of an instance."""
        return self.one(id, group).phase

    def phases(self) -> dict[str, Phase]:
        """Return the phases of all instances by their ids."""
        return {one.id: one.phase for one in self.state.instances()}

    def status(self, key: str) -> TaskStatus | None:
        """Return what a task wants or has; None if its key is not in use."""
        found = self.state.task(key)
        return None if found is None else found.status

    def queue(self) -> builtins.list[str]:
        """Return the waiting tasks in order."""
        return [*self.state.waiting()]

    def records(self, kind: type[R]) -> builtins.list[R]:
        """Return the stored records of a kind."""
        return [one for one in self.stored.values() if isinstance(one, kind)]

    def failures(self) -> int:
        """Return the failures in a row for which the first group pauses, after a decision."""
        self.tick()
        return sum(one.failures for one in self.records(GroupRecord))

    def pause(self, group: str = "g") -> tuple[float, float]:
        """Return when the pause and the cooldown of a group end, in seconds, as they are stored."""
        record = self.stored[group_key(group)]
        assert isinstance(record, GroupRecord)
        ends = (record.paused_until, record.passed_over_until)
        paused, passed_over = ((end - START).total_seconds() for end in ends)
        return paused, passed_over

    def cooldown(self) -> float:
        """Return when the cooldown of the first group ends, in seconds, as the core knows it."""
        return fleet_of(self.state).groups[0].creations.cooldown.until

    def closed_slots(self) -> int:
        """Return the slots of instances that later reservations do not count on."""
        return sum(group.idle.closed_slots for group in fleet_of(self.state).groups)

    def held(self) -> builtins.list[str]:
        """Return the tasks that hold a slot."""
        return [one.key for one in self.state.held()]

    def suspended(self) -> builtins.list[str]:
        """Return the suspended tasks in order."""
        return [one.key for one in self.state.suspended()]

    def relist(self, *instances: Instance, group: str = "g") -> None:
        """Let a listing arrive at the next time when one is due."""
        while not any(isinstance(one, effects.List) and one.group == group for one in self.todo):
            self.tick(1.0)
        self.list(*instances, group=group)

    def grow(self, *ids: str, group: str = "g") -> None:
        """Let the increase that was asked for bring running instances, and make them ready."""
        increase = self.take(effects.Increase, group)
        assert increase.count == len(ids)
        accepted = Accepted(len(ids))
        self.say(events.IncreaseSettled(group, increase.operation, accepted))
        known = [one for one in self.state.instances() if one.group == group]
        listed = [Instance(one.id, State.RUNNING) for one in known]
        self.relist(*listed, *(Instance(id, State.RUNNING) for id in ids), group=group)
        for id in ids:
            self.say(events.InstancePrepared(group, id))
        self.todo = [one for one in self.todo if not isinstance(one, effects.Prepare)]
        self.tick()

    def ready(self, *ids: str, key: str = "task") -> None:
        """Get ready instances by asking for tasks, each of which gets a slot."""
        self.list()
        for number in range(len(ids) * self.state.settings.capacity_per_instance):
            self.say(events.TaskAsked(f"{key}-{number}"))
        self.tick()
        self.grow(*ids)
