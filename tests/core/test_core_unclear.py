"""Instances of which the cloud does not say clearly what they do."""

from __future__ import annotations

from core_model import Play
from fleeting.types import Instance, State
from taskscaler.core import Policy, Settings, TaskStatus, effects, events


def test_an_instance_in_an_unknown_state_is_kept_and_not_used() -> None:
    """Its tasks go on, others wait for another instance, and it does not count as idle."""
    play = Play(Settings(capacity_per_instance=2, policy=Policy()))
    play.ready("a")
    play.say(events.TaskReleased("task-1"))
    play.relist(Instance("a", State.UNKNOWN, reason="it runs in standby"))
    assert play.status("task-0") is not None
    play.say(events.TaskAsked("next"))
    play.tick()
    assert play.take(effects.Increase).count == 1
    assert play.status("next") is TaskStatus.WAITING
    play.say(events.TaskReleased("task-0"))
    assert play.status("next") is TaskStatus.WAITING
    play.relist(Instance("a", State.RUNNING))
    assert play.status("next") is not TaskStatus.WAITING


def test_an_idle_instance_in_an_unknown_state_is_not_removed() -> None:
    """The policy removes it when the cloud says again that it runs."""
    play = Play(Settings(policy=Policy()))
    play.ready("a")
    play.relist(Instance("a", State.UNKNOWN))
    play.say(events.TaskReleased("task-0"))
    play.tick(3600.0)
    assert not play.has(effects.Decrease)
    play.relist(Instance("a", State.RUNNING))
    play.tick(3600.0)
    assert play.take(effects.Decrease).ids == ("a",)
