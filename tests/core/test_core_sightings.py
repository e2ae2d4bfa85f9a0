"""Instances that a listing shows, lacks, names twice, or shows in a state of their own."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from core_growth import UNLIMITED, ask
from core_model import Play
from fleeting.errors import ProviderError
from fleeting.types import Accepted, Capability, GroupInfo, Instance, State
from taskscaler.core import Phase, Policy, effects, events

ABLE = GroupInfo("g", capabilities=frozenset({Capability.SUSPEND}))
STILL = replace(
    UNLIMITED, heartbeat_interval=timedelta(0), policy=Policy(idle_time=timedelta(hours=10))
)


def running(*ids: str) -> list[Instance]:
    """Return running instances as a listing shows them."""
    return [Instance(id, State.RUNNING) for id in ids]


def request(play: Play, count: int, *names: str, prefix: str = "t") -> None:
    """Request instances; the answer may name them."""
    ask(play, count, prefix)
    increase = play.take(effects.Increase)
    assert increase.count == count
    play.say(events.IncreaseSettled("g", increase.operation, Accepted(count, names)))


def test_a_stranger_does_not_take_the_place_of_an_instance_that_the_answer_named() -> None:
    """It is seen first, and is still a stranger."""
    play = Play(STILL)
    play.list()
    request(play, 1, "ours")
    play.relist(*running("stranger"))
    assert play.phase("stranger") is Phase.FOREIGN
    play.relist(*running("stranger", "ours"))
    assert play.phase("ours") is Phase.PREPARING


def test_a_named_instance_is_counted_for_the_request_that_named_it() -> None:
    """An earlier request still waits for one without a name."""
    play = Play(STILL)
    play.list()
    request(play, 1)
    play.tick(1.0)
    request(play, 1, "named", prefix="later")
    play.relist(*running("named"))
    play.relist(*running("named", "other"))
    assert set(play.phases().values()) == {Phase.PREPARING}


def test_an_instance_that_is_missing_now_and_then_stays() -> None:
    """Only so many listings in a row prove that it is gone."""
    play = Play(STILL)
    play.ready("a")
    for _ in range(3):
        play.relist()
        play.relist(*running("a"))
    assert play.held() == ["task-0"]
    assert play.phase("a") is Phase.READY


def test_an_instance_that_is_listed_twice_hides_no_missing_one() -> None:
    """As many entries as instances, but of one of them only."""
    play = Play(STILL)
    play.ready("a", "b")
    for _ in range(2):
        play.relist(*running("a", "a"))
    assert [*play.phases()] == ["a"]


def test_a_listing_that_tells_no_incarnation_for_once_replaces_nothing() -> None:
    """The task runs on."""
    play = Play(STILL)
    play.list()
    request(play, 1)
    play.relist(Instance("a", State.RUNNING, incarnation="1"))
    play.say(events.InstancePrepared("g", "a"))
    play.relist(Instance("a", State.RUNNING))
    assert (play.phase("a"), play.held()) == (Phase.READY, ["t0"])
    play.relist(Instance("a", State.RUNNING, incarnation="2"))
    assert play.phase("a") is Phase.PREPARING


def test_an_instance_that_is_about_to_sleep_may_be_called_running() -> None:
    """It is not prepared for other tasks because of that."""
    play = Play(STILL, ABLE)
    play.ready("a")
    play.say(events.TaskSuspended("task-0"))
    play.tick()
    play.relist(*running("a"))
    assert play.phase("a") is Phase.SUSPENDING
    assert not play.has(effects.Prepare)


@pytest.mark.parametrize("state", [State.FAILED, State.SUSPENDED])
def test_the_state_of_a_foreign_instance_does_not_matter(state: State) -> None:
    """It is not ours to remove, and no failure of its group."""
    play = Play(STILL)
    play.list(*running("theirs"))
    play.relist(Instance("theirs", state))
    play.tick()
    assert play.phase("theirs") is Phase.FOREIGN
    assert not play.has(effects.Decrease)
    assert play.failures() == 0


def test_an_instance_that_may_start_one_more_task_is_offered_for_one() -> None:
    """Of its two slots both are free, and its use count leaves one task."""
    play = Play(replace(STILL, capacity_per_instance=2, max_use_count=3))
    play.ready("a")
    for key in ("task-0", "task-1"):
        play.say(events.TaskReleased(key, proved=True))
    assert play.one("a").available == 1
    assert play.state.demand().free == 1


def checked(count: int) -> Play:
    """Return a core with idle instances that are checked every minute, and one check each."""
    settings = replace(
        STILL,
        heartbeat_interval=timedelta(minutes=1),
        failure_threshold=1,
        policy=Policy(idle_time=timedelta(hours=10), idle_count=count),
    )
    play = Play(settings)
    play.list()
    play.grow(*(f"i{number}" for number in range(count)))
    play.tick(60.0)
    return play


def test_one_answer_does_not_prove_that_nine_others_are_broken() -> None:
    """More have failed than have answered since, so one tenth goes."""
    play = checked(10)
    for number in range(9):
        play.say(events.HealthFailed("g", f"i{number}", "no route to host"), after=0.1)
    play.say(events.HealthPassed("g", "i9"), after=0.1)
    play.tick(10.0)
    for number in range(1, 9):
        play.say(events.HealthFailed("g", f"i{number}", "no route to host"), after=0.1)
    assert [*play.phases().values()].count(Phase.REMOVING) == 1


def test_one_success_makes_up_for_all_failures_before_it() -> None:
    """The instance serves at once, and the next failure is the first."""
    play = checked(1)
    play.say(
        events.SettingsChanged(replace(play.state.settings, failure_threshold=3)),
    )
    for _ in range(2):
        play.say(events.HealthFailed("g", "i0", "late"))
        play.tick(10.0)
    play.say(events.HealthPassed("g", "i0"))
    assert play.one("i0").available == 1


def test_a_provider_that_refuses_condemns_no_instance() -> None:
    """A new one would need its answer as well."""
    play = checked(1)
    for _ in range(3):
        play.say(events.HealthFailed("g", "i0", "denied", ProviderError("denied")))
        play.tick(10.0)
    assert play.phase("i0") is Phase.READY


def test_a_report_from_an_earlier_start_does_not_dismiss_an_instance() -> None:
    """It is being prepared, and will prove by itself whether it works."""
    play = Play(STILL)
    play.list()
    request(play, 1)
    play.relist(*running("a"))
    play.say(events.InstanceBroke("g", "a", "connection lost"))
    assert play.one("a").rule is None


@pytest.mark.parametrize("deadline", [True, False])
def test_the_group_is_listed_at_once_after_an_interruption_and_not_for_ever(
    *, deadline: bool
) -> None:
    """The loss is seen early; when the instance is gone, the slow interval applies again."""
    play = Play(STILL)
    play.ready("a")
    play.relist(*running("a"))
    play.todo.clear()
    now = events.Now(play.seconds, play.one("a").created_at + timedelta(seconds=play.seconds))
    at = now.wall + timedelta(minutes=2) if deadline else None
    play.say(events.InterruptionAnnounced("g", "a", "spot", at))
    play.tick()
    assert play.has(effects.List)
    for increase in [one for one in play.todo if isinstance(one, effects.Increase)]:
        refused = Accepted(0, error=ProviderError("no"))
        play.say(events.IncreaseSettled("g", increase.operation, refused))
    play.list(Instance("a", State.DELETING))
    play.relist()
    assert play.phases() == {}
    play.todo.clear()
    play.tick(3.0)
    assert not play.has(effects.List)
