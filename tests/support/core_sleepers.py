"""A core whose instance sleeps for a suspended task."""

from __future__ import annotations

from datetime import timedelta

from core_model import Play
from fleeting.types import Accepted, Capability, GroupInfo, Instance, State
from taskscaler.core import Phase, Policy, Settings, effects, events

ROOMY = Policy(idle_time=timedelta(hours=10))
ABLE = GroupInfo("g", capabilities=frozenset({Capability.SUSPEND}))


def start(*, capacity: int = 1, **changes: object) -> Play:
    """Return a core with one ready instance `a`, whose slots `task-0`, `task-1` ... hold."""
    values = {
        "capacity_per_instance": capacity,
        "policy": ROOMY,
        "heartbeat_interval": timedelta(0),
        "missed_updates": 1,
    } | changes
    play = Play(Settings(**values), ABLE)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - of many types
    play.ready("a")
    play.todo.clear()
    return play


def asleep(**changes: object) -> Play:
    """Return a core whose only instance `a` is suspended, because of `task-0`."""
    play = start(**changes)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - of many types
    play.say(events.TaskSuspended("task-0"))
    play.tick()
    suspend = play.take(effects.Suspend)
    assert suspend.ids == ("a",)
    play.say(events.SuspendSettled("g", ("a",), Accepted(1, ("a",))))
    play.relist(Instance("a", State.SUSPENDED))
    assert life(play) is Phase.SUSPENDED
    play.todo.clear()
    return play


def life(play: Play) -> Phase:
    """Return the phase of the instance `a`."""
    return play.phase("a")
