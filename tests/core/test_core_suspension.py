"""Tasks that stop for now, and the instances that sleep for them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from core_model import START, Play
from core_sleepers import ABLE, ROOMY, asleep, life, start
from fleeting.errors import PermissionDenied, ProviderError
from fleeting.types import Accepted, Instance, State
from taskscaler import IllegalEvent
from taskscaler.core import InstanceRecord, Phase, Policy, Rule, Settings, effects, events

REFUSED = Accepted(0, error=ProviderError("not now"))


def began(play: Play) -> float:
    """Return when the first suspended task was suspended, in seconds."""
    since = next(play.state.suspended()).since
    assert since is not None
    return (since - START).total_seconds()


def test_an_instance_is_suspended_when_no_task_runs_on_it_any_more() -> None:
    """As long as another task runs there it goes on, and its free slots are offered."""
    play = start(capacity=3)
    play.say(events.TaskSuspended("task-0"))
    play.say(events.TaskReleased("task-1"))
    play.tick()
    assert not play.has(effects.Suspend)
    demand = play.state.demand()
    assert (demand.acquired, demand.free, demand.unavailable) == (1, 1, 0)
    assert play.state.demand().suspended == 1
    play.say(events.TaskAsked("other"))
    assert play.take(effects.Grant).slot == 1, "the suspended task keeps slot 0"
    play.say(events.TaskReleased("other"))
    play.say(events.TaskReleased("task-2"))
    play.tick()
    assert play.take(effects.Suspend).ids == ("a",)
    assert play.state.demand().free == 0


def test_a_suspended_instance_counts_against_the_limit_and_is_not_idle() -> None:
    """It stays for as long as its task, whatever the policy says of idle instances."""
    play = asleep(max_instances=1, policy=Policy())
    play.say(events.TaskAsked("other"))
    play.tick(3600.0)
    assert not play.has(effects.Increase)
    assert not play.has(effects.Decrease)
    (blocked,) = play.state.blocked
    assert blocked.clamped_by == "max_instances"


def test_a_suspended_group_is_listed_at_the_slow_interval() -> None:
    """Nothing is expected of it."""
    play = asleep()
    play.tick(59.9)
    assert not play.has(effects.List)
    play.tick(0.2)
    assert play.has(effects.List)


def test_a_resumed_task_goes_on_in_its_slot() -> None:
    """The instance is started, proved ready without the operator's command, and counts no use."""
    play = asleep(instance_ready_command="prepare it")
    play.say(events.TaskResumed("task-0"), after=5.0)
    play.tick()
    assert play.take(effects.Resume).ids == ("a",)
    play.say(events.ResumeSettled("g", ("a",), Accepted(1, ("a",))))
    play.relist(Instance("a", State.RESUMING))
    play.relist(Instance("a", State.RUNNING))
    assert play.take(effects.Prepare).command == ""
    play.say(events.InstancePrepared("g", "a"))
    grant = play.take(effects.Grant)
    assert (grant.key, grant.id, grant.slot) == ("task-0", "a", 0)
    assert play.one("a").used == 1
    play.say(events.TaskReleased("task-0"))
    assert play.state.drained
    assert play.suspended() == []
    assert play.one("a").available == 1


def test_a_task_is_resumed_at_once_where_its_instance_runs() -> None:
    """Another task kept it awake."""
    play = start(capacity=2)
    play.say(events.TaskSuspended("task-1"))
    play.say(events.TaskResumed("task-1"))
    assert play.take(effects.Grant).slot == 1
    assert not play.suspended()


def test_a_task_that_is_resumed_while_its_instance_goes_to_sleep_waits_until_it_sleeps() -> None:
    """No cloud goes from suspending to resuming."""
    play = start()
    play.say(events.TaskSuspended("task-0"))
    play.tick()
    play.say(events.TaskResumed("task-0"))
    play.say(events.SuspendSettled("g", ("a",), Accepted(1, ("a",))))
    play.relist(Instance("a", State.SUSPENDING))
    assert not play.has(effects.Resume)
    play.relist(Instance("a", State.SUSPENDED))
    assert play.take(effects.Resume).ids == ("a",)


def test_a_task_that_gives_up_being_resumed_stays_suspended() -> None:
    """The instance comes up, finds no task to serve, and is suspended again."""
    play = asleep()
    play.say(events.TaskResumed("task-0"))
    play.tick()
    play.say(events.TaskCancelled("task-0"))
    assert play.suspended() == ["task-0"]
    play.say(events.ResumeSettled("g", ("a",), Accepted(1, ("a",))))
    play.relist(Instance("a", State.RUNNING))
    play.say(events.InstancePrepared("g", "a"))
    assert not play.has(effects.Grant)
    assert life(play) is Phase.SUSPENDING


def test_a_refused_suspension_lets_the_instance_serve_on_until_the_next_try() -> None:
    """Its free slots would else be lost, and it is paid for anyway."""
    play = start(capacity=2)
    play.say(events.TaskSuspended("task-0"))
    play.say(events.TaskReleased("task-1"))
    play.tick()
    play.take(effects.Suspend)
    play.say(events.SuspendSettled("g", ("a",), REFUSED))
    play.say(events.InstancePrepared("g", "a"))
    assert life(play) is Phase.READY
    assert play.state.demand().free == 1
    play.tick(59.0)
    assert not play.has(effects.Suspend)
    assert play.state.demand().free == 1
    play.tick(1.0)
    assert play.take(effects.Suspend).ids == ("a",)


def test_a_suspension_or_resumption_without_effect_is_asked_for_again() -> None:
    """After the interval for removals without effect."""
    play = start()
    play.say(events.TaskSuspended("task-0"))
    play.tick()
    play.take(effects.Suspend)
    play.say(events.SuspendSettled("g", ("a",), Accepted(1, ("a",))))
    play.say(events.SuspendSettled("g", ("unknown",), REFUSED))
    play.tick(59.0)
    assert not play.has(effects.Suspend)
    play.tick(1.0)
    play.take(effects.Suspend)
    play = asleep()
    play.say(events.TaskResumed("task-0"))
    play.tick()
    play.take(effects.Resume)
    play.tick(100.0)
    assert not play.has(effects.Resume), "the first answer is awaited"
    play.say(events.ResumeSettled("g", ("a", "unknown"), REFUSED))
    play.tick(59.0)
    assert not play.has(effects.Resume)
    play.tick(1.0)
    play.take(effects.Resume)


def test_a_task_that_is_not_resumed_in_time_loses_its_slot() -> None:
    """Its instance goes with the last of them."""
    play = asleep(suspend_time_to_live=timedelta(hours=1))
    until = 3600.0 - (play.seconds - began(play))
    play.tick(until - 1.0)
    assert play.take(effects.WakeAt).monotonic <= play.seconds + 60.0
    assert not play.has(effects.Decrease)
    play.tick(1.0)
    decrease = play.take(effects.Decrease)
    assert (decrease.ids, decrease.decisions[0].rule) == (("a",), Rule.EXPIRED)
    assert "not resumed within 1h" in decrease.decisions[0].detail
    with pytest.raises(IllegalEvent, match="not suspended"):
        play.say(events.TaskResumed("task-0"))


def test_a_task_that_is_being_resumed_does_not_expire() -> None:
    """It came in time; how long its instance takes is not its fault."""
    play = asleep(suspend_time_to_live=timedelta(hours=1), update_interval=timedelta(days=1))
    play.say(events.TaskResumed("task-0"))
    play.tick(7200.0)
    assert not play.has(effects.Decrease)
    assert play.has(effects.Resume)


def test_a_suspended_task_can_be_given_up() -> None:
    """The slot is free where the instance runs, and the instance goes where it sleeps."""
    play = asleep()
    play.say(events.SuspendedTaskDropped("task-0"))
    play.tick()
    assert play.take(effects.Decrease).ids == ("a",)
    play = start(capacity=2)
    play.say(events.TaskSuspended("task-0"))
    play.say(events.TaskAsked("other"))
    play.say(events.SuspendedTaskDropped("task-0"))
    assert play.take(effects.Grant).slot == 0, "the waiting task has it"


def test_a_task_whose_instance_is_lost_is_told_when_it_wants_to_go_on() -> None:
    """One that waits to be resumed is refused; another finds out when it asks."""
    play = asleep()
    play.say(events.TaskResumed("task-0"))
    play.tick()
    play.relist()
    refuse = play.take(effects.Refuse)
    assert refuse.key == "task-0"
    assert "instance a was lost" in refuse.why
    assert play.status("task-0") is None


def test_work_survives_an_instance_that_cannot_be_reached_after_it_was_resumed() -> None:
    """The task is told and stays suspended, the instance stops, and a second try succeeds."""
    play = asleep()
    play.say(events.TaskResumed("task-0"))
    play.tick()
    play.say(events.ResumeSettled("g", ("a",), Accepted(1, ("a",))))
    play.relist(Instance("a", State.RUNNING))
    play.say(events.PreparationFailed("g", "a", "no answer"))
    assert "no answer" in play.take(effects.Refuse).why
    assert (life(play), play.suspended()) == (Phase.SUSPENDING, ["task-0"])
    assert not play.state.standing().troubles, "it says nothing about new instances"
    play.tick()
    assert play.take(effects.Suspend).ids == ("a",)
    play.say(events.SuspendSettled("g", ("a",), Accepted(1, ("a",))))
    play.relist(Instance("a", State.SUSPENDED))
    play.say(events.TaskResumed("task-0"))
    play.tick()
    play.say(events.ResumeSettled("g", ("a",), Accepted(1, ("a",))))
    play.relist(Instance("a", State.RUNNING))
    play.say(events.InstancePrepared("g", "a"))
    assert play.take(effects.Grant).key == "task-0"


def test_a_provider_that_refuses_to_tell_how_a_resumed_instance_is_reached_keeps_its_work() -> None:
    """The task is told at once, the instance does not wait at full price, and growth pauses."""
    play = asleep()
    play.say(events.TaskResumed("task-0"))
    play.tick()
    play.say(events.ResumeSettled("g", ("a",), Accepted(1, ("a",))))
    play.relist(Instance("a", State.RUNNING))
    play.todo.clear()
    denied = PermissionDenied("no SendSSHPublicKey")
    play.say(events.PreparationFailed("g", "a", str(denied), denied))
    assert "SendSSHPublicKey" in play.take(effects.Refuse).why
    assert (life(play), play.suspended()) == (Phase.SUSPENDING, ["task-0"])
    assert not play.has(effects.Prepare)
    assert "SendSSHPublicKey" in play.state.standing().troubles["g"]


@pytest.mark.parametrize("remove", [True, False])
def test_suspended_work_outlives_the_checks_that_its_instance_fails(*, remove: bool) -> None:
    """With `remove_unhealthy_with_tasks` the running task loses its slot, the suspended one not."""
    play = start(
        capacity=2,
        failure_threshold=1,
        heartbeat_interval=timedelta(minutes=1),
        remove_unhealthy_with_tasks=remove,
    )
    play.say(events.TaskSuspended("task-0"))
    play.tick(60.0)
    play.say(events.HealthFailed("g", "a", "dead"))
    assert [one.key for one in play.todo if isinstance(one, effects.Revoke)] == ["task-1"] * remove
    assert life(play) is (Phase.SUSPENDING if remove else Phase.READY)
    assert play.suspended() == ["task-0"]
    (record,) = play.records(InstanceRecord)
    assert record.tasks == (() if remove else ("task-1",))
    assert not play.has(effects.Decrease)


def test_a_cloud_that_refuses_to_suspend_an_unreachable_instance_is_not_asked_all_the_time() -> (
    None
):
    """Each refusal is followed by the interval, however fast the attempts to reach it fail."""
    play = asleep()
    play.relist(Instance("a", State.RUNNING))
    play.say(events.PreparationFailed("g", "a", "no answer"))
    play.tick()
    play.take(effects.Suspend)
    play.say(events.SuspendSettled("g", ("a",), REFUSED))
    assert life(play) is Phase.PREPARING
    play.say(events.PreparationFailed("g", "a", "no answer"))
    play.tick(59.0)
    assert not play.has(effects.Suspend)
    play.tick(1.0)
    assert play.take(effects.Suspend).ids == ("a",)


def test_an_instance_that_another_program_stops_is_removed() -> None:
    """Its running tasks are lost; only for suspended ones it is kept."""
    play = start()
    play.relist(Instance("a", State.SUSPENDED))
    assert play.take(effects.Revoke).key == "task-0"
    assert play.one("a").rule is Rule.LOST
    play = start(capacity=2)
    play.say(events.TaskSuspended("task-0"))
    play.relist(Instance("a", State.SUSPENDED))
    assert play.take(effects.Revoke).key == "task-1"
    assert life(play) is Phase.SUSPENDED
    stored = [put for one in play.todo if isinstance(one, effects.Persist) for put in one.put]
    record = stored[-1]
    assert isinstance(record, InstanceRecord)
    assert record.tasks == (), "after a restart it is not one on which tasks ran"


def test_an_instance_that_another_program_starts_is_suspended_again() -> None:
    """No task would use it otherwise."""
    play = asleep()
    play.relist(Instance("a", State.RUNNING))
    play.say(events.InstancePrepared("g", "a"))
    assert life(play) is Phase.SUSPENDING


def test_an_instance_that_is_to_go_sleeps_first() -> None:
    """It is used up; it goes when its suspended task is done."""
    play = asleep(max_use_count=1)
    assert play.one("a").rule is Rule.USED_UP
    play.say(events.TaskResumed("task-0"))
    play.tick()
    play.say(events.ResumeSettled("g", ("a",), Accepted(1, ("a",))))
    play.relist(Instance("a", State.RUNNING))
    play.say(events.InstancePrepared("g", "a"))
    assert life(play) is Phase.DRAINING
    play.say(events.TaskReleased("task-0"))
    assert life(play) is Phase.REMOVING


def test_a_resumed_task_waits_until_its_instance_is_well() -> None:
    """It cannot go on anywhere else."""
    play = start(capacity=2, heartbeat_interval=timedelta(minutes=1))
    play.say(events.TaskSuspended("task-0"))
    play.tick(60.0)
    play.say(events.HealthFailed("g", "a", "no answer"))
    play.say(events.TaskResumed("task-0"))
    assert not play.has(effects.Grant)
    play.tick(10.0)
    play.say(events.HealthPassed("g", "a"))
    assert play.take(effects.Grant).key == "task-0"


def test_a_drain_waits_for_a_task_that_is_being_resumed() -> None:
    """It came in time; the other suspended ones stay suspended."""
    play = asleep()
    drained = [play.state.drained]
    play.say(events.TaskResumed("task-0"))
    play.say(events.DrainAsked())
    drained.append(play.state.drained)
    play.relist(Instance("a", State.RUNNING))
    play.say(events.InstancePrepared("g", "a"))
    assert play.take(effects.Grant).key == "task-0"
    play.say(events.TaskReleased("task-0"))
    assert [*drained, play.state.drained] == [True, False, True]


def test_a_shutdown_leaves_suspended_instances_alone() -> None:
    """Those that still run are suspended, and then nothing is left to be done."""
    play = start(capacity=2)
    play.say(events.TaskSuspended("task-0"))
    play.say(events.ShutdownAsked(remove=True))
    play.tick()
    assert play.take(effects.Revoke).key == "task-1"
    assert play.take(effects.Suspend).ids == ("a",)
    assert not play.state.finished
    play.say(events.SuspendSettled("g", ("a",), Accepted(1, ("a",))))
    play.relist(Instance("a", State.SUSPENDED))
    assert not play.has(effects.Decrease)
    end = play.state.standing()
    assert end.phases["suspended"] == 1
    assert play.state.finished


def test_a_shutdown_refuses_tasks_that_wait_to_be_resumed() -> None:
    """The task stays suspended, and can be resumed in the scaler's next life."""
    play = asleep()
    play.say(events.TaskResumed("task-0"))
    play.say(events.ShutdownAsked(remove=True))
    assert play.take(effects.Refuse).key == "task-0"
    with pytest.raises(IllegalEvent):
        play.say(events.TaskCancelled("task-0"))
    assert play.say(events.TaskResumed("task-0")) == [
        effects.Refuse("task-0", "the scaler shuts down")
    ]


def test_suspended_tasks_outlive_the_scaler() -> None:
    """They keep their slots, their age, and their instance, whether it sleeps or not."""
    play = asleep()
    (record,) = play.records(InstanceRecord)
    (task,) = play.state.suspended()
    assert record.suspended == (("task-0", 0, task.since),)
    settings = play.state.settings
    later = Play(settings, ABLE, records=[record])
    assert life(later) is Phase.CREATING
    later.list(Instance("a", State.SUSPENDED))
    assert life(later) is Phase.SUSPENDED
    later.say(events.TaskResumed("task-0"))
    later.tick()
    assert later.take(effects.Resume).ids == ("a",)


def test_impossible_suspensions_and_resumptions_are_refused() -> None:
    """A task without a slot, one in another group, an unknown one, and one twice."""
    play = Play(Settings(policy=ROOMY))
    play.ready("a")
    for event in (
        events.TaskSuspended("task-0"),
        events.TaskSuspended("unknown"),
        events.TaskResumed("task-0"),
        events.SuspendedTaskDropped("task-0"),
    ):
        with pytest.raises(IllegalEvent):
            play.say(event)
    play = asleep()
    play.say(events.TaskResumed("task-0"))
    for event in (events.TaskResumed("task-0"), events.SuspendedTaskDropped("task-0")):
        with pytest.raises(IllegalEvent):
            play.say(event)
    with pytest.raises(IllegalEvent, match="already waits for or has a slot"):
        play.say(events.TaskAsked("task-0"))


def test_a_task_that_sleeps_is_told_that_its_instance_is_lost() -> None:
    """It does not wait now, but can be resumed later."""
    play = asleep()
    play.relist()
    revoke = play.take(effects.Revoke)
    assert (revoke.key, revoke.id) == ("task-0", "a")
    assert play.suspended() == []


def test_an_instance_stays_for_the_last_of_its_sleeping_tasks() -> None:
    """One that is given up frees its slot; the others keep theirs."""
    play = start(capacity=2)
    for key in ("task-0", "task-1"):
        play.say(events.TaskSuspended(key))
    play.tick()
    play.say(events.SuspendedTaskDropped("task-0"))
    assert life(play) is Phase.SUSPENDING
    assert play.state.demand().suspended == 1
