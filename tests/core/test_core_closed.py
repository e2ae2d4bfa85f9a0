"""Idle instances that only earlier reservations protect, in groups and generations."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from core_growth import UNLIMITED, ask, two_groups
from core_model import Play, fleet_of
from taskscaler.core import Phase, Policy, Settings, effects, events

HOUR = timedelta(hours=1)
LENIENT = Policy(idle_time=HOUR, preemptive_mode=False)


def still(policy: Policy, **changes: int) -> Settings:
    """Return settings with a policy and without health checks."""
    return replace(UNLIMITED, policy=policy, heartbeat_interval=timedelta(0), **changes)  # type: ignore[arg-type] # numbers only


def one_in_each() -> Play:
    """Return a core with an idle instance in each of two groups."""
    play = two_groups(replace(still(LENIENT), group_limits={"spot": 1}))
    ask(play, 2)
    play.grow("s", group="spot")
    play.grow("d", group="on-demand")
    for key in ("t0", "t1"):
        play.say(events.TaskReleased(key))
    play.todo.clear()
    return play


def want(play: Play, idle_count: int) -> None:
    """Let the policy want so many idle slots from now on."""
    policy = replace(play.state.settings.policy, idle_count=idle_count)
    play.say(events.SettingsChanged(replace(play.state.settings, policy=policy)))


def closed(play: Play) -> list[str]:
    """Return the ids of the closed instances."""
    return [id for group in fleet_of(play.state).groups for id in group.idle.closed]


def going(play: Play) -> list[str]:
    """Return the ids of the instances that are removed."""
    return [id for id, phase in play.phases().items() if phase is Phase.REMOVING]


def test_the_instance_of_the_last_group_is_closed_first() -> None:
    """The idle target needs one of the two."""
    play = one_in_each()
    want(play, 1)
    for key in ("r1", "r2"):
        play.say(events.TaskReserved(key))
    play.tick(3600.0)
    assert closed(play) == ["d"]


def test_when_a_reservation_ends_the_closed_instance_of_the_last_group_goes() -> None:
    """The later reservation counts on none of the closed ones."""
    play = one_in_each()
    for key in ("r1", "r2"):
        play.say(events.TaskReserved(key))
    play.tick(3600.0)
    assert sorted(closed(play)) == ["d", "s"]
    play.say(events.TaskUnreserved("r1"))
    play.say(events.TaskReserved("later"))
    play.tick(1.0)
    assert going(play) == ["d"]


def test_the_instance_of_the_preferred_group_is_opened_first() -> None:
    """One of the two closed ones is needed after all."""
    play = one_in_each()
    for key in ("r1", "r2"):
        play.say(events.TaskReserved(key))
    play.tick(3600.0)
    want(play, 1)
    play.tick(1.0)
    assert closed(play) == ["d"]


def test_a_closed_instance_goes_before_an_open_one_of_a_preferred_group() -> None:
    """One of two is wanted, and a later reservation counts on that one."""
    play = one_in_each()
    want(play, 1)
    for key in ("r1", "r2"):
        play.say(events.TaskReserved(key))
    play.tick(3600.0)
    assert closed(play) == ["d"]
    for key in ("r1", "r2"):
        play.say(events.TaskUnreserved(key))
    play.say(events.TaskReserved("later"))
    play.tick(1.0)
    assert going(play) == ["d"]


def test_no_instance_is_closed_before_its_idle_time_is_over() -> None:
    """The policy needs it no more, but it was idle for half of the time only."""
    play = Play(still(replace(LENIENT, idle_count=1)))
    play.list()
    play.grow("a")
    want(play, 0)
    play.say(events.TaskReserved("r1"))
    play.tick(1800.0)
    assert closed(play) == []
    play.tick(1800.0)
    assert closed(play) == ["a"]


def test_a_second_generation_is_closed_when_the_first_has_ended() -> None:
    """Otherwise a reservation that came meanwhile would protect the first one, too."""
    play = Play(still(LENIENT))
    play.ready("a", "b")
    play.say(events.TaskReleased("task-0"))
    play.say(events.TaskReserved("r1"))
    play.tick(3600.0)
    assert closed(play) == ["a"]
    play.say(events.TaskReleased("task-1"))
    play.say(events.TaskReserved("r2"))
    play.tick(3600.0)
    assert closed(play) == ["a"]


def test_a_preemptive_reservation_does_not_count_on_a_closed_slot() -> None:
    """Of two slots one is promised to an earlier reservation; the instance will go after it."""
    play = Play(still(Policy(idle_time=HOUR, preemptive_mode=True), capacity_per_instance=2))
    play.ready("a")
    for key in ("task-0", "task-1"):
        play.say(events.TaskReleased(key))
    play.say(events.TaskReserved("earlier"))
    play.tick(3600.0)
    assert closed(play) == ["a"]
    play.say(events.TaskReserved("later"))
    assert play.take(effects.Refuse).key == "later"
