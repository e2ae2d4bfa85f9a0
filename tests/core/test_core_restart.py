"""The questions, records and decisions of a restart."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from core_growth import UNLIMITED, ask, settle
from core_model import START, Play
from fleeting.types import Accepted, GroupInfo, Instance, Listing, State
from taskscaler.core import (
    InstanceRecord,
    OperationRecord,
    Phase,
    Policy,
    Record,
    ScalerState,
    Settings,
    effects,
    events,
)

REQUESTED = OperationRecord("g", "op", 3, START)


def restarted(*records: Record, **outcomes: int) -> Play:
    """Return a core after a restart whose provider tells these outcomes."""
    play = Play(UNLIMITED, records=records, outcomes=outcomes)
    play.list()
    return play


@pytest.mark.parametrize(("told", "coming"), [(0, 0), (1, 1), (3, 3), (7, 3)])
def test_a_restart_asks_what_came_of_a_request_without_an_answer(told: int, coming: int) -> None:
    """Nothing is awaited that was not created, and no more than was requested."""
    play = restarted(REQUESTED, op=told)
    assert play.state.demand().coming == coming
    ask(play, 3)
    assert sum(one.count for one in play.todo if isinstance(one, effects.Increase)) == 3 - coming


def test_a_request_that_a_restart_finds_without_an_answer_is_not_repeated_meanwhile() -> None:
    """The provider may take long to tell, and the limit counts all of it until then."""
    play = Play(UNLIMITED)
    play.state, play.todo = ScalerState((GroupInfo("g"),), UNLIMITED, name="later"), []
    play.say(events.RecordsRestored((REQUESTED,)))
    asked = play.take(effects.AskOutcome)
    assert (asked.group, asked.operation, asked.count) == ("g", "op", 3)
    play.tick()
    play.list()
    ask(play, 4)
    assert not play.has(effects.Increase), "its answer is awaited"
    assert play.state.demand().instances == 3
    play.say(events.OutcomeTold("g", "op", 2))
    play.tick()
    assert play.take(effects.Increase).count == 2
    assert play.say(events.OutcomeTold("g", "other", 2)) == [], "it ended before"


def test_a_provider_that_cannot_tell_after_a_restart_is_waited_for_as_after_a_lost_reply() -> None:
    """All may still come, and are requested again after a tenth of the creation timeout."""
    play = restarted(REQUESTED)
    ask(play, 3)
    assert play.state.demand().coming == 3
    play.tick(59.0)
    assert not play.has(effects.Increase)
    play.tick(1.0)
    assert play.take(effects.Increase).count == 3


def test_what_a_provider_tells_after_a_restart_counts_those_that_came_before() -> None:
    """Of three requested one was seen, two were created: one is missing, and one may come."""
    play = restarted(replace_count(REQUESTED, 2, seen=1), op=2)
    assert play.state.demand().coming == 1
    (left,) = play.records(OperationRecord)
    assert (left.count, left.unlikely, left.seen, left.answered) == (1, 1, 1, True)


def replace_count(record: OperationRecord, count: int, *, seen: int) -> OperationRecord:
    """Return the record of a request some of whose instances have been seen."""
    return OperationRecord(record.group, record.id, count, record.asked_at, seen=seen)


def test_a_request_that_was_answered_before_a_restart_is_not_asked_about() -> None:
    """It is known what comes; and nothing was lost, so its group is not asked twice."""
    play = Play(UNLIMITED)
    play.list()
    ask(play, 2)
    settle(play)
    (record,) = play.records(OperationRecord)
    assert record.answered
    later = restarted(record)
    assert later.state.demand().coming == 2
    ask(later, 2)
    later.tick(60.0)
    assert not later.has(effects.Increase)


def test_what_may_still_come_outlasts_a_restart_without_being_waited_for() -> None:
    """It counts against the limit only, as before the restart."""
    record = OperationRecord("g", "op", 0, START, unlikely=2, answered=True)
    play = Play(replace(UNLIMITED, max_instances=3), records=[record])
    play.list()
    assert (play.state.demand().coming, play.state.demand().instances) == (0, 2)
    ask(play, 3)
    assert play.take(effects.Increase).count == 1


def test_an_answer_that_came_after_its_first_instances_leaves_the_others_possible() -> None:
    """Three were requested, and one was seen before the provider told that two are created."""
    play = Play(replace(UNLIMITED, max_instances=3))
    play.list()
    ask(play, 3)
    increase = play.take(effects.Increase)
    play.say(events.ListingArrived("g", Listing((Instance("a", State.CREATING),))))
    play.say(events.IncreaseSettled("g", increase.operation, Accepted(2), told=True))
    assert play.state.demand().coming == 2
    assert play.state.demand().instances == 3, "the third is unlikely, and counts"


def test_a_restart_does_not_end_a_warm_pool() -> None:
    """The recent load is not stored: idle instances are as idle as since the restart, no more."""
    policy = Policy(idle_time=timedelta(minutes=20))
    records = [InstanceRecord("g", id, None, START, 5, (), ready_at=START) for id in "abc"]
    play = Play(Settings(policy=policy, heartbeat_interval=timedelta(0)), records=records)
    listed = [Instance(id, State.RUNNING) for id in "abc"]
    play.seconds = 30 * 60.0
    play.list(*listed)
    for id in "abc":
        play.say(events.InstancePrepared("g", id))
    play.tick(20 * 60.0 - 1)
    assert set(play.phases().values()) == {Phase.READY}
    play.tick(1.0)
    assert set(play.phases().values()) == {Phase.REMOVING}


def test_a_restart_without_a_network_does_not_replace_the_fleet() -> None:
    """Instances that were ready before are like any that fail their checks: a tenth goes."""
    ids = [f"i{number}" for number in range(20)]
    records = [InstanceRecord("g", id, None, START, 5, (), ready_at=START) for id in ids]
    policy = Policy(idle_count=20, idle_time=timedelta(hours=1))
    play = Play(replace(UNLIMITED, policy=policy), records=records)
    play.list(*(Instance(id, State.RUNNING) for id in ids))
    for id in ids:
        play.say(events.PreparationFailed("g", id, "no route to host"), after=0.1)
    play.tick()
    assert set(play.phases().values()) == {Phase.READY}
    assert not play.has(effects.Increase), "they are expected back"
    play.say(events.TaskAsked("waits"))
    play.tick()
    assert play.take(effects.Increase).count == 1, "a task needs one that works"
    for _ in range(5):
        play.tick(10.0)
        checked = [one.id for one in play.todo if isinstance(one, effects.CheckHealth)]
        play.todo = [one for one in play.todo if not isinstance(one, effects.CheckHealth)]
        for id in checked:
            play.say(events.HealthFailed("g", id, "no route to host"))
    assert [*play.phases().values()].count(Phase.REMOVING) == 2
    assert "fault is probably in the network" in play.state.standing().troubles["g"]
    play.tick(10.0)
    for id in [one.id for one in play.todo if isinstance(one, effects.CheckHealth)]:
        play.say(events.HealthPassed("g", id))
    assert play.status("waits") is not None
    assert sum(one.available for one in play.state.instances()) == 17


def test_a_restart_keeps_the_order_in_which_tasks_were_suspended() -> None:
    """Not that of their instances: the longest suspended expires first."""
    second = START + timedelta(seconds=1)
    records = [
        InstanceRecord("g", "a", None, START, 1, (), suspended=(("late", 0, second),)),
        InstanceRecord("g", "b", None, second, 1, (), suspended=(("early", 0, START),)),
    ]
    assert Play(records=records).suspended() == ["early", "late"]


def test_a_restart_requests_a_removal_once() -> None:
    """An interrupted instance whose tasks the restart ended goes, and nothing is bought for it."""
    play = Play(Settings(heartbeat_interval=timedelta(0)))
    play.ready("a")
    deadline = START + timedelta(seconds=120)
    play.say(events.InterruptionAnnounced("g", "a", "spot", deadline))
    play.tick()
    play.take(effects.Increase)
    later = Play(records=list(play.stored.values()))
    later.list(Instance("a", State.RUNNING))
    assert later.take(effects.Decrease).ids == ("a",)
    later.tick(1.0)
    assert not later.has(effects.Decrease)
    assert not later.has(effects.Increase)
    assert later.state.demand().endangered == 0
