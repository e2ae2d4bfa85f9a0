"""How much a returning instance counts for the tasks that wait."""

from __future__ import annotations

from core_sleepers import asleep, life, start
from fleeting.types import Accepted, Instance, State
from taskscaler.core import Phase, effects, events


def test_slots_that_suspended_tasks_keep_are_not_coming() -> None:
    """A task that waits gets another instance while the one with the sleeper wakes up."""
    play = asleep()
    play.say(events.TaskResumed("task-0"))
    play.relist(Instance("a", State.RUNNING))
    assert life(play) is Phase.PREPARING
    play.say(events.TaskAsked("other"))
    play.tick()
    assert play.take(effects.Increase).count == 1


def test_slots_on_a_returning_instance_that_is_to_go_are_not_coming() -> None:
    """It wakes up for its suspended task only, so a task that waits gets another instance."""
    play = start(capacity=4)
    play.say(events.InterruptionAnnounced("g", "a", "it was reclaimed"))
    play.say(events.TaskSuspended("task-0"))
    for number in (1, 2, 3):
        play.say(events.TaskReleased(f"task-{number}"))
    play.tick()
    play.say(events.SuspendSettled("g", ("a",), Accepted(1, ("a",))))
    play.relist(Instance("a", State.SUSPENDED))
    play.say(events.TaskResumed("task-0"))
    play.relist(Instance("a", State.RUNNING))
    assert life(play) is Phase.PREPARING
    assert play.state.demand().coming == 0
    play.say(events.TaskAsked("other"))
    play.tick()
    assert play.take(effects.Increase).count == 1


def test_only_the_uses_that_are_left_on_a_returning_instance_are_coming() -> None:
    """It has four slots, one of them kept, and may run one more task."""
    play = start(capacity=4, max_use_count=5)
    play.say(events.TaskSuspended("task-0"))
    for number in (1, 2, 3):
        play.say(events.TaskReleased(f"task-{number}"))
    play.tick()
    play.say(events.SuspendSettled("g", ("a",), Accepted(1, ("a",))))
    play.relist(Instance("a", State.SUSPENDED))
    play.say(events.TaskResumed("task-0"))
    play.relist(Instance("a", State.RUNNING))
    assert play.state.demand().coming == 1
