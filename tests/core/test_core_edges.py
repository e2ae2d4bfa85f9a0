"""Off-by-one errors, and decisions that are not due, would show here."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from core_model import START, Play
from fleeting.errors import Throttled
from fleeting.types import Accepted, Capability, GroupInfo, Instance, State
from taskscaler.core import (
    InstanceRecord,
    Phase,
    Policy,
    Settings,
    TombstoneRecord,
    UnknownInstances,
)
from taskscaler.core.model import decisions, demand, effects, events, explain, records

ROOMY = Policy(idle_time=timedelta(hours=10))
ABLE = GroupInfo("g", capabilities=frozenset({Capability.SUSPEND}))
STRUCTS = [
    value
    for module in (decisions, demand, effects, events, explain, records)
    for value in vars(module).values()
    if isinstance(value, type)
    and issubclass(value, msgspec.Struct)
    and value.__module__ == module.__name__
]


def settings(**changes: object) -> Settings:
    """Return settings under which idle instances stay, and nothing is checked."""
    values = {"policy": ROOMY, "heartbeat_interval": timedelta(0)} | changes
    return Settings(**values)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - of many types


def idle(play: Play, *ids: str) -> None:
    """Get ready instances without tasks, and forget how."""
    play.ready(*ids)
    for number in range(len(ids) * play.state.settings.capacity_per_instance):
        play.say(events.TaskReleased(f"task-{number}"))
    play.tick()
    play.todo.clear()


def woken_at(play: Play) -> list[float]:
    """Return when the core wants to be woken, and forget it."""
    found = [one.monotonic for one in play.todo if isinstance(one, effects.WakeAt)]
    play.todo.clear()
    return found


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_values_of_the_core_are_frozen(struct: type[msgspec.Struct]) -> None:
    """Each of these values is frozen, and those that are made all the time cost no collection."""
    assert struct.__struct_config__.frozen
    frequent = struct.__module__.rpartition(".")[2] in ("effects", "events", "records")
    assert struct.__struct_config__.gc is not frequent


@pytest.mark.parametrize(
    ("policy", "waits"),
    [
        (Policy(idle_time=timedelta(hours=10)), False),
        (Policy(idle_count=1, idle_time=timedelta(hours=10)), True),
        (Policy(scale_factor=1.0, idle_time=timedelta(hours=10)), True),
    ],
)
def test_a_slot_that_is_taken_asks_for_a_decision_only_where_idle_capacity_is_kept(
    policy: Policy, *, waits: bool
) -> None:
    """And then without haste: a tenth of a second after the last one at the earliest."""
    play = Play(settings())
    idle(play, "a", "b", "c")
    play.say(events.SettingsChanged(settings(policy=policy)))
    play.tick()
    play.todo.clear()
    decided = play.seconds
    play.say(events.TaskAsked("task"), after=0.01)
    assert woken_at(play) == ([decided + 0.1] if waits else [])


def test_a_reservation_that_is_given_back_serves_a_waiting_task() -> None:
    """The slot was promised, and is free for all tasks now."""
    play = Play(settings())
    idle(play, "a")
    strict = Policy(idle_time=timedelta(hours=10), preemptive_mode=True)
    play.say(events.SettingsChanged(settings(policy=strict)))
    play.say(events.TaskReserved("promised"))
    play.say(events.TaskAsked("waits"))
    assert not play.has(effects.Grant)
    play.say(events.TaskUnreserved("promised"))
    assert play.take(effects.Grant).key == "waits"


def test_a_resumed_instance_brings_its_other_slots() -> None:
    """Of two slots one is kept by a suspended task, so one is coming."""
    kept = (("task-0", 0, START),)
    record = InstanceRecord("g", "a", None, START, 1, (), ready_at=START, suspended=kept)
    play = Play(settings(capacity_per_instance=2), ABLE, records=[record])
    play.list(Instance("a", State.RUNNING))
    assert play.phase("a") is Phase.PREPARING
    assert play.state.demand().coming == 1


def test_only_as_many_idle_instances_go_as_are_not_needed() -> None:
    """Two of three where one idle slot is wanted; one of two where its group may have one."""
    play = Play(settings())
    idle(play, "a", "b", "c")
    play.say(events.SettingsChanged(settings(policy=Policy(idle_count=1))))
    play.tick()
    assert len(play.take(effects.Decrease).ids) == 2
    play = Play(settings())
    idle(play, "a", "b", "c")
    play.say(events.SettingsChanged(settings(group_limits={"g": 1})))
    play.tick()
    assert len(play.take(effects.Decrease).ids) == 2


def test_a_task_that_is_resumed_in_its_last_moment_causes_no_busy_loop() -> None:
    """Its time is over while it is being resumed, and no decision is asked for at once again."""
    play = Play(settings(suspend_time_to_live=timedelta(hours=1)), ABLE)
    play.ready("a")
    play.say(events.TaskSuspended("task-0"))
    began = play.seconds
    play.tick()
    play.say(events.SuspendSettled("g", ("a",), Accepted(1, ("a",))))
    play.relist(Instance("a", State.SUSPENDED))
    play.say(events.TaskResumed("task-0"))
    play.todo.clear()
    play.tick(began + 3600.0 - play.seconds)
    assert all(at > play.seconds for at in woken_at(play))


def test_a_refused_suspension_is_woken_for() -> None:
    """The next try comes by itself, when the interval is over."""
    play = Play(settings(capacity_per_instance=2, update_interval=timedelta(days=1)), ABLE)
    play.ready("a")
    play.say(events.TaskSuspended("task-0"))
    play.say(events.TaskReleased("task-1"))
    play.tick()
    play.say(events.SuspendSettled("g", ("a",), Accepted(0)))
    retry = play.seconds + 60.0
    play.say(events.InstancePrepared("g", "a"))
    play.tick()
    play.list(Instance("a", State.RUNNING))
    assert woken_at(play)[-1] == retry


def test_an_instance_has_proved_itself_when_it_becomes_ready() -> None:
    """However long it took to come up, its first task need not wait for a check."""
    play = Play(settings())
    play.list()
    play.say(events.TaskAsked("task"))
    play.tick()
    increase = play.take(effects.Increase)
    play.say(events.IncreaseSettled("g", increase.operation, Accepted(1)))
    play.relist(Instance("a", State.RUNNING))
    play.say(events.InstancePrepared("g", "a"), after=100.0)
    assert play.take(effects.Grant).key == "task"


def test_a_failed_check_is_stored_without_its_tasks_and_decided_on_at_once() -> None:
    """A restart must not find tasks there that never knew; recovery asks for a decision, too."""
    play = Play(settings(capacity_per_instance=2, max_instances=1))
    idle(play, "a")
    play.say(events.TaskAsked("task"), after=60.0)
    play.tick()
    play.todo.clear()
    play.say(events.HealthFailed("g", "a", "no answer"))
    (record,) = play.take(effects.Persist).put
    assert isinstance(record, InstanceRecord)
    assert (record.tasks, record.used) == ((), 2)
    assert woken_at(play) == [play.seconds]
    play.tick(10.0)
    play.todo.clear()
    play.say(events.HealthPassed("g", "a"))
    assert woken_at(play) == [play.seconds]


def test_a_later_machine_under_an_id_that_was_given_up_is_a_stranger() -> None:
    """Only the same one, as far as the cloud can tell, is still ours and removed."""
    stones = [TombstoneRecord("g", id, "1", START) for id in ("same", "other", "unclear")]
    play = Play(settings(), records=stones)
    play.list(
        Instance("same", State.RUNNING, incarnation="1"),
        Instance("other", State.RUNNING, incarnation="2"),
        Instance("unclear", State.RUNNING),
    )
    assert play.take(effects.Decrease).ids == ("same", "unclear")
    assert play.phase("other") is Phase.FOREIGN


def test_a_suspended_task_that_is_given_up_asks_for_a_decision() -> None:
    """Its instance is to be removed, which nothing else would begin."""
    play = Play(settings(), ABLE)
    play.ready("a")
    play.say(events.TaskSuspended("task-0"))
    play.tick()
    play.todo.clear()
    play.say(events.SuspendedTaskDropped("task-0"))
    assert woken_at(play) == [play.seconds]


def test_the_slot_of_a_task_that_is_given_up_is_the_one_that_is_free() -> None:
    """It is not the first one of its instance."""
    play = Play(settings(capacity_per_instance=3), ABLE)
    play.ready("a")
    play.say(events.TaskSuspended("task-2"))
    play.say(events.SuspendedTaskDropped("task-2"))
    play.todo.clear()
    play.say(events.TaskAsked("next"))
    assert play.take(effects.Grant).slot == 2


REMOVE = {"unknown_instances": UnknownInstances.REMOVE}


@pytest.mark.parametrize("waits", [False, True])
def test_a_stranger_that_is_removed_and_recreated_is_still_a_stranger(*, waits: bool) -> None:
    """Its successor is judged by itself, and serves no task even if a request waits for one."""
    play = Play(settings(**REMOVE))
    play.list(Instance("x", State.RUNNING, incarnation="1"))
    assert play.take(effects.Decrease).ids == ("x",)
    if waits:
        play.say(events.TaskAsked("task"))
        play.tick()
        increase = play.take(effects.Increase)
        play.say(events.IncreaseSettled("g", increase.operation, Accepted(1)))
    play.say(events.DecreaseSettled("g", ("x",), Accepted(1, ("x",))))
    play.relist(Instance("x", State.RUNNING, incarnation="2"))
    assert not play.has(effects.Prepare)
    assert play.phase("x") is Phase.REMOVING
    assert not play.records(InstanceRecord), "a restart does not take it for ours either"
    assert not play.records(TombstoneRecord)


@pytest.mark.parametrize(
    ("now", "phase"),
    [(UnknownInstances.IGNORE, Phase.FOREIGN), (UnknownInstances.ADOPT, Phase.PREPARING)],
)
def test_the_setting_in_force_decides_about_a_stranger_that_an_earlier_one_condemned(
    now: UnknownInstances, phase: Phase
) -> None:
    """Its removal was refused so far; it is not asked for again."""
    play = Play(settings(**REMOVE))
    play.list(Instance("x", State.RUNNING))
    play.take(effects.Decrease)
    play.say(events.DecreaseSettled("g", ("x",), Accepted(0)))
    play.say(events.SettingsChanged(settings(unknown_instances=now)))
    play.relist(Instance("x", State.RUNNING))
    assert play.phase("x") is phase
    play.tick(3600.0)
    assert not play.has(effects.Decrease)


def test_a_restart_does_not_take_a_condemned_stranger_for_what_was_requested() -> None:
    """The request knew of it, so the setting in force decides about it."""
    play = Play(settings(**REMOVE))
    play.list(Instance("x", State.RUNNING))
    play.say(events.TaskAsked("task"))
    play.tick()
    again = Play(settings(), records=[*play.stored.values()])
    again.list(Instance("x", State.RUNNING))
    assert again.phase("x") is Phase.FOREIGN


@pytest.mark.parametrize("confirmed", ["accepted", "shown", "no"])
@pytest.mark.parametrize("restarted", [False, True])
def test_an_id_may_be_used_again_after_a_removal_that_the_cloud_confirmed(
    confirmed: str, *, restarted: bool
) -> None:
    """Some clouds name their machines vm-1 to vm-n; a machine that only vanished may come back."""
    play = Play(settings(missed_updates=1, max_use_count=1))
    play.ready("vm-1")
    play.say(events.TaskReleased("task-0"))
    play.tick()
    ids = play.take(effects.Decrease).ids
    play.say(events.DecreaseSettled("g", ids, Accepted(1, ids if confirmed == "accepted" else ())))
    if confirmed == "shown":
        play.relist(Instance("vm-1", State.DELETING))
    play.relist()
    assert not play.phases()
    if restarted:
        play = Play(settings(max_use_count=1), records=[*play.stored.values()])
        play.list()
    play.todo.clear()
    play.say(events.TaskAsked("next"))
    play.tick()
    increase = play.take(effects.Increase)
    play.say(events.IncreaseSettled("g", increase.operation, Accepted(1)))
    play.relist(Instance("vm-1", State.RUNNING))
    assert play.phase("vm-1") is (Phase.REMOVING if confirmed == "no" else Phase.PREPARING)


# Numbers that are too large.


@pytest.mark.parametrize("name", ["cooldown", "increase_interval", "max_instance_age", "backoff"])
def test_a_time_beyond_the_calendar_is_refused(name: str) -> None:
    """As a deadline, it would end a decision with an error."""
    with pytest.raises(ValueError, match=f"{name} must be at most 36,500 days"):
        Settings(**{name: timedelta.max})  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - a time each


def test_a_scale_factor_without_a_finite_product_is_refused() -> None:
    """The number of idle slots would be infinite."""
    with pytest.raises(ValueError, match="scale_factor must be at most 1,000,000"):
        Policy(scale_factor=1e308)
    assert Policy(scale_factor=1e6).scale_factor == 1e6


def test_a_pause_that_the_cloud_asks_for_ends_within_the_calendar() -> None:
    """A provider may return any number, and the end of the pause is stored as a date."""
    play = Play(Settings())
    play.list()
    play.say(events.TaskAsked("task"))
    play.tick()
    increase = play.take(effects.Increase)
    error = Throttled("never", retry_after=timedelta.max)
    play.say(events.IncreaseSettled("g", increase.operation, Accepted(0, error=error)))
    play.tick(1.0)
    assert play.pause()[0] == 36_500 * 86_400.0


def test_checks_that_are_due_one_after_the_other_are_begun_together() -> None:
    """Instances that became ready within a second do not cause a decision each."""
    settings = Settings(
        policy=Policy(idle_time=timedelta(days=1)),
        heartbeat_interval=timedelta(minutes=5),
        update_interval=timedelta(hours=1),
    )
    play = Play(settings)
    play.ready("a", "b")
    for key in ("task-0", "task-1"):
        play.say(events.TaskReleased(key, proved=True), after=0.05)
    play.todo.clear()
    play.tick(299.95)
    assert play.take(effects.CheckHealth).id == "a"
    assert play.take(effects.WakeAt).monotonic == pytest.approx(play.seconds + 0.1)
    play.tick(0.1)
    assert play.take(effects.CheckHealth).id == "b"
