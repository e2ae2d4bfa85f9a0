"""A scaler that is drained, or that shuts down."""

from __future__ import annotations

from datetime import timedelta

from core_model import Play
from fleeting.types import Accepted, Capability, GroupInfo, Instance, State
from taskscaler.core import Phase, Policy, Settings, TaskStatus, effects, events

ABLE = GroupInfo("g", capabilities=frozenset({Capability.SUSPEND}))
WARM = Settings(
    policy=Policy(idle_count=1, idle_time=timedelta(hours=1)), heartbeat_interval=timedelta(0)
)


def idle(settings: Settings = WARM) -> Play:
    """Return a core with one idle instance `a`."""
    play = Play(settings, ABLE)
    play.list()
    play.grow("a")
    play.todo.clear()
    return play


def test_a_drained_scaler_grants_no_slot_although_one_is_free() -> None:
    """Neither to a task nor to a reservation; what was promised before is kept."""
    play = idle()
    play.say(events.TaskReserved("promised"))
    play.say(events.DrainAsked())
    assert not play.state.drained, "the reservation may become a task"
    play.say(events.TaskReserved("reserves"))
    assert play.take(effects.Refuse).key == "reserves"
    play.say(events.TaskAsked("promised"))
    assert play.take(effects.Grant).key == "promised"
    play.say(events.TaskReleased("promised"))
    play.say(events.TaskAsked("asks"))
    assert play.take(effects.Refuse).key == "asks"
    assert play.state.drained


def test_a_drained_scaler_resumes_no_task() -> None:
    """It stays suspended, for the next process."""
    play = idle()
    play.say(events.TaskAsked("sleeper"))
    play.say(events.TaskSuspended("sleeper"))
    play.say(events.DrainAsked())
    play.say(events.TaskResumed("sleeper"))
    assert play.take(effects.Refuse).key == "sleeper"
    assert play.suspended() == ["sleeper"]


def test_a_scaler_that_shuts_down_breaks_its_promises() -> None:
    """Its instances may go, so the slot will not be there."""
    play = idle()
    play.say(events.TaskReserved("promised"))
    play.say(events.ShutdownAsked(remove=False))
    play.say(events.TaskAsked("promised"))
    assert play.take(effects.Refuse).key == "promised"


def test_a_shutdown_that_removes_nothing_refuses_waiting_tasks() -> None:
    """They would wait for ever."""
    play = Play(WARM)
    play.say(events.TaskAsked("waits"))
    play.say(events.ShutdownAsked(remove=False))
    assert play.take(effects.Refuse).key == "waits"
    assert play.status("waits") is None


def test_a_shutdown_that_removes_nothing_leaves_idle_instances_alone() -> None:
    """No decision is taken for the policy any more."""
    play = idle(Settings(policy=Policy(idle_count=1, idle_time=timedelta(minutes=1))))
    play.say(events.ShutdownAsked(remove=False))
    play.tick(3600.0)
    assert play.phase("a") is Phase.READY
    assert not play.has(effects.Decrease)


def test_a_shutdown_does_not_remove_what_is_not_ours() -> None:
    """It counts against the limit for as long as it is there, and that is all."""
    play = Play(WARM)
    play.list(Instance("theirs", State.RUNNING))
    play.say(events.ShutdownAsked(remove=True))
    play.tick()
    assert play.phase("theirs") is Phase.FOREIGN
    assert not play.has(effects.Decrease)


def test_a_shutdown_waits_for_the_answers_to_its_removals_and_for_slow_deletions() -> None:
    """An instance that the cloud is deleting is not given up, however often it was asked for."""
    play = idle()
    play.say(events.ShutdownAsked(remove=True))
    for _ in range(6):
        play.tick()
        if play.has(effects.Decrease):
            ids = play.take(effects.Decrease).ids
            assert not play.state.finished, "its answer is awaited"
            play.say(events.DecreaseSettled("g", ids, Accepted(1, ids)))
        play.relist(Instance("a", State.DELETING))
        assert not play.state.finished
        play.tick(10.0)
    play.relist()
    assert play.state.finished


def test_a_shutdown_repeats_a_removal_at_its_own_interval() -> None:
    """It has minutes, and the ordinary interval is one."""
    play = idle()
    play.say(events.ShutdownAsked(remove=True))
    play.tick()
    ids = play.take(effects.Decrease).ids
    play.say(events.DecreaseSettled("g", ids, Accepted(1, ids)))
    play.tick(9.0)
    assert not play.has(effects.Decrease)
    play.tick(1.0)
    assert play.take(effects.Decrease).ids == ids


def test_a_task_that_waits_to_be_resumed_is_told_of_the_shutdown() -> None:
    """It stays suspended, and its instance with it."""
    play = idle()
    play.say(events.TaskAsked("sleeper"))
    play.say(events.TaskSuspended("sleeper"))
    play.tick()
    play.say(events.TaskResumed("sleeper"))
    play.say(events.ShutdownAsked(remove=True))
    assert play.take(effects.Refuse).key == "sleeper"
    assert play.status("sleeper") is TaskStatus.SUSPENDED
    play.tick()
    assert not play.has(effects.Decrease)
