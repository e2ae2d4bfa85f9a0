"""A cloud that exists in memory, and a look at everything that the core's state consists of."""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from fleeting.types import Accepted, GroupInfo, Instance, Listing, State
from taskscaler.core import Life, Placement, ScalerState, Settings, effects, events

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskscaler.core import Record
    from taskscaler.core.model.group import Group

E = TypeVar("E", bound=effects.Effect)

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
        """Let something happen to an instance, without anybody having asked for it."""
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


def check_group(group: Group, settings: Settings) -> None:
    """Compare what a group counts with what it has."""
    instances = group.instances.values()
    for life in Life:
        assert group.lives[life] == sum(one.life is life for one in instances)
    assert group.slots.free == sum(one.available for one in instances)
    assert group.acquired == sum(len(one.tasks) for one in instances)
    assert set(group.creating) == {one.id for one in instances if one.life is Life.CREATING}
    assert set(group.removing) == {one.id for one in instances if one.life is Life.REMOVING}
    coming = [one for one in instances if one.life in (Life.CREATING, Life.PREPARING)]
    assert group.coming == len(coming) + group.unseen
    live = [one for one in instances if one.life in (Life.READY, Life.DRAINING)]
    sick = [one for one in instances if one.life is Life.READY and one.failures]
    assert group.unhealthy == sum(one.open_slots for one in sick)
    assert group.suspended == sum(len(one.suspended) for one in instances)
    unavailable = sum(
        one.capacity
        - len(one.tasks)
        - len(one.suspended)
        - (one.open_slots if one.life is Life.READY else 0)
        for one in live
    )
    assert group.unavailable == unavailable
    assert group.checking == sum(one.checking for one in instances)
    assert all(one.failures == 0 or group.sick[one.id] is one for one in instances)
    for one in instances:
        assert len(one.tasks) <= settings.capacity_per_instance, "I3"
        slots = [*one.tasks.values(), *(kept.slot for kept in one.suspended.values())]
        assert len(set(slots)) == len(slots), "I3"
        assert not one.checking or one.life in (Life.READY, Life.DRAINING)
        assert not one.suspended or one.life is not Life.REMOVING
        assert not one.tasks or one.life in (Life.READY, Life.DRAINING), "I2"
        assert not settings.max_use_count or one.used <= settings.max_use_count, "I4"
    check_slots(group)
    best = group.slots.best()
    able = [one for one in instances if one.available]
    if best is None:
        assert not able
    else:
        spread = settings.placement is Placement.SPREAD
        wanted = (max if spread else min)(one.available for one in able)
        assert best.number == min(one.number for one in able if one.available == wanted)


def check_slots(group: Group) -> None:
    """Compare what instances and the index of slots remember with what is so."""
    heaps = cast("list[list[tuple[int, Any]]]", inside(group.slots, "_buckets"))
    entries = {(number, id(one)) for number, heap in enumerate(heaps) for _, one in heap}
    for one in group.instances.values():
        taken = {*one.tasks.values(), *(kept.slot for kept in one.suspended.values())}
        free = sum(1 << slot for slot in range(one.capacity) if slot not in taken)
        assert inside(one, "_free") == free
        present = sum(1 << number for number in range(len(heaps)) if (number, id(one)) in entries)
        assert one.buckets == present


def inside(value: object, name: str) -> Any:
    """Return what is nobody else's business."""
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
    """

    def __init__(
        self, settings: Settings | None = None, *groups: GroupInfo, records: Sequence[Record] = ()
    ) -> None:
        infos = groups or (GroupInfo("g"),)
        self.state = ScalerState(infos, settings or Settings(), name="op")
        self.seconds = 0.0
        self.todo: list[effects.Effect] = []
        self.say(events.RecordsRestored(tuple(records)))
        self.say(events.TimePassed())

    @property
    def group(self) -> Group:
        return next(iter(self.state.groups.values()))

    def say(self, event: events.Event, after: float = 0.0) -> list[effects.Effect]:
        """Tell the core what happened, some seconds later; return its answer."""
        self.seconds += after
        now = events.Now(self.seconds, START + timedelta(seconds=self.seconds))
        answer = self.state.apply(event, now)
        for group in self.state.groups.values():
            check_group(group, self.state.settings)
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

    def life(self, id: str) -> Life:
        """Return where an instance of the first group is in its life."""
        return self.group.instances[id].life

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
        known = self.state.groups[group].instances.values()
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
