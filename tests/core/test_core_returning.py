"""Which group serves after a preferred one had no capacity, or did not deliver."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from core_model import START, Cloud, Play
from fleeting.errors import OutOfCapacity, ProviderError
from fleeting.types import Accepted, GroupInfo, Instance, State
from taskscaler.core import (
    GroupRecord,
    InstanceRecord,
    Phase,
    Policy,
    Rule,
    Settings,
    effects,
    events,
)

SPOT, ON_DEMAND = GroupInfo("spot"), GroupInfo("on-demand")
BOOT_SECONDS = 30.0


@dataclass
class Fault:
    """The way in which a group fails.

    Attributes:
        until: when it ends, in seconds.
        error: refuses each request; without one, instances never boot.
    """

    until: float = float("inf")
    error: ProviderError | None = None


class World:
    """Two groups that boot instances, and tasks that come one after the other.

    Attributes:
        created: how many instances each group has created.
        waits: how long each task waited, in seconds.
        ran: in which group each task ran.
    """

    def __init__(self, settings: Settings, fault: Fault) -> None:
        calm = replace(settings, update_interval_when_expecting=timedelta(seconds=5))
        self.play = Play(calm, SPOT, ON_DEMAND)
        self.clouds = {one.id: Cloud(one.id) for one in (SPOT, ON_DEMAND)}
        self.fault = fault
        self.boots: dict[str, float] = {}
        self.waits: list[float] = []
        self.ran: list[str] = []

    @property
    def created(self) -> dict[str, int]:
        return {name: cloud.made for name, cloud in self.clouds.items()}

    def run(self, tasks: int, seconds: float, gap: float) -> None:
        for number in range(tasks):
            key, asked = f"t{number}", self.play.seconds
            self.play.say(events.TaskAsked(key))
            while key not in self.play.held():
                self.step()
            self.waits.append(self.play.seconds - asked)
            self.pass_time(seconds)
            self.play.say(events.TaskReleased(key))
            self.pass_time(gap)

    def pass_time(self, seconds: float) -> None:
        end = self.play.seconds + seconds
        while self.play.seconds < end:
            self.step(end)

    def step(self, end: float = float("inf")) -> None:
        """Do what is to be done, and pass the time until the core wants to be woken."""
        play = self.play
        while any(not isinstance(one, effects.WakeAt) for one in play.todo):
            effect = next(one for one in play.todo if not isinstance(one, effects.WakeAt))
            play.todo.remove(effect)
            self.do(effect)
        wakes = [one.monotonic for one in play.todo if isinstance(one, effects.WakeAt)]
        wake = wakes[-1] if wakes else float("inf")
        if wakes and wake <= end:
            play.todo = []
            play.seconds = max(play.seconds, wake)
            play.tick()
        else:
            play.seconds = end

    def do(self, effect: effects.Effect) -> None:
        play = self.play
        match effect:
            case effects.List():
                self.boot()
                play.say(events.ListingArrived(effect.group, self.clouds[effect.group].listing()))
            case effects.Increase():
                play.say(self.increase(effect))
            case effects.Decrease():
                for id in effect.ids:
                    self.clouds[effect.group].members.pop(id, None)
                accepted = Accepted(len(effect.ids), effect.ids)
                play.say(events.DecreaseSettled(effect.group, effect.ids, accepted))
            case effects.Prepare():
                play.say(events.InstancePrepared(effect.group, effect.id))
            case effects.CheckHealth():
                play.say(events.HealthPassed(effect.group, effect.id))
            case effects.Grant():
                self.ran.append(effect.group)
            case _:
                pass

    def increase(self, effect: effects.Increase) -> events.Event:
        fails = effect.group == "spot" and self.play.seconds < self.fault.until
        if fails and self.fault.error is not None:
            accepted = Accepted(0, error=self.fault.error)
            return events.IncreaseSettled(effect.group, effect.operation, accepted)
        cloud = self.clouds[effect.group]
        before = set(cloud.members)
        cloud.create(effect.count)
        if not fails:
            new = set(cloud.members) - before
            self.boots |= dict.fromkeys(new, self.play.seconds + BOOT_SECONDS)
        return events.IncreaseSettled(effect.group, effect.operation, Accepted(effect.count))

    def boot(self) -> None:
        for cloud in self.clouds.values():
            for one in list(cloud.members.values()):
                due = self.boots.get(one.id, float("inf")) <= self.play.seconds
                if one.state is State.CREATING and due:
                    cloud.turn(one.id, State.RUNNING)


@pytest.mark.parametrize(
    ("policy", "gap"),
    [
        (Policy(idle_count=1, idle_time=timedelta(minutes=20)), 5.0),
        (Policy(idle_time=timedelta(minutes=20)), 60.0),
        (Policy(idle_time=timedelta(minutes=2)), 60.0),
    ],
)
def test_the_other_group_is_left_when_the_preferred_one_has_capacity_again(
    policy: Policy, gap: float
) -> None:
    """After 30 seconds without capacity the preferred group serves again, bought once."""
    world = World(Settings(policy=policy), Fault(30.0, OutOfCapacity("none left")))
    world.run(20, 300.0, gap)
    assert world.ran.count("on-demand") < 6
    assert set(world.ran[6:]) == {"spot"}
    assert not world.clouds["on-demand"].members
    assert sum(one > BOOT_SECONDS + 10 for one in world.waits[1:]) == 0


@pytest.mark.parametrize("use_count", [0, 1])
def test_a_group_that_never_delivers_costs_one_task_its_time(use_count: int) -> None:
    """The others are served by the other group; attempts go on, once in each cooldown."""
    settings = Settings(max_use_count=use_count, policy=Policy(idle_time=timedelta(minutes=2)))
    world = World(settings, Fault())
    world.run(12, 300.0, 600.0)
    assert sum(one > BOOT_SECONDS + 10 for one in world.waits) == 1
    assert set(world.ran) == {"on-demand"}
    assert 2 < world.created["spot"] < 15


def test_a_group_that_delivers_again_is_preferred_again() -> None:
    """The first attempt that succeeds ends the doubt, and no task waits for it."""
    settings = Settings(policy=Policy(idle_time=timedelta(minutes=2)))
    world = World(settings, Fault(3600.0))
    world.run(12, 300.0, 600.0)
    assert sum(one > BOOT_SECONDS + 10 for one in world.waits) == 1
    assert set(world.ran[8:]) == {"spot"}
    assert not world.clouds["on-demand"].members


def move(limit: int = 0, **changes: object) -> tuple[Play, str]:
    """Return a play in which the second group serves, and the id of its busy instance."""
    values = {
        "policy": Policy(idle_time=timedelta(minutes=1)),
        "throttle_limit": math.inf,
        **changes,
    }
    if limit:
        values["group_limits"] = {"spot": limit}
    play = Play(Settings(**values), SPOT, ON_DEMAND)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - of many types
    play.list(group="spot")
    play.list(group="on-demand")
    play.say(events.TaskAsked("t0"))
    play.tick()
    increase = play.take(effects.Increase)
    error = OutOfCapacity("none left")
    play.say(events.IncreaseSettled("spot", increase.operation, Accepted(0, error=error)))
    play.tick()
    play.grow("b", group="on-demand")
    for number in range(2):
        play.say(events.TaskReleased(f"t{number}"))
        play.say(events.TaskAsked(f"t{number + 1}"))
    play.tick()
    assert not play.has(effects.Increase), "the cooldown is not over"
    play.tick(300.0)
    return play, "b"


def test_the_successor_stays_until_the_last_task_of_the_other_group_ends() -> None:
    """It is ready first, and then idle for longer than the policy allows."""
    play, id = move()
    increase = play.take(effects.Increase)
    assert (increase.group, increase.count) == ("spot", 1)
    assert increase.decision.rule is Rule.RETURN
    play.say(events.IncreaseSettled("spot", increase.operation, Accepted(1)))
    play.relist(Instance("a", State.RUNNING), group="spot")
    play.say(events.InstancePrepared("spot", "a"))
    play.tick()
    assert play.one(id, "on-demand").rule is Rule.PREFERENCE
    assert play.phase(id, "on-demand") is Phase.DRAINING
    assert play.state.demand().moving == 1
    play.tick(600.0)
    assert play.phase("a", "spot") is Phase.READY
    play.say(events.TaskReleased("t2"))
    play.tick()
    assert play.state.demand().moving == 0
    assert play.phase(id, "on-demand") is Phase.REMOVING


def test_a_return_that_is_refused_is_tried_again_after_the_cooldown() -> None:
    """The other group serves, so nothing is urgent."""
    play, _ = move()
    increase = play.take(effects.Increase)
    accepted = Accepted(0, error=ProviderError("not now"))
    play.say(events.IncreaseSettled("spot", increase.operation, accepted))
    play.tick(299.0)
    assert not play.has(effects.Increase)
    play.tick(1.0)
    assert play.take(effects.Increase).group == "spot"


@pytest.mark.parametrize("changes", [{"max_instances": 1}, {"limit": -1}, {"drained": True}])
def test_nothing_returns_without_room_or_in_a_drain(changes: dict[str, int]) -> None:
    """The limits hold as for any growth, and no later task would use it."""
    drained = changes.pop("drained", False)
    limit = changes.pop("limit", 0)
    play, _ = move(**changes)
    play.todo = [one for one in play.todo if not isinstance(one, effects.Increase)]
    if limit:
        settings = replace(play.state.settings, group_limits={"spot": 0})
        play.say(events.SettingsChanged(settings))
    if drained:
        play.say(events.DrainAsked())
    play.tick(301.0)
    assert play.has(effects.Increase) is False


def test_both_groups_stay_where_the_preferred_one_is_full() -> None:
    """An instance of the other group is needed at the next peak, so it is not dismissed."""
    policy = Policy(idle_time=timedelta(hours=1))
    play = Play(Settings(policy=policy, group_limits={"spot": 1}), SPOT, ON_DEMAND)
    play.list(group="spot")
    play.list(group="on-demand")
    for key in "st":
        play.say(events.TaskAsked(key))
    play.tick()
    spot = play.take(effects.Increase, "spot")
    play.say(events.IncreaseSettled("spot", spot.operation, Accepted(1)))
    play.relist(Instance("a", State.RUNNING), group="spot")
    play.say(events.InstancePrepared("spot", "a"))
    play.grow("b", group="on-demand")
    on_b = next(one.key for one in play.state.held() if one.group == "on-demand")
    on_a = next(one.key for one in play.state.held() if one.group == "spot")
    play.say(events.TaskReleased(on_b))
    play.say(events.TaskAsked("u"))
    play.say(events.TaskReleased(on_a))
    play.tick(1.0)
    assert play.phase("b", "on-demand") is Phase.READY


def test_the_doubt_outlasts_a_restart() -> None:
    """The next process does not find out again at the cost of a task."""
    play = Play(Settings(), SPOT, ON_DEMAND)
    play.list(group="spot")
    play.list(group="on-demand")
    play.say(events.TaskAsked("t"))
    play.tick()
    increase = play.take(effects.Increase)
    play.say(events.IncreaseSettled("spot", increase.operation, Accepted(1)))
    play.relist(Instance("a", State.FAILED), group="spot")
    (record,) = play.records(GroupRecord)
    assert record.doubted_until is not None
    again = Play(Settings(), SPOT, ON_DEMAND, records=[record])
    again.list(group="spot")
    again.list(group="on-demand")
    again.say(events.TaskAsked("t"), after=10.0)
    again.tick()
    assert again.take(effects.Increase).group == "on-demand"


def test_one_failure_among_successes_is_no_doubt() -> None:
    """Something became ready since the failed instance was seen."""
    play = Play(Settings(), SPOT, ON_DEMAND)
    play.list(group="spot")
    play.list(group="on-demand")
    for key in "st":
        play.say(events.TaskAsked(key))
    play.tick()
    increase = play.take(effects.Increase)
    play.say(events.IncreaseSettled("spot", increase.operation, Accepted(2)))
    play.relist(Instance("a", State.RUNNING), Instance("b", State.CREATING), group="spot")
    play.say(events.InstancePrepared("spot", "a"), after=1.0)
    play.relist(Instance("a", State.RUNNING), Instance("b", State.FAILED), group="spot")
    (record,) = play.records(GroupRecord)
    assert (record.failures, record.doubted_until) == (1, None)


def test_only_as_many_are_dismissed_as_have_a_free_slot_elsewhere() -> None:
    """Two instances of the other group are busy, and the preferred one has one free slot."""
    play = Play(Settings(throttle_limit=math.inf), SPOT, ON_DEMAND)
    play.list(group="spot")
    play.list(group="on-demand")
    for key in "st":
        play.say(events.TaskAsked(key))
    play.tick()
    increase = play.take(effects.Increase)
    error = OutOfCapacity("none left")
    play.say(events.IncreaseSettled("spot", increase.operation, Accepted(0, error=error)))
    play.tick()
    play.grow("b", "c", group="on-demand")
    for old, new in ("su", "tv"):
        play.say(events.TaskReleased(old))
        play.say(events.TaskAsked(new))
    play.tick(300.0)
    increase = play.take(effects.Increase)
    play.say(events.IncreaseSettled("spot", increase.operation, Accepted(1)))
    play.relist(Instance("a", State.RUNNING), group="spot")
    play.say(events.InstancePrepared("spot", "a"))
    play.tick()
    phases = [play.phase(id, "on-demand") for id in "bc"]
    assert sorted(one.value for one in phases) == ["draining", "ready"]


def test_an_instance_that_was_ready_before_says_nothing_about_new_ones() -> None:
    """A restart finds that it cannot be reached any more, and pauses nothing for that."""
    record = InstanceRecord("spot", "a", None, START, 1, (), ready_at=START)
    play = Play(Settings(), SPOT, ON_DEMAND, records=[record])
    play.list(Instance("a", State.RUNNING), group="spot")
    play.say(events.PreparationFailed("spot", "a", "no answer"))
    assert (play.phase("a", "spot"), play.one("a", "spot").available) == (Phase.READY, 0)
    assert not play.state.standing().troubles
