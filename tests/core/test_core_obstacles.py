"""The failures of instances that do not get ready, and of groups that only fail."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from core_growth import UNLIMITED, ask, settle, two_groups
from core_model import START, Play, fleet_of
from fleeting.errors import ConfigError, GroupGone, ProviderError
from fleeting.types import Accepted, CreationFailure, GroupInfo, Instance, Listing, State
from taskscaler.core import (
    InstanceRecord,
    Obstacle,
    Phase,
    Settings,
    Stage,
    TombstoneRecord,
    effects,
    events,
    explain,
    hindrance,
)
from taskscaler.core.model.decisions import Clamp
from taskscaler.core.rules.growth import replaceable


def coming(*ids: str, settings: Settings | None = None) -> Play:
    """Return a play in which so many tasks wait, and as many instances are prepared."""
    play = Play(settings)
    play.list()
    ask(play, len(ids))
    settle(play)
    play.relist(*(Instance(id, State.RUNNING) for id in ids))
    return play


def delay(play: Play, id: str, stage: Stage, reason: str, after: float = 1.0) -> None:
    """Let an attempt to make an instance ready fail."""
    play.say(events.InstanceDelayed("g", id, stage, reason), after)


# The stages.


def test_each_stage_tells_its_newest_failure_how_often_and_since_when() -> None:
    """The failures of all instances count, and the newest is told."""
    play = coming("a", "b")
    began = START + timedelta(seconds=play.seconds + 1)
    delay(play, "a", Stage.CONNECT, "refused")
    delay(play, "b", Stage.CONNECT, "no route")
    delay(play, "a", Stage.LOGIN, "wrong user")
    delay(play, "a", Stage.LOGIN, "wrong key")
    assert play.state.standing().obstacles == (
        Obstacle("g", Stage.CONNECT, 2, 2, began, "no route"),
        Obstacle("g", Stage.LOGIN, 1, 2, began + timedelta(seconds=2), "wrong key"),
    )
    said = explain(play.state.standing())
    assert "g: connect failed 2 times on 2 instances since 2026-03-01 00:00:0" in said
    assert said.endswith("the last: wrong key")


def test_what_an_instance_met_is_forgotten_when_it_is_ready() -> None:
    """Those of the others stay, with what was counted for the stage."""
    play = coming("a", "b")
    delay(play, "a", Stage.CONNECT, "refused")
    delay(play, "a", Stage.LOGIN, "wrong key")
    delay(play, "b", Stage.CONNECT, "no route")
    play.say(events.InstancePrepared("g", "a"))
    (left,) = play.state.standing().obstacles
    assert (left.stage, left.instances, left.times) == (Stage.CONNECT, 1, 2)
    play.say(events.InstancePrepared("g", "b"))
    assert play.state.standing().obstacles == ()


def test_what_instances_met_that_were_given_up_is_kept_until_one_is_ready() -> None:
    """The next instance will most likely meet the same."""
    play = coming("a", settings=Settings(max_instances=1))
    delay(play, "a", Stage.LOGIN, "wrong key")
    play.say(events.PreparationFailed("g", "a", "not ready within 5m: wrong key"))
    play.tick()
    (left,) = play.state.standing().obstacles
    assert (left.instances, left.times) == (0, 1)
    assert hindrance(left).startswith("g: login failed 1 time since")
    play.take(effects.Decrease)
    play.relist()
    play.relist()
    play.tick(60.0)
    settle(play)
    play.relist(Instance("b", State.RUNNING))
    delay(play, "b", Stage.LOGIN, "wrong key")
    assert play.state.standing().obstacles[0].times == 2
    play.say(events.InstancePrepared("g", "b"))
    assert play.state.standing().obstacles == ()


def test_what_an_instance_met_goes_with_it() -> None:
    """An instance that the cloud takes away leaves no obstacle."""
    play = coming("a")
    delay(play, "a", Stage.CONNECT, "refused")
    play.relist(Instance("a", State.DELETING))
    assert play.state.standing().obstacles == ()


def test_reports_that_cross_with_the_end_are_ignored() -> None:
    """An instance that is unknown, or ready, meets no obstacle on its way."""
    play = coming("a")
    delay(play, "other", Stage.CONNECT, "refused")
    play.say(events.InstancePrepared("g", "a"))
    delay(play, "a", Stage.CONNECT, "refused")
    assert play.state.standing().obstacles == ()


def test_an_instance_that_does_not_answer_is_looked_for() -> None:
    """It may have died just after it was listed as running, so the listings come fast."""
    play = coming("a", settings=Settings(update_interval=timedelta(minutes=1)))
    play.tick(5.0)
    assert not play.has(effects.List)
    delay(play, "a", Stage.CONNECT, "refused")
    play.tick()
    assert play.has(effects.List)
    play.list(Instance("a", State.RUNNING))
    play.tick(2.0)
    assert play.has(effects.List), "as long as it does not answer"


def test_a_failed_check_is_an_obstacle_and_the_instance_is_looked_for() -> None:
    """It is told like the others, and forgotten when the instance passes a check or goes."""
    play = Play(Settings(heartbeat_interval=timedelta(seconds=30)))
    play.ready("a")
    play.tick(30.0)
    play.take(effects.CheckHealth)
    play.todo.clear()
    play.say(events.HealthFailed("g", "a", "its host key has changed"))
    play.tick()
    assert play.has(effects.List)
    (found,) = play.state.standing().obstacles
    assert (found.stage, found.reason) == (Stage.HEALTH, "its host key has changed")
    assert fleet_of(play.state).groups[0].list_after(play.state.settings) == 60.0
    play.tick(10.0)
    play.say(events.HealthPassed("g", "a"))
    assert play.state.standing().obstacles == ()
    play.tick(30.0)
    play.say(events.HealthFailed("g", "a", "silent"))
    assert play.state.standing().obstacles
    play.take(effects.List)
    play.say(events.ListingArrived("g", Listing((Instance("a", State.DELETING),))))
    assert play.state.standing().obstacles == ()


def test_a_reason_is_not_repeated() -> None:
    """The last failure of a group may be that of a stage."""
    play = coming("a")
    delay(play, "a", Stage.SETTINGS, "the key file is gone")
    error = ConfigError("the key file is gone")
    play.say(events.PreparationFailed("g", "a", "the key file is gone", error))
    said = explain(play.state.standing())
    assert said.count("the key file is gone") == 1
    assert "the settings on this computer failed 1 time on 1 instance" in said


# Faults that no instance can cure.


def test_a_fault_of_this_computer_costs_no_instance() -> None:
    """Nothing is added, and it is tried again after pauses that grow, until it is cured."""
    play = coming("a", settings=Settings(max_instances=3))
    error = ConfigError("the key file is gone")
    for pause in (1.0, 2.0, 4.0):
        play.take(effects.Prepare)
        play.say(events.PreparationFailed("g", "a", str(error), error))
        assert play.phase("a") is Phase.PREPARING
        again = [one for one in play.todo if isinstance(one, effects.Prepare)]
        assert [one.pause_seconds for one in again] == [pause]
        play.tick(pause)
    ask(play, 1, "more")
    play.tick(0.1)
    assert not play.has(effects.Decrease)
    play.take(effects.Prepare)
    play.say(events.InstancePrepared("g", "a"))
    assert play.failures() == 0


# Groups that only fail.


def fail_all(play: Play, *ids: str) -> None:
    """All instances are given up, and go."""
    for id in ids:
        play.say(events.PreparationFailed("g", id, "no answer"))
    play.tick()
    play.todo = [one for one in play.todo if not isinstance(one, effects.Prepare)]
    removal = play.take(effects.Decrease)
    play.say(events.DecreaseSettled("g", removal.ids, Accepted(len(ids), removal.ids)))
    play.relist()
    play.relist()


def test_after_two_failures_in_a_row_one_instance_at_a_time_is_tried() -> None:
    """A group whose instances never get ready does not buy all of them again and again."""
    play = coming("a", "b", "c", settings=replace(UNLIMITED, max_instances=3))
    fail_all(play, "a", "b", "c")
    play.tick(5.0)
    assert settle(play) == 3, "the first failure may be chance"
    play.relist(*(Instance(id, State.RUNNING) for id in "def"))
    fail_all(play, "d", "e", "f")
    play.tick(5.0)
    assert settle(play) == 1
    play.relist(Instance("h", State.RUNNING))
    play.tick(5.0)
    assert not play.has(effects.Increase)
    (held,) = play.state.blocked
    assert held.clamp is Clamp.TRIAL
    assert held.clamped_by == (
        "one instance at a time until one is ready, after 2 failures in a row, the last: instance "
        "f did not become ready: no answer"
    )
    play.say(events.InstancePrepared("g", "h"))
    play.tick(1.0)
    assert settle(play) == 2, "one is ready, so the others follow"


def test_launches_that_fail_put_a_group_on_trial_as_well() -> None:
    """It makes no difference at which step the instances fail."""
    play = Play(replace(UNLIMITED, max_instances=5))
    play.list()
    ask(play, 5)
    for attempt, wanted in enumerate((5, 5, 1, 1)):
        play.tick(10.0)
        assert settle(play) == wanted
        failures = tuple(
            CreationFailure(f"{attempt}-{one}", ProviderError("bad image")) for one in range(wanted)
        )
        while not play.has(effects.List):
            play.tick(1.0)
        play.take(effects.List)
        play.say(events.ListingArrived("g", Listing((), failures=failures)))
    assert "bad image" in explain(play.state.standing())


# Instances that are used up.

ONCE = replace(UNLIMITED, max_use_count=1, max_instances=4, update_interval=timedelta(seconds=1))


def use_up(play: Play, *keys: str) -> None:
    """Let tasks end on instances that nothing else may use, and let these go."""
    for key in keys:
        play.say(events.TaskReleased(key))
    play.tick()
    removal = play.take(effects.Decrease)
    ids = removal.ids
    play.say(events.DecreaseSettled("g", ids, Accepted(len(ids), ids)))
    left = [one.id for one in play.state.instances() if one.id not in ids]
    for _ in range(play.state.settings.missed_updates):
        play.tick()
        play.list(*(Instance(id, State.RUNNING) for id in left))


def test_used_up_instances_are_replaced_before_the_interval_is_over() -> None:
    """At a limit the group would otherwise be empty for most of each interval."""
    play = Play(replace(ONCE, missed_updates=1, increase_interval=timedelta(minutes=1)))
    play.ready("a", "b", "c", "d")
    ask(play, 4, "next")
    assert not play.has(effects.Increase), "the limit is reached"
    use_up(play, "task-0")
    assert settle(play) == 1, "nothing else comes"
    use_up(play, "task-1")
    assert settle(play) == 1, "as many are gone as come"
    use_up(play, "task-2")
    assert not play.has(effects.Increase), "one request for each would be many"
    assert play.state.blocked[0].clamp is Clamp.INTERVAL
    use_up(play, "task-3")
    assert settle(play) == 2


def test_other_tasks_wait_for_the_interval() -> None:
    """Only replacements are hastened: a request during the interval brings no more."""
    play = Play(
        replace(ONCE, missed_updates=1, max_instances=10, increase_interval=timedelta(minutes=1))
    )
    play.ready("a")
    ask(play, 5, "next")
    assert not play.has(effects.Increase)
    use_up(play, "task-0")
    assert settle(play) == 1
    play.tick(60.0)
    assert settle(play) == 4


@pytest.mark.parametrize(("spent", "ready", "most"), [(3, 2, 3), (2, 2, 2), (1, 2, 0), (0, 0, 0)])
def test_as_many_must_be_gone_as_are_left(spent: int, ready: int, most: int) -> None:
    """So a group of any size makes few requests."""
    play = Play()
    if ready:
        play.ready(*(str(number) for number in range(ready)))
    group = fleet_of(play.state).groups[0]
    for _ in range(spent):
        group.creations.instance_gone(used_up=True)
    group.creations.instance_gone(used_up=False)
    assert replaceable(group) == most


# A group that is gone.


def gone(play: Play, group: str = "g") -> None:
    """Let the listing that was asked for fail, because there is no such group."""
    while not any(isinstance(one, effects.List) and one.group == group for one in play.todo):
        play.tick(1.0)
    play.take(effects.List, group)
    play.say(events.ListingFailed(group, GroupGone("the group was deleted")))
    play.tick()


def test_what_a_group_held_goes_with_it() -> None:
    """Its tasks are told, nothing is waited for, and it is named; one lie changes nothing."""
    play = Play(UNLIMITED)
    play.ready("a")
    ask(play, 2, "next")
    play.take(effects.Increase)
    play.tick(60.0)
    gone(play)
    assert play.state.standing().gone == ()
    assert play.held() == ["task-0"]
    gone(play)
    revoked = play.take(effects.Revoke)
    assert (revoked.key, revoked.cause) == ("task-0", "its group is gone")
    assert play.phases() == {}
    assert play.state.standing().gone == ("g",)
    assert "the group was deleted" in explain(play.state.standing())


def test_instances_that_a_gone_group_owed_are_not_waited_for() -> None:
    """A shutdown does not wait for them either."""
    play = Play(UNLIMITED)
    play.list()
    ask(play, 2)
    settle(play)
    assert play.state.expected == 2
    play.say(events.ShutdownAsked(remove=True))
    gone(play)
    assert not play.state.finished
    gone(play)
    assert play.state.expected == 0
    assert play.state.finished


def test_a_group_that_is_created_again_serves_again() -> None:
    """It is listed all the while."""
    play = Play(UNLIMITED)
    play.list()
    play.tick(60.0)
    gone(play)
    gone(play)
    assert play.state.standing().gone == ("g",)
    play.relist()
    assert play.state.standing().gone == ()
    gone(play)
    assert play.state.standing().gone == (), "the count begins again"


def test_the_next_group_serves_in_the_place_of_one_that_is_gone() -> None:
    """The tasks that were lost with it can be retried there."""
    play = two_groups()
    play.tick(60.0)
    gone(play, "spot")
    gone(play, "spot")
    ask(play, 1)
    settle(play, "spot", GroupGone("the group was deleted"))
    play.tick()
    assert settle(play, "on-demand") == 1
    assert play.state.standing().gone == ("spot",)


# Tombstones.


def test_tombstones_of_groups_that_are_not_driven_are_forgotten_after_a_week() -> None:
    """They may be gone; younger ones are kept, for a group that is only left out for a while."""
    old, young = START - timedelta(days=7, seconds=1), START - timedelta(days=7)
    stones = [
        TombstoneRecord("g", "a", None, old),
        TombstoneRecord("other", "b", None, old),
        TombstoneRecord("other", "c", None, young),
    ]
    play = Play(records=stones)
    assert {(one.group, one.id) for one in play.records(TombstoneRecord)} == {
        ("g", "a"),
        ("other", "c"),
    }


@pytest.mark.parametrize("temporary", [True, False])
def test_a_temporary_group_leaves_no_tombstones(temporary: bool) -> None:  # noqa: FBT001 -- a parameter
    """Its instances end with it, so none can come back."""
    play = Play(UNLIMITED, GroupInfo("g", temporary=temporary))
    play.ready("a")
    play.relist()
    play.relist()
    assert play.phases() == {}
    assert not play.records(InstanceRecord)
    assert len(play.records(TombstoneRecord)) == (not temporary)
