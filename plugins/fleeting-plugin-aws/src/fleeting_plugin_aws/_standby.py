"""How an instance is put to sleep and woken up: standby in its group, and stopped in EC2.

To stop an instance of a group makes AWS replace it, so it enters standby
first, and leaves it last. Each step takes AWS a while, and the next one needs
it to be done:

    to sleep:  InService -> EnteringStandby -> Standby, running -> stopping -> stopped
    to wake:   Standby, stopped -> pending -> running -> Pending -> InService

So a request takes the first step that can be taken, and each listing the next
one, until the end is reached. Which step that is depends only on what AWS says
and on what was wanted last; a request that is repeated goes on from wherever
the first one had come.

An instance that is in standby and runs, and of which we want nothing, was put
there by somebody: it is `UNKNOWN`, and left alone.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from fleeting.types import State
from fleeting_plugin_aws._states import life

__all__ = ("STANDBY", "Step", "Wish", "is_fulfilled", "next_step", "sleeping")


class Wish(enum.Enum):
    """What is to become of an instance."""

    SLEEP = "sleep"
    WAKE = "wake"


class Step(enum.Enum):
    """What can be done for that now."""

    ENTER_STANDBY = "enter standby"
    STOP = "stop"
    START = "start"
    EXIT_STANDBY = "exit standby"
    WAIT = "wait"
    IMPOSSIBLE = "impossible"


class Sleeping(NamedTuple):
    """What a listing says of an instance that is to sleep, sleeps, or is to wake.

    Attributes:
        state: of ours.
        reason: for people.
    """

    state: State
    reason: str | None = None


# What is in standby and not ours to put to sleep or to wake.
_LEFT_ALONE = {
    "pending": Sleeping(State.RESUMING),
    "running": Sleeping(State.UNKNOWN, "somebody has put it in standby, and it runs"),
    "stopping": Sleeping(State.SUSPENDING),
}
_GONE = frozenset({"shutting-down", "terminated"})
STANDBY = frozenset({"EnteringStandby", "Standby"})

_TO_SLEEP = {"running": Step.STOP}
_TO_WAKE = {"stopped": Step.START, "running": Step.EXIT_STANDBY}


def next_step(wish: Wish, lifecycle: str, machine: str) -> Step:
    """Return what is to be done next.

    Args:
        wish: what is wanted.
        lifecycle: AWS's word for the state in the group.
        machine: EC2's word for the state of the instance; empty if it is not known.
    """
    if machine in _GONE or life(lifecycle).state is State.DELETING:
        return Step.IMPOSSIBLE
    if lifecycle == "Standby":
        steps = _TO_SLEEP if wish is Wish.SLEEP else _TO_WAKE
        return steps.get(machine, Step.WAIT)
    if wish is Wish.SLEEP and lifecycle == "InService":
        return Step.ENTER_STANDBY
    if wish is Wish.SLEEP and lifecycle not in STANDBY:
        return Step.IMPOSSIBLE  # It is still being created.
    return Step.WAIT


def is_fulfilled(wish: Wish, lifecycle: str, machine: str) -> bool:
    """Return whether nothing is left to be done."""
    if wish is Wish.SLEEP:
        return lifecycle == "Standby" and machine == "stopped"
    return lifecycle not in STANDBY and life(lifecycle).state is State.RUNNING


def sleeping(wish: Wish | None, lifecycle: str, machine: str) -> Sleeping:
    """Return what a listing says of an instance in standby, or of one of which something is wanted.

    Args:
        wish: what is wanted of it, if anything.
        lifecycle: AWS's word for the state in the group.
        machine: EC2's word for the state of the instance; empty if it is not known.
    """
    if lifecycle not in STANDBY:
        found = life(lifecycle).state
        wakes = wish is Wish.WAKE and found is State.CREATING
        return Sleeping(State.RESUMING if wakes else found)
    if machine in _GONE:
        return Sleeping(State.FAILED, "EC2 has ended it while it was in standby")
    if wish is Wish.WAKE:
        return Sleeping(State.RESUMING)
    if lifecycle == "Standby" and machine == "stopped":
        return Sleeping(State.SUSPENDED)
    if lifecycle == "EnteringStandby" or wish is Wish.SLEEP:
        return Sleeping(State.SUSPENDING)
    return _LEFT_ALONE.get(machine, Sleeping(State.UNKNOWN, "EC2 does not say what it does"))
