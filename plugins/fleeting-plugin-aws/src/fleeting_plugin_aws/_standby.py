"""Decides the steps that suspend and resume an instance: standby in its group, stopped in EC2.

AWS replaces an instance of a group that is stopped, so the instance enters
standby before it is stopped, and leaves standby after it was started. AWS takes
a while for each step, and the next step needs the previous one to be finished:

    suspend:  InService -> EnteringStandby -> Standby, running -> stopping -> stopped
    resume:   Standby, stopped -> pending -> running -> Pending -> InService

So a request takes the first possible step, and `reconcile` takes the next one
after each listing until the goal is reached. The next step depends only on the
states that AWS reports and on the goal, so a repeated request continues from
wherever the first one has come.

The goal is a tag of the instance, from before the first step until the last one
is sent. So a process that is killed between two steps leaves what the next one
needs. A running instance in standby without a goal was put there by another
client. It is `UNKNOWN`, and left alone.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

from fleeting.types import State
from fleeting_plugin_aws._states import lifecycle_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fleeting_plugin_aws._states import GroupSnapshot

__all__ = (
    "STANDBY",
    "StandbyStatus",
    "StandbyStep",
    "SuspensionGoal",
    "is_reached",
    "next_step",
    "standby_status",
    "within_limits",
)


class SuspensionGoal(enum.Enum):
    """The state that a request wants for an instance; the value is the verb for messages."""

    SUSPENDED = "suspend"
    RESUMED = "resume"


class StandbyStep(enum.Enum):
    """The next step towards a goal."""

    ENTER_STANDBY = "enter standby"
    STOP = "stop"
    START = "start"
    EXIT_STANDBY = "exit standby"
    WAIT = "wait"
    IMPOSSIBLE = "impossible"


class StandbyStatus(NamedTuple):
    """How a listing shows an instance that is in standby or has a goal.

    Attributes:
        state: our state.
        reason: a human-readable explanation.
    """

    state: State
    reason: str | None = None


# For instances in standby without a goal, by EC2's state.
_WITHOUT_GOAL = {
    "pending": StandbyStatus(State.RESUMING),
    "running": StandbyStatus(State.UNKNOWN, "it runs in standby, where another client has put it"),
    "stopping": StandbyStatus(State.SUSPENDING),
}
_GONE = frozenset({"shutting-down", "terminated"})
STANDBY = frozenset({"EnteringStandby", "Standby"})

_SUSPEND_STEPS = {"running": StandbyStep.STOP}
_RESUME_STEPS = {"stopped": StandbyStep.START, "running": StandbyStep.EXIT_STANDBY}


def next_step(goal: SuspensionGoal, lifecycle_state: str, ec2_state: str) -> StandbyStep:
    """Return the next step towards a goal.

    Args:
        goal: what is wanted.
        lifecycle_state: the instance's state in the group.
        ec2_state: the instance's state in EC2; empty if it is unknown.
    """
    if ec2_state in _GONE or lifecycle_of(lifecycle_state).state is State.DELETING:
        return StandbyStep.IMPOSSIBLE
    suspends = goal is SuspensionGoal.SUSPENDED
    if lifecycle_state == "Standby":
        steps = _SUSPEND_STEPS if suspends else _RESUME_STEPS
        return steps.get(ec2_state, StandbyStep.WAIT)
    if suspends and lifecycle_state == "InService":
        return StandbyStep.ENTER_STANDBY
    if suspends and lifecycle_state not in STANDBY:
        return StandbyStep.IMPOSSIBLE  # It is still being created.
    return StandbyStep.WAIT


def is_reached(goal: SuspensionGoal, lifecycle_state: str, ec2_state: str) -> bool:
    """Return whether a goal is reached; the arguments are those of `next_step`."""
    if goal is SuspensionGoal.SUSPENDED:
        return lifecycle_state == "Standby" and ec2_state == "stopped"
    return lifecycle_state not in STANDBY and lifecycle_of(lifecycle_state).state is State.RUNNING


def standby_status(
    goal: SuspensionGoal | None, lifecycle_state: str, ec2_state: str
) -> StandbyStatus:
    """Return how a listing shows an instance that is in standby or has a goal.

    Args:
        goal: what is wanted, if anything.
        lifecycle_state: the instance's state in the group.
        ec2_state: the instance's state in EC2; empty if it is unknown.
    """
    resumes = goal is SuspensionGoal.RESUMED
    if lifecycle_state not in STANDBY:
        found = lifecycle_of(lifecycle_state).state
        return StandbyStatus(State.RESUMING if resumes and found is State.CREATING else found)
    if ec2_state in _GONE:
        return StandbyStatus(State.FAILED, "EC2 has terminated it while it was in standby")
    if resumes:
        return StandbyStatus(State.RESUMING)
    if lifecycle_state == "Standby" and ec2_state == "stopped":
        return StandbyStatus(State.SUSPENDED)
    if goal is SuspensionGoal.SUSPENDED:
        return StandbyStatus(State.SUSPENDING)
    return _WITHOUT_GOAL.get(
        ec2_state, StandbyStatus(State.UNKNOWN, "EC2 did not report its state")
    )


def within_limits(group: GroupSnapshot, steps: Mapping[str, StandbyStep]) -> list[str]:
    """Return the ids whose steps fit between the group's `MinSize` and `MaxSize`."""
    room = {
        StandbyStep.ENTER_STANDBY: max(0, group.desired - group.minimum),
        StandbyStep.START: max(0, group.maximum - group.desired),
        StandbyStep.EXIT_STANDBY: max(0, group.maximum - group.desired),
    }
    fitting: list[str] = []
    for id, step in steps.items():
        if room.get(step, 1) > 0:
            fitting.append(id)
            if step in room:
                room[step] -= 1
    return fitting
