"""How instances go: by age, at a shutdown, after a drain; and what a restart finds of them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from core_model import START, Play
from fleeting.errors import Throttled
from fleeting.types import Accepted, Instance, Listing, State
from taskscaler.core import (
    GroupRecord,
    InstanceRecord,
    JobRecord,
    OperationRecord,
    Phase,
    Placement,
    Policy,
    Record,
    Rule,
    Settings,
    TombstoneRecord,
    UnknownInstances,
    effects,
    events,
)
from taskscaler.core.model.records import ConnectRecord

ROOMY = Policy(idle_time=timedelta(hours=10))
HOUR = timedelta(hours=1)


def settings(**changes: object) -> Settings:
    """Return settings under which idle instances stay, and nothing is checked."""
    values = {
        "policy": ROOMY,
        "heartbeat_interval": timedelta(0),
        "update_interval": timedelta(days=1),
    } | changes
    return Settings(**values)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - of many types


# Age.


def test_an_old_instance_is_retired_and_its_task_goes_on() -> None:
    """It gets no further task, and goes when the last one has ended."""
    play = Play(settings(max_instance_age=HOUR))
    play.ready("a")
    play.todo.clear()
    born = (play.one("a").created_at - START).total_seconds()
    play.tick(born + 3599.0 - play.seconds)
    assert play.phase("a") is Phase.READY
    assert play.take(effects.WakeAt).monotonic == born + 3600.0
    play.tick(1.0)
    assert play.phase("a") is Phase.DRAINING
    play.say(events.TaskReleased("task-0"))
    play.tick()
    decrease = play.take(effects.Decrease)
    assert decrease.decisions[0].rule is Rule.AGE
    assert "older than 1h" in decrease.decisions[0].detail


def test_instances_of_one_age_are_replaced_a_part_at_a_time() -> None:
    """Every tenth goes; the next when one of them is gone."""
    play = Play(settings(max_instance_age=HOUR, missed_updates=1))
    ids = [f"i-{number}" for number in range(20)]
    play.ready(*ids)
    for number in range(20):
        play.say(events.TaskReleased(f"task-{number}"))
    play.todo.clear()
    play.tick(3601.0)
    assert play.take(effects.Decrease).ids == ("i-0", "i-1")
    play.tick()
    play.say(events.DecreaseSettled("g", ("i-0", "i-1"), Accepted(2, ("i-0", "i-1"))))
    play.tick()
    play.todo.clear()
    left = [Instance(id, State.RUNNING) for id in ids[1:]]
    play.say(events.ListingArrived("g", Listing(tuple(left))))
    play.tick()
    assert play.take(effects.Decrease).ids == ("i-2",)


def aged(idle_count: int, **changes: object) -> Play:
    """Return a play with idle instances that will be too old in a moment."""
    policy = Policy(idle_count=idle_count, idle_time=timedelta(hours=10))
    play = Play(settings(policy=policy, max_instance_age=HOUR, **changes))
    play.list()
    play.grow(*(f"old-{number}" for number in range(idle_count)))
    play.todo.clear()
    play.tick(3599.0)
    return play


def test_the_successor_of_an_old_instance_is_ready_first() -> None:
    """A pool of one is never empty."""
    play = aged(1)
    play.tick(1.0)
    assert play.phases() == {"old-0": Phase.READY}
    increase = play.take(effects.Increase)
    assert (increase.count, increase.decision.demand.outgoing) == (1, 1)
    play.tick(1.0)
    assert not play.has(effects.Increase), "one is coming"
    play.say(events.IncreaseSettled("g", increase.operation, Accepted(1)))
    play.relist(Instance("old-0", State.RUNNING), Instance("new", State.RUNNING))
    assert play.phase("old-0") is Phase.READY
    play.say(events.InstancePrepared("g", "new"))
    play.tick()
    assert play.phases() == {"old-0": Phase.REMOVING, "new": Phase.READY}
    assert play.state.demand().shortfall == 0


def test_at_a_limit_an_old_instance_goes_without_a_successor() -> None:
    """It could never have one."""
    play = aged(1, max_instances=1)
    play.tick(1.0)
    assert play.phase("old-0") is Phase.REMOVING


def test_a_promised_slot_outlasts_the_maximum_age() -> None:
    """At a limit too; the task that was promised it gets it, and then the instance goes."""
    play = aged(1, max_instances=1)
    play.say(events.TaskReserved("promised"))
    play.tick(1.0)
    assert play.phase("old-0") is Phase.READY
    play.say(events.TaskAsked("promised"))
    play.say(events.HealthPassed("g", "old-0"))
    assert play.held() == ["promised"]
    play.tick(0.1)
    assert play.phase("old-0") is Phase.DRAINING


def test_an_old_instance_goes_when_a_promise_is_given_back() -> None:
    """The scaler wakes for it, and not only when the idle time is over."""
    play = aged(1, max_instances=1)
    play.say(events.TaskReserved("promised"))
    play.tick(1.0)
    play.todo.clear()
    play.say(events.TaskUnreserved("promised"), after=1.0)
    assert play.take(effects.WakeAt).monotonic == play.seconds
    play.tick()
    assert play.phase("old-0") is Phase.REMOVING


def test_a_successor_is_made_for_a_tenth_at_a_time() -> None:
    """The pool stays as large as it is, and is not bought a second time at once."""
    play = aged(20)
    play.tick(1.0)
    assert play.take(effects.Increase).count == 2
    assert set(play.phases().values()) == {Phase.READY}


def test_no_instance_is_too_old_without_a_maximum_age() -> None:
    """A year alone does not dismiss an instance."""
    play = Play(settings(policy=Policy(idle_time=timedelta(days=1000))))
    play.ready("a")
    play.say(events.TaskReleased("task-0"))
    play.todo.clear()
    play.tick(365 * 86400.0)
    assert play.phase("a") is Phase.READY


def test_age_counts_from_before_a_restart() -> None:
    """An instance that an earlier life of the scaler made is as old as it is."""
    record = InstanceRecord("g", "a", None, START - timedelta(minutes=59), 0, (), ready_at=START)
    play = Play(settings(max_instance_age=HOUR), records=[record])
    play.list(Instance("a", State.RUNNING))
    play.say(events.InstancePrepared("g", "a"))
    play.tick(59.0)
    assert play.phase("a") is Phase.READY
    play.tick(1.0)
    assert play.phase("a") is Phase.REMOVING


# Shutdown and drain.


def test_a_shutdown_asks_a_limited_number_of_times() -> None:
    """An instance that stays in spite of all requests is given up, and the scaler can end."""
    play = Play(settings(shutdown_deletion_retries=2, missed_updates=1))
    play.ready("a")
    play.say(events.TaskReleased("task-0"))
    play.say(events.ShutdownAsked(remove=True))
    for _ in range(3):
        assert not play.state.finished
        play.tick(10.0)
        assert play.take(effects.Decrease).ids == ("a",)
        play.say(events.DecreaseSettled("g", ("a",), Accepted(0, error=Throttled("busy"))))
    assert play.state.finished


def test_a_shutdown_waits_for_an_instance_that_is_being_deleted() -> None:
    """The cloud is at it; how long that may take is the shutdown's own deadline."""
    play = Play(settings(shutdown_deletion_retries=0, missed_updates=1))
    play.ready("a")
    play.say(events.TaskReleased("task-0"))
    play.say(events.ShutdownAsked(remove=True))
    play.tick()
    play.take(effects.Decrease)
    play.say(events.DecreaseSettled("g", ("a",), Accepted(1, ("a",))))
    play.relist(Instance("a", State.DELETING))
    assert not play.state.finished
    play.relist()
    assert play.state.finished


def test_a_drain_serves_tasks_that_came_in_time() -> None:
    """Tasks that wait or were promised a slot get it, and no others; then nothing is left."""
    play = Play(settings(capacity_per_instance=2, max_instances=1))
    play.list()
    play.say(events.TaskAsked("waits"))
    play.say(events.TaskReserved("promised"))
    play.say(events.DrainAsked())
    why = "the scaler takes no new tasks, because it is drained"
    assert play.say(events.TaskAsked("late")) == [effects.Refuse("late", why)]
    assert play.say(events.TaskReserved("late")) == [effects.Refuse("late", why)]
    play.say(events.DrainAsked())
    play.tick()
    play.grow("a")
    assert play.take(effects.Grant).key == "waits"
    play.say(events.TaskAsked("promised"))
    assert play.take(effects.Grant).key == "promised"
    play.say(events.TaskReleased("waits"))
    assert not play.state.drained
    play.say(events.TaskReleased("promised"))
    assert play.state.drained


def test_a_drain_buys_no_idle_capacity_and_removes_none() -> None:
    """No task will use it in this process, but one may in the next."""
    play = Play(settings(policy=Policy(idle_count=1, idle_time=timedelta(hours=1))))
    play.list()
    play.grow("a")
    play.say(events.TaskAsked("task"))
    play.say(events.DrainAsked())
    play.todo.clear()
    play.tick(60.0)
    assert not play.has(effects.Increase)
    play.say(events.TaskReleased("task"))
    play.tick(60.0)
    assert not play.has(effects.Decrease)


def test_a_task_whose_slot_falls_through_during_the_shutdown_is_refused() -> None:
    """It would wait for ever."""
    play = Play(settings(probe_after=timedelta(0)))
    play.ready("a")
    play.say(events.HealthPassed("g", "a"))
    play.say(events.TaskReleased("task-0"))
    play.say(events.TaskAsked("next"))
    play.say(events.ShutdownAsked(remove=True))
    play.tick()
    assert play.take(effects.Refuse).key == "next"
    assert play.state.drained


# Restart.


def test_an_instance_that_ran_tasks_is_used_again_if_the_operator_says_so() -> None:
    """Its use count goes on, its old tasks are forgotten, and no command is run on it again."""
    record = InstanceRecord("g", "a", None, START, 2, ("ran",), ready_at=START)
    kept = settings(
        keep_instance_with_acquisitions=True, max_use_count=3, instance_ready_command="prepare"
    )
    play = Play(kept, records=[record])
    (persist,) = [one for one in play.todo if isinstance(one, effects.Persist)]
    assert persist.put == (InstanceRecord("g", "a", None, START, 2, (), ready_at=START),)
    play.list(Instance("a", State.RUNNING))
    assert play.take(effects.Prepare).command == ""
    play.say(events.InstancePrepared("g", "a"))
    play.say(events.TaskAsked("last"))
    assert play.take(effects.Grant).id == "a"
    assert play.phase("a") is Phase.DRAINING, "that was its third use"


def test_an_instance_that_was_never_ready_is_prepared_with_the_command() -> None:
    """The scaler ended before it had proved itself."""
    record = InstanceRecord("g", "a", None, START, 0, ())
    play = Play(settings(instance_ready_command="prepare"), records=[record])
    play.list(Instance("a", State.RUNNING))
    assert play.take(effects.Prepare).command == "prepare"


def test_an_instance_that_was_given_up_before_a_restart_is_still_ours() -> None:
    """It comes back, and is removed rather than taken for a foreign one."""
    stones = [TombstoneRecord("g", "a", "1", START), TombstoneRecord("other", "b", None, START)]
    play = Play(settings(unknown_instances=UnknownInstances.IGNORE), records=stones)
    play.list(Instance("a", State.RUNNING, incarnation="1"))
    assert play.take(effects.Decrease).ids == ("a",)
    dropped = [key for one in play.todo if isinstance(one, effects.Persist) for key in one.drop]
    assert ("tombstone", "g", "a") in dropped


def test_only_instances_that_may_come_back_are_remembered() -> None:
    """An instance that was listed as being deleted is not stored as given up."""
    play = Play(settings(missed_updates=1))
    play.ready("a", "b")
    play.todo.clear()
    play.say(events.ListingArrived("g", Listing((Instance("b", State.DELETING),))))
    play.say(events.ListingArrived("g", Listing()))
    stored = [record for one in play.todo if isinstance(one, effects.Persist) for record in one.put]
    stones = [one.id for one in stored if isinstance(one, TombstoneRecord)]
    assert stones == ["a"]


def test_records_of_others_are_left_alone() -> None:
    """Those of groups that are not driven, and those that are not of the core."""
    records: list[Record] = [
        InstanceRecord("other", "a", None, START, 0, ()),
        OperationRecord("other", "op", 1, START),
        GroupRecord("other", 1, START, START, "full"),
        JobRecord("job", "digest", "running", 1),
    ]
    play = Play(settings(), records=records)
    assert play.phases() == {}
    assert not any(isinstance(one, effects.Persist) for one in play.todo)
    assert [one.key for one in records] == [
        ("instance", "other", "a"),
        ("operation", "other", "op"),
        ("group", "other", ""),
        ("job", "", "job"),
    ]
    assert ConnectRecord("g", "a", None, None).key == ("connect", "g", "a")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - only its key matters


def test_an_instance_that_was_known_not_to_be_ours_is_not_ours_after_a_crash() -> None:
    """It is not taken for the result of a request whose outcome is unknown."""
    play = Play(settings())
    play.list(Instance("theirs", State.RUNNING))
    play.say(events.TaskAsked("task"))
    play.tick()
    (record,) = play.records(OperationRecord)
    assert record == OperationRecord("g", "op-1", 1, START, ("theirs",))
    later = Play(settings(), records=[record])
    later.list(Instance("theirs", State.RUNNING))
    assert later.phase("theirs") is Phase.FOREIGN
    later.relist(Instance("theirs", State.RUNNING), Instance("ours", State.RUNNING))
    assert later.phase("ours") is Phase.PREPARING


# Limits that were lowered.


def lower(play: Play, **changes: object) -> None:
    """Change the settings, and take the decision that follows."""
    play.say(events.SettingsChanged(settings(**changes)))
    play.todo.clear()
    play.tick()


@pytest.mark.parametrize("limit", [{"max_instances": 2}, {"group_limits": {"g": 2}}])
def test_a_lowered_limit_takes_effect_while_tasks_wait(limit: dict[str, object]) -> None:
    """Busy instances finish their tasks and take no others; those that stay serve the queue."""
    play = Play(settings(max_instances=4))
    play.ready("a", "b", "c", "d")
    for key in ("next", "last"):
        play.say(events.TaskAsked(key))
    play.say(events.TaskReserved("none of these slots is its own"))
    lower(play, **limit)
    assert [*play.phases().values()].count(Phase.DRAINING) == 2
    play.tick()
    assert [*play.phases().values()].count(Phase.DRAINING) == 2, "these are enough"
    for number in range(4):
        play.say(events.TaskReleased(f"task-{number}"))
    assert [*play.phases().values()].count(Phase.REMOVING) == 2
    assert play.held() == ["next", "last"]
    rule = Rule.LIMIT if "max_instances" in limit else Rule.GROUP_LIMIT
    play.tick()
    assert [one.rule for one in play.take(effects.Decrease).decisions] == [rule]


def test_above_a_limit_those_instances_go_first_that_lose_least() -> None:
    """Idle before coming, coming before busy, and of the busy ones the fullest last."""
    play = Play(settings(capacity_per_instance=2, placement=Placement.SPREAD))
    play.ready("full", "half", "idle")
    for key in ("task-2", "task-4", "task-5"):
        play.say(events.TaskReleased(key))
    tasks = {one.id: 2 - one.available for one in play.state.instances()}
    assert tasks == {"full": 2, "half": 1, "idle": 0}
    for number in range(5):
        play.say(events.TaskAsked(f"more-{number}"))
    play.tick(1.0)
    for number in range(5):
        if f"more-{number}" in play.held():
            play.say(events.TaskReleased(f"more-{number}"))
    play.tick()
    increase = play.take(effects.Increase)
    play.say(events.IncreaseSettled("g", increase.operation, Accepted(increase.count)))
    ready = [Instance(id, State.RUNNING) for id in ("full", "half", "idle")]
    play.relist(*ready, Instance("coming", State.CREATING))
    order: list[str] = []
    for limit in (3, 2, 1):
        before = play.phases()
        lower(play, capacity_per_instance=2, placement=Placement.SPREAD, max_instances=limit)
        order += [id for id, phase in play.phases().items() if phase is not before[id]]
    assert order == ["idle", "coming", "half"]
    assert play.phases() == {
        "full": Phase.READY,
        "half": Phase.DRAINING,
        "idle": Phase.REMOVING,
        "coming": Phase.REMOVING,
    }


def test_an_instance_that_may_never_come_removes_none_that_works() -> None:
    """A request whose answer was lost may have brought nothing."""
    play = Play(settings(max_instances=3))
    play.ready("a")
    for key in ("b", "c"):
        play.say(events.TaskAsked(key))
    play.tick(1.0)
    increase = play.take(effects.Increase)
    play.say(events.IncreaseSettled("g", increase.operation, Accepted(0), unknown=True))
    lower(play, max_instances=1)
    assert play.phase("a") is Phase.READY


def test_a_promised_slot_outlasts_a_lowered_limit() -> None:
    """The instance stays until the promise is kept."""
    policy = Policy(idle_time=timedelta(hours=10), preemptive_mode=True)
    play = Play(settings(policy=policy, capacity_per_instance=2))
    play.ready("a", "b")
    play.say(events.TaskReleased("task-0"))
    play.say(events.TaskReserved("promised"))
    lower(play, policy=policy, capacity_per_instance=2, max_instances=1)
    assert play.phases() == {"a": Phase.READY, "b": Phase.DRAINING}
    play.say(events.TaskAsked("promised"))
    lower(play, policy=policy, capacity_per_instance=2, group_limits={"g": 0})
    assert play.phase("a") is Phase.DRAINING


@pytest.mark.parametrize("uses", [0, 1])
def test_a_shutdown_that_keeps_instances_waits_for_those_that_are_used_up(uses: int) -> None:
    """Nothing would use them again, so they are removed first; the others stay."""
    play = Play(Settings(max_use_count=uses, policy=ROOMY))
    play.ready("a")
    play.say(events.TaskReleased("task-0"))
    play.say(events.ShutdownAsked(remove=False))
    play.tick()
    assert play.state.finished is not bool(uses)
    if uses:
        ids = play.take(effects.Decrease).ids
        play.say(events.DecreaseSettled("g", ids, Accepted(1, ids)))
        assert not play.state.finished, "the removal was accepted, and has not ended"
        play.relist()
        play.relist()
        assert play.state.finished
