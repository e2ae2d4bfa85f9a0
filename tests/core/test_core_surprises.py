"""Reactions that would surprise an operator, and must not happen."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from core_model import START, Play, fleet_of, inside
from fleeting.errors import Throttled
from fleeting.types import Accepted, GroupInfo, Instance, Listing, State
from taskscaler.core import (
    GroupRecord,
    InstanceRecord,
    OperationRecord,
    Phase,
    Policy,
    Rule,
    Settings,
    UnknownInstances,
    effects,
    events,
)
from taskscaler.core.model.demand import target_idle

ROOMY = Policy(idle_time=timedelta(minutes=20))
WARM = Policy(idle_count=1, idle_time=timedelta(seconds=30))


def release_all(play: Play) -> None:
    """Give back every slot."""
    for key in play.held():
        play.say(events.TaskReleased(key))


def test_a_ready_instance_is_not_removed_because_another_one_is_still_booting() -> None:
    """The idle slot of the policy exists now, and is not only promised by the cloud."""
    play = Play(Settings(policy=WARM))
    play.list()
    play.grow("a")
    play.say(events.TaskReserved("r"))
    play.say(events.TaskAsked("t"))
    play.tick()
    increase = play.take(effects.Increase)
    play.say(events.IncreaseSettled("g", increase.operation, Accepted(1)))
    play.say(events.TaskCancelled("t"))
    play.tick(60.0)
    assert not play.has(effects.Decrease), "the slot on it is promised"
    play.relist(Instance("a", State.RUNNING), Instance("b", State.RUNNING))
    play.say(events.InstancePrepared("g", "b"))
    play.tick()
    assert play.take(effects.Decrease).ids == ("a",), "now there is one too many"


def test_judging_the_ignored_ones_again_makes_no_room() -> None:
    """Until the next listing has judged them, they count against the limit as before."""
    settings = Settings(max_instances=1)
    play = Play(settings)
    play.list(Instance("x", State.RUNNING))
    play.say(events.TaskAsked("t"))
    play.say(events.SettingsChanged(replace(settings, unknown_instances=UnknownInstances.ADOPT)))
    play.tick()
    assert not play.has(effects.Increase)
    play.relist(Instance("x", State.RUNNING))
    assert play.take(effects.Prepare).id == "x"


def test_judging_the_ignored_ones_again_takes_none_of_them_for_one_that_was_asked_for() -> None:
    """An instance that is requested meanwhile is still expected, and ours when it comes."""
    settings = Settings(policy=ROOMY)
    play = Play(settings)
    play.list(Instance("x", State.RUNNING))
    play.say(events.TaskAsked("t"))
    play.tick()
    increase = play.take(effects.Increase)
    play.say(events.SettingsChanged(replace(settings, unknown_instances=UnknownInstances.REMOVE)))
    play.relist(Instance("x", State.RUNNING))
    assert play.phase("x") is Phase.REMOVING
    play.say(events.IncreaseSettled("g", increase.operation, Accepted(1)))
    play.relist(Instance("x", State.RUNNING), Instance("new", State.RUNNING))
    assert play.take(effects.Prepare).id == "new"


def test_instances_above_a_lowered_limit_go_as_soon_as_they_are_idle() -> None:
    """The limit is stronger than the idle capacity; what is busy or promised stays."""
    policy = Policy(idle_count=4, idle_time=timedelta(seconds=30))
    play = Play(Settings(policy=policy))
    play.list()
    play.grow("a", "b", "c", "d")
    play.say(events.TaskAsked("t"))
    play.say(events.TaskReserved("r"))
    lowered = replace(play.state.settings, max_instances=1)
    play.say(events.SettingsChanged(lowered))
    play.todo = [one for one in play.todo if not isinstance(one, effects.Increase)]
    play.tick()
    decrease = play.take(effects.Decrease)
    assert len(decrease.ids) == 2, "one is busy, and one is promised"
    (decision,) = decrease.decisions
    assert decision.rule is Rule.LIMIT
    assert "more instances than max_instances (1)" in decision.detail
    assert not play.has(effects.Increase)


def test_instances_above_a_lowered_limit_of_a_group_are_replaced_in_another() -> None:
    """Within all other limits; what is promised stays, as it does above `max_instances`."""
    policy = Policy(idle_count=3, idle_time=timedelta(hours=1))
    play = Play(Settings(policy=policy, max_instances=5), GroupInfo("g"), GroupInfo("h"))
    play.list()
    play.list(group="h")
    play.grow("a", "b", "c")
    play.say(events.TaskReserved("r"))
    play.say(events.SettingsChanged(replace(play.state.settings, group_limits={"g": 0, "h": 2})))
    play.tick()
    decrease = play.take(effects.Decrease)
    assert len(decrease.ids) == 2, "one is promised"
    assert decrease.decisions[0].rule is Rule.GROUP_LIMIT
    assert "more instances than its group may have (0)" in decrease.decisions[0].detail
    play.say(events.DecreaseSettled("g", decrease.ids, Accepted(2, decrease.ids)))
    play.tick(1.0)
    assert play.take(effects.Increase).group == "h"


def test_a_group_that_takes_less_and_says_nothing_is_not_asked_at_once_again() -> None:
    """Without a reason, the group is not asked as fast as it can answer."""
    play = Play()
    play.list()
    play.say(events.TaskAsked("t"))
    play.tick()
    increase = play.take(effects.Increase)
    play.say(events.IncreaseSettled("g", increase.operation, Accepted(0)))
    play.tick()
    assert not play.has(effects.Increase)
    assert "0 of 1" in play.state.standing().troubles["g"]
    play.tick(1.0)
    assert play.has(effects.Increase)


def test_a_pause_that_the_cloud_asks_for_is_kept() -> None:
    """Neither another failure just before nor a success just after makes it shorter."""
    play = Play()
    play.list()
    for key in ("s", "t"):
        play.say(events.TaskAsked(key))
    play.tick()
    increase = play.take(effects.Increase)
    error = Throttled("slow down", retry_after=timedelta(seconds=100))
    play.say(events.IncreaseSettled("g", increase.operation, Accepted(1, error=error)))
    play.relist(Instance("a", State.RUNNING))
    play.say(events.InstancePrepared("g", "a"))
    play.tick(1.0)
    assert not play.has(effects.Increase), "the cloud wants to be left alone"
    assert "slow down" in play.state.standing().troubles["g"]
    play.tick(100.0)
    assert play.has(effects.Increase)


def test_a_removal_is_not_repeated_as_fast_as_it_is_refused() -> None:
    """A cloud that says to try again in zero seconds is not taken at its word."""
    play = Play()
    play.ready("a")
    release_all(play)
    play.tick(1.0)
    decrease = play.take(effects.Decrease)
    error = Throttled("slow down", retry_after=timedelta(0))
    play.say(events.DecreaseSettled("g", decrease.ids, Accepted(0, error=error)))
    play.tick()
    assert not play.has(effects.Decrease)
    play.tick(1.0)
    assert play.has(effects.Decrease)


def test_pending_instances_stay_ours() -> None:
    """A slow cloud's instances are not taken for foreign ones when they come at last."""
    play = Play()
    play.list()
    for key in ("s", "t"):
        play.say(events.TaskAsked(key))
    play.tick()
    increase = play.take(effects.Increase)
    play.say(events.IncreaseSettled("g", increase.operation, Accepted(2)))
    play.tick(700.0)
    play.list(pending=2)
    assert [one.count for one in play.records(OperationRecord)] == [2]
    while not play.has(effects.List):
        play.tick(1.0)
    play.list(pending=1)
    assert [one.count for one in play.records(OperationRecord)] == [1]
    assert "1 accepted instances did not appear" in play.state.standing().troubles["g"]
    stored = [one.put for one in play.todo if isinstance(one, effects.Persist)]
    left = OperationRecord("g", increase.operation, 1, START, answered=True)
    assert (left,) in stored
    play.relist(Instance("late", State.RUNNING))
    assert play.take(effects.Prepare).id == "late"
    assert increase.operation not in {one.id for one in play.records(OperationRecord)}


@pytest.mark.parametrize("how", ["deleting", "missing"])
def test_instances_that_go_before_they_are_ready_are_replaced_after_a_pause(how: str) -> None:
    """A group that ends what it has just begun is not filled as fast as it is emptied."""
    play = Play(Settings(missed_updates=1))
    play.list()
    play.say(events.TaskAsked("t"))
    play.tick()
    increase = play.take(effects.Increase)
    play.say(events.IncreaseSettled("g", increase.operation, Accepted(1)))
    play.relist(Instance("a", State.CREATING))
    play.relist(*([Instance("a", State.DELETING)] if how == "deleting" else []))
    assert not play.has(effects.Increase)
    assert "before it was ready" in play.state.standing().troubles["g"]
    play.tick(1.0)
    assert play.has(effects.Increase)


def test_an_instance_of_ours_that_is_first_seen_being_deleted_is_not_waited_for() -> None:
    """The answer named it, so nothing else will come of the request."""
    play = Play()
    play.list()
    play.say(events.TaskAsked("t"))
    play.tick()
    increase = play.take(effects.Increase)
    play.say(events.IncreaseSettled("g", increase.operation, Accepted(1, ("a",))))
    play.relist(Instance("a", State.DELETING))
    assert play.phase("a") is Phase.REMOVING
    play.tick(1.0)
    assert play.take(effects.Increase).count == 1


def test_a_restart_continues_removals() -> None:
    """An instance that failed is not given tasks again because the scaler was restarted."""
    play = Play(Settings(policy=ROOMY))
    play.ready("a", "b")
    release_all(play)
    play.say(events.TaskAsked("u"))
    play.say(events.InstanceBroke("g", "a", "the connection broke"))
    play.relist(Instance("a", State.RUNNING), Instance("b", State.FAILED, reason="no disk"))
    stored = {
        record.id: record
        for one in play.todo
        if isinstance(one, effects.Persist)
        for record in one.put
        if isinstance(record, InstanceRecord)
    }
    assert (stored["b"].rule, stored["b"].reason) == (Rule.FAILED, "no disk")
    assert (stored["a"].rule, stored["a"].reason) == (Rule.FAILED, "the connection broke")
    again = Play(records=(replace_tasks(stored["a"]), stored["b"]))
    again.list(Instance("a", State.RUNNING), Instance("b", State.RUNNING))
    assert not again.has(effects.Prepare)
    assert set(again.take(effects.Decrease).ids) == {"a", "b"}


def test_a_longer_pause_that_the_cloud_asks_for_in_a_pause_counts() -> None:
    """A throttled request that was under way when an instance failed counts all the same."""
    play = Play(Settings(unknown_instances=UnknownInstances.ADOPT))
    play.list(Instance("adopted", State.RUNNING))
    for key in "st":
        play.say(events.TaskAsked(key))
    play.tick()
    increase = play.take(effects.Increase)
    play.say(events.PreparationFailed("g", "adopted", "no answer"))
    error = Throttled("slow down", retry_after=timedelta(seconds=100))
    play.say(events.IncreaseSettled("g", increase.operation, Accepted(0, error=error)))
    play.tick(99.0)
    assert not play.has(effects.Increase)
    play.tick(1.0)
    assert play.has(effects.Increase)


def test_a_factor_is_not_rounded_up_for_the_last_digit_of_a_float() -> None:
    """1.1 times 10 slots is 11 idle slots and not 12."""
    assert target_idle(Policy(scale_factor=1.1), 10) == 11
    assert target_idle(Policy(scale_factor=1.11), 10) == 12


def replace_tasks(record: InstanceRecord) -> InstanceRecord:
    """Return the record as it was stored when no task ran."""
    return InstanceRecord(
        record.group,
        record.id,
        record.incarnation,
        record.created_at,
        record.used,
        (),
        record.rule,
        record.reason,
    )


def test_a_restart_keeps_the_order_in_which_instances_and_requests_came() -> None:
    """A store may return records in any order; the oldest instance still gets the next task."""
    records = tuple(
        InstanceRecord("g", id, None, START + timedelta(seconds=age), 0, ())
        for id, age in (("new", 2), ("old", 1))
    )
    play = Play(Settings(policy=ROOMY), records=records)
    play.list(Instance("new", State.RUNNING), Instance("old", State.RUNNING))
    for id in ("new", "old"):
        play.say(events.InstancePrepared("g", id))
    play.say(events.TaskAsked("t"))
    assert play.take(effects.Grant).id == "old"


def test_instances_that_come_and_go_behind_an_idle_one_are_not_remembered() -> None:
    """Of what was ever idle, no more is kept than there is, however long the first one stays."""
    settings = Settings(policy=Policy(idle_count=1, idle_time=timedelta(days=1)))
    play = Play(settings)
    play.list()
    play.grow("stays")
    play.say(events.SettingsChanged(replace(settings, unknown_instances=UnknownInstances.ADOPT)))
    for number in range(500):
        id = f"i-{number}"
        play.say(events.ListingArrived("g", running("stays", id)))
        play.say(events.InstancePrepared("g", id))
        for _ in range(settings.missed_updates):
            play.say(events.ListingArrived("g", running("stays")))
    assert list(play.phases()) == ["stays"]
    (group,) = fleet_of(play.state).groups
    assert len(inside(inside(group.idle, "_queue"), "_entries")) < 200
    first = group.idle.first()
    assert first is not None
    assert first.id == "stays"


def running(*ids: str) -> Listing:
    """Return a listing of running instances."""
    return Listing(tuple(Instance(id, State.RUNNING) for id in ids))


def test_a_deadline_is_met_at_the_moment_that_was_asked_for() -> None:
    """However the clock's digits fall, a listing at the end of a timeout finds it over."""
    for number in range(1, 50):
        play = Play()
        play.seconds = number / 7
        play.list()
        play.say(events.TaskAsked("t"))
        play.tick()
        increase = play.take(effects.Increase)
        play.say(events.IncreaseSettled("g", increase.operation, Accepted(1)))
        play.tick()
        play.list(Instance("a", State.CREATING))
        # The listing in which it was first seen, in the very same digits.
        play.seconds += 600.0
        play.relist(Instance("a", State.CREATING))
        assert play.phase("a") is Phase.REMOVING


@pytest.mark.parametrize(
    "wrong",
    [
        {"update_interval": timedelta(0)},
        {"update_interval_when_expecting": timedelta(0)},
        {"backoff": timedelta(0)},
        {"deletion_retry_interval": timedelta(0)},
        {"creation_timeout": timedelta(seconds=-1)},
        {"missed_updates": 0},
    ],
)
def test_settings_that_would_make_it_spin_are_refused(wrong: dict[str, object]) -> None:
    """An interval of nothing is a busy loop, and is refused by its name."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Settings(**wrong)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - on purpose


@pytest.mark.parametrize(
    "wrong",
    [
        {"idle_count": -1},
        {"scale_factor": -0.5},
        {"scale_factor": float("nan")},
        {"scale_factor": float("inf")},
    ],
)
def test_policies_refuse_impossible_values(wrong: dict[str, float]) -> None:
    """Less than no capacity cannot be kept."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Policy(**wrong)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - on purpose


def test_an_increase_that_brought_all_before_its_answer_is_not_stored_for_ever() -> None:
    """A restart meanwhile expects nothing of it, and forgets it."""
    record = OperationRecord("g", "op-1", 0, START)
    play = Play(records=[record])
    assert play.take(effects.Persist).drop == (record.key,)


def test_an_answer_that_names_listed_instances_only_still_expects_the_others() -> None:
    """The name belongs to one that has come; it keeps no place for it a second time."""
    play = Play(Settings(policy=ROOMY))
    play.list()
    for key in "tuv":
        play.say(events.TaskAsked(key))
    play.tick()
    increase = play.take(effects.Increase)
    play.relist(Instance("a", State.RUNNING))
    play.say(events.IncreaseSettled("g", increase.operation, Accepted(3, ("a",))))
    play.relist(*(Instance(id, State.RUNNING) for id in "abc"))
    assert set(play.phases().values()) == {Phase.PREPARING}
    assert not play.records(OperationRecord)


def test_an_id_that_an_increase_brings_back_before_it_was_gone_is_not_waited_for() -> None:
    """Static hosts have no other ids; the new incarnation is what was asked for."""
    play = Play(Settings(policy=ROOMY))
    play.list()
    play.say(events.TaskAsked("t"))
    play.tick()
    increase = play.take(effects.Increase)
    play.say(events.IncreaseSettled("g", increase.operation, Accepted(1, ("a",))))
    play.relist(Instance("a", State.RUNNING, incarnation="1"))
    play.say(events.PreparationFailed("g", "a", "no answer"))
    play.tick(1.0)
    increase = play.take(effects.Increase)
    play.say(events.IncreaseSettled("g", increase.operation, Accepted(1, ("a",))))
    play.relist(Instance("a", State.RUNNING, incarnation="2"))
    assert play.phase("a") is Phase.PREPARING
    assert not play.records(OperationRecord)


def test_an_old_instance_that_is_ready_again_ends_no_pause() -> None:
    """After a restart, those that were ready long ago do not prove that new ones can be."""
    pause = timedelta(minutes=5)
    records = (
        InstanceRecord("g", "a", None, START, 1, (), ready_at=START),
        GroupRecord("g", 9, START + pause, START, "its command fails"),
    )
    play = Play(Settings(policy=ROOMY), records=records)
    play.list(Instance("a", State.RUNNING))
    play.say(events.InstancePrepared("g", "a"))
    for key in "tu":
        play.say(events.TaskAsked(key))
    play.tick()
    assert not play.has(effects.Increase)
    play.tick(300.0)
    assert play.take(effects.Increase).count == 1
