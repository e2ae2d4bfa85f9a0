"""How long idle capacity stays: at a random load that stays the same, and after a busy time."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core_model import Play, fleet_of
from fleeting.types import GroupInfo
from taskscaler.core import Phase, Placement, Policy, Rule, Settings, effects, events
from taskscaler.core.model.load import RecentLoad
from taskscaler.simulation import START, Arrival, Delay, GroupModel, arrivals, simulate

IDLE_TIME = timedelta(minutes=20)
QUIET = timedelta(0)
DAY = timedelta(days=1)


def settings(policy: Policy, **changes: object) -> Settings:
    """Return settings with which an instance goes for its idleness only."""
    values = {"policy": policy, "heartbeat_interval": QUIET, "update_interval": DAY} | changes
    return Settings(**values)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - of many types


def created(policy: Policy, tasks: list[Arrival]) -> int:
    """Return how many instances a day of tasks takes, one task on each at a time."""
    model = GroupModel(GroupInfo("g"))
    often = timedelta(seconds=10)
    chosen = settings(policy, update_interval_when_expecting=often)
    return simulate(chosen, [model], tasks, until=DAY).created


@pytest.mark.parametrize("idle_count", [5, 20])
def test_a_warm_pool_does_not_churn_at_a_random_load_that_stays_the_same(idle_count: int) -> None:
    """I6: it creates at most half as many instances more than a fleet without idle capacity."""
    load = list(arrivals(20, Delay(600.0), start=START, length=DAY, seed="1"))
    none = created(Policy(idle_time=IDLE_TIME), load)
    pool = created(Policy(idle_count=idle_count, idle_time=IDLE_TIME), load)
    assert pool <= 1.5 * none < len(load) / 3


def test_one_task_at_a_time_needs_two_instances_with_one_idle() -> None:
    """The second one is not removed in the gap after each task, and bought again after it."""
    tasks = [Arrival(300.0 + number * 1505.0, 1500.0) for number in range(50)]
    assert created(Policy(idle_count=1, idle_time=IDLE_TIME), tasks) == 2


def test_an_instance_goes_when_its_capacity_was_not_needed_for_the_idle_time() -> None:
    """The time runs from the end of the need, for one instance after the other."""
    play = Play(settings(Policy(idle_count=1, idle_time=IDLE_TIME)))
    play.list()
    play.grow("a")
    for key, id in (("first", "b"), ("second", "c")):
        play.say(events.TaskAsked(key))
        play.tick()
        play.grow(id)
    play.say(events.TaskReleased("second"), after=5000.0)
    play.tick()
    play.say(events.TaskReleased("first"), after=600.0)
    play.todo.clear()
    play.tick()
    assert play.take(effects.WakeAt).monotonic == play.seconds + 600.0
    play.tick(599.0)
    assert set(play.phases().values()) == {Phase.READY}
    play.tick(1.0)
    (gone,) = play.take(effects.Decrease).ids
    assert play.one(gone).rule is Rule.IDLE
    play.say(events.InstanceBroke("g", "nothing", "no such instance"))
    play.todo.clear()
    play.tick(599.0)
    assert not play.has(effects.Decrease)
    assert play.take(effects.WakeAt).monotonic == play.seconds + 1.0
    play.tick(1.0)
    assert sorted(play.phases().values(), key=str) == [Phase.READY, Phase.REMOVING, Phase.REMOVING]


def test_a_peak_between_two_decisions_counts() -> None:
    """It lasted a moment, and nothing was decided in it."""
    play = Play(settings(Policy(idle_time=IDLE_TIME), placement=Placement.SPREAD))
    play.ready("a", "b")
    assert play.state.demand().recent == 2
    play.say(events.TaskReleased("task-0"))
    play.say(events.TaskReleased("task-1"))
    play.tick(1199.0)
    assert play.state.demand().recent == 2
    play.say(events.TaskAsked("short"), after=0.5)
    play.say(events.HealthPassed("g", "a"))
    play.say(events.TaskReleased("short"), after=0.1)
    play.tick(0.4)
    assert play.state.demand().recent == 1


def test_a_failed_check_does_not_restart_the_idle_time() -> None:
    """An instance that fails a check now and then goes when the others would."""
    chosen = settings(Policy(idle_time=IDLE_TIME), heartbeat_interval=timedelta(minutes=5))
    play = Play(chosen)
    play.ready("a")
    play.say(events.TaskReleased("task-0", proved=True))
    released = play.seconds
    for _ in range(3):
        play.tick(300.0)
        play.say(events.HealthFailed("g", "a", "no answer"))
        play.tick(10.0)
        play.say(events.HealthPassed("g", "a"))
    play.todo.clear()
    play.tick(released + 1199.0 - play.seconds)
    assert not play.has(effects.Decrease)
    play.tick(1.0)
    assert play.take(effects.Decrease).decisions[0].rule is Rule.IDLE


def test_a_slot_that_a_task_was_never_told_is_not_a_use() -> None:
    """The check that it waited for fails, and the idle time goes on; a task before it counts."""
    play = Play(settings(Policy(idle_time=IDLE_TIME), capacity_per_instance=2, max_instances=1))
    play.ready("a")
    for key in ("task-0", "task-1"):
        play.say(events.TaskReleased(key))
    released = play.seconds
    play.say(events.TaskAsked("next"), after=100.0)
    play.say(events.HealthFailed("g", "a", "no answer"))
    play.say(events.TaskCancelled("next"))
    play.say(events.HealthPassed("g", "a"))
    assert fleet_of(play.state).groups[0].idle.bound() == released


def test_a_lower_idle_count_applies_to_the_busy_time_before_it_too() -> None:
    """The policy in force says what was needed, so a change of the policy needs no patience."""
    warm = settings(Policy(idle_count=3, idle_time=IDLE_TIME))
    play = Play(warm)
    play.list()
    play.grow("a", "b", "c")
    play.tick(1300.0)
    play.say(events.SettingsChanged(settings(Policy(idle_count=1, idle_time=IDLE_TIME))))
    play.todo.clear()
    play.tick()
    assert len(play.take(effects.Decrease).ids) == 2


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=30), st.integers(1, 12))
def test_the_recent_load_is_the_highest_of_the_window(
    steps: list[tuple[int, int]], seconds: int
) -> None:
    """As a look at all earlier loads finds it."""
    load, now, ended = RecentLoad(), 0.0, list[tuple[float, int]]()
    for pause, level in steps:
        now += pause
        ended.append((now, load.level))
        load.observe(level, now)
        recent = [one for at, one in ended if at + seconds > now]
        assert load.highest(now, seconds) == max(*recent, level, level)


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(0, 9))
def test_the_recent_load_tells_when_it_was_last_too_high(levels: list[int], limit: int) -> None:
    """As a look at all earlier loads finds it, unless the load is too high now."""
    load, ended = RecentLoad(), list[tuple[float, int]]()
    for at, level in enumerate([*levels, 0]):
        ended.append((at, load.level))
        load.observe(level, at)
    found = load.fell_at(lambda one: one <= limit)
    assert found == max((at for at, one in ended if one > limit), default=None)


def test_a_look_at_the_recent_load_passes_few_of_many_peaks() -> None:
    """A hundred thousand tasks that end one after the other leave as many peaks."""
    load = RecentLoad()
    for level in range(100_000, 0, -1):
        load.observe(level, 100_000.0 - level)
    looks = list[int]()

    def fits(level: int) -> bool:
        looks.append(level)
        return level <= 10

    assert load.fell_at(fits) == 100_000.0 - 10
    assert len(looks) < 20
