"""The read-only views that drivers get of tasks and instances."""

from __future__ import annotations

from datetime import timedelta

import pytest

from core_model import Play
from fleeting.types import Accepted, Capability, GroupInfo, Instance, State
from taskscaler import IllegalEvent
from taskscaler.core import Phase, Policy, Rule, Settings, TaskStatus, effects, events

ABLE = GroupInfo("g", capabilities=frozenset({Capability.SUSPEND}))
ROOMY = Policy(idle_time=timedelta(hours=10))


def test_a_task_is_seen_with_what_it_wants_or_has() -> None:
    """From its reservation to the loss of its slot, and to nothing when it has released it."""
    play = Play(Settings(policy=ROOMY))
    assert play.status("a") is None
    play.say(events.TaskReserved("a"))
    assert play.status("a") is TaskStatus.RESERVED
    with pytest.raises(IllegalEvent, match="in use"):
        play.say(events.TaskReserved("a"))
    play.say(events.TaskAsked("a"))
    assert play.status("a") is TaskStatus.WAITING
    play.list()
    play.grow("i")
    task = play.state.task("a")
    assert task is not None
    assert (task.status, task.group, task.instance, task.slot) == (
        TaskStatus.HOLDING,
        "g",
        "i",
        0,
    )
    assert play.state.holds("a")
    play.relist(Instance("i", State.FAILED))
    assert play.status("a") is TaskStatus.LOST
    assert not play.state.holds("a")
    play.say(events.TaskReleased("a"))
    assert play.status("a") is None


def test_a_suspended_task_is_seen_with_its_slot() -> None:
    """Whether it waits to be resumed, and where it will go on."""
    play = Play(Settings(policy=ROOMY), ABLE)
    play.ready("i")
    play.say(events.TaskSuspended("task-0"))
    task = play.state.task("task-0")
    assert task is not None
    assert (task.status, task.instance, task.slot) == (TaskStatus.SUSPENDED, "i", 0)
    assert task.phase is Phase.SUSPENDING
    play.say(events.TaskResumed("task-0"))
    assert play.status("task-0") is TaskStatus.RESUMING


def test_a_task_is_unconfirmed_while_its_instance_is_checked() -> None:
    """It has a slot and was not told."""
    play = Play(Settings(policy=ROOMY, probe_after=timedelta(0)))
    play.list()
    play.say(events.TaskAsked("a"))
    play.tick()
    increase = play.take(effects.Increase)
    play.say(events.IncreaseSettled("g", increase.operation, Accepted(1)))
    play.relist(Instance("i", State.RUNNING))
    play.say(events.InstancePrepared("g", "i"))
    assert play.status("a") is TaskStatus.UNCONFIRMED
    play.say(events.HealthPassed("g", "i"))
    assert play.status("a") is TaskStatus.HOLDING


def test_an_instance_is_seen_with_the_reason_of_its_dismissal() -> None:
    """A foreign one, too, which nothing but its removal would dismiss."""
    play = Play(Settings(policy=ROOMY))
    play.ready("i")
    play.relist(Instance("i", State.RUNNING), Instance("theirs", State.RUNNING))
    assert play.one("i").rule is None
    play.say(events.InterruptionAnnounced("g", "i", "spot"))
    play.say(events.InterruptionAnnounced("g", "theirs", "spot"))
    assert (play.one("i").rule, play.one("i").reason) == (Rule.INTERRUPTED, "spot")
    assert (play.one("theirs").phase, play.one("theirs").rule) == (Phase.FOREIGN, None)
    assert play.state.instance("g", "unknown") is None
    with pytest.raises(IllegalEvent, match="no group"):
        play.state.instance("elsewhere", "i")


def test_a_failed_check_lets_an_instance_sleep_that_only_suspended_tasks_need() -> None:
    """It fails as its last unconfirmed task is called back, and is suspended, not replaced."""
    settings = Settings(
        policy=ROOMY,
        capacity_per_instance=2,
        failure_threshold=1,
        deletion_retry_interval=timedelta(seconds=1),
    )
    play = Play(settings, ABLE)
    play.ready("i")
    play.say(events.TaskSuspended("task-0"))
    play.say(events.TaskReleased("task-1"))
    play.tick()
    play.take(effects.Suspend)
    play.say(events.SuspendSettled("g", ("i",), Accepted(0)))
    play.say(events.InstancePrepared("g", "i"))
    play.say(events.TaskAsked("next"), after=0.5)
    play.say(events.TaskReleased("next"))
    play.say(events.TaskAsked("last"), after=60.0)
    assert play.status("last") is TaskStatus.UNCONFIRMED
    play.say(events.HealthFailed("g", "i", "no answer"))
    assert play.phase("i") is Phase.SUSPENDING
    assert play.one("i").rule is None
    assert play.queue() == ["last"]


def test_a_scaler_that_is_drained_says_why_it_refuses() -> None:
    """Drivers show it when they refuse a task."""
    play = Play()
    assert play.state.refusing == ""
    play.say(events.DrainAsked())
    assert "drained" in play.state.refusing


def test_places_are_those_of_the_views_of_the_tasks() -> None:
    """For summaries of many tasks, which need no more than this."""
    play = Play(Settings(policy=ROOMY, capacity_per_instance=2))
    play.ready("a", "b")
    held = [(one.key, one.group, one.instance) for one in play.state.held()]
    assert len(held) == 4
    assert list(play.state.places()) == held
