"""How AWS's states of a group and its members are read, and the steps of a suspension."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import botocore.session
import pytest

from fleeting.types import State
from fleeting_plugin_aws._standby import (
    StandbyStatus,
    StandbyStep,
    SuspensionGoal,
    is_reached,
    next_step,
    standby_status,
    within_limits,
)
from fleeting_plugin_aws._states import WARM, lifecycle_of, read_group

NOON = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)


def member(id: str, lifecycle: str, **facts: Any) -> dict[str, Any]:
    """Return a member as AWS describes it."""
    return {"InstanceId": id, "LifecycleState": lifecycle, "HealthStatus": "Healthy", **facts}


def group(*members: dict[str, Any], **facts: Any) -> dict[str, Any]:
    """Return a group as AWS describes it."""
    return {"MinSize": 0, "MaxSize": 9, "DesiredCapacity": 0, "Instances": members, **facts}


def test_every_state_of_aws_is_known() -> None:
    """Each `LifecycleState` of AWS's own model is known, except those of warm pools."""
    model: Any = botocore.session.get_session().get_service_model("autoscaling")
    states: list[str] = model.shape_for("LifecycleState").enum
    unknown = [one for one in states if lifecycle_of(one).state is State.UNKNOWN]
    assert len(states) > 25
    assert unknown == [one for one in states if one.startswith(WARM)]


@pytest.mark.parametrize(
    ("lifecycle", "state", "counts"),
    [
        ("Pending:Wait", State.CREATING, True),
        ("ReplacingRootVolume", State.CREATING, True),
        ("InService", State.RUNNING, True),
        ("Terminating:Proceed", State.DELETING, False),
        ("Detaching", State.DELETING, False),
        ("Standby", State.SUSPENDING, False),
        ("Levitating", State.UNKNOWN, True),
    ],
)
def test_lifecycle_states(lifecycle: str, state: State, counts: bool) -> None:  # noqa: FBT001
    """A state of AWS maps to one of ours, and counts against the desired capacity or not."""
    assert lifecycle_of(lifecycle) == (state, counts)


def test_pending_is_desired_minus_counted() -> None:
    """Members that are deleted, suspended or warm do not reduce the number of pending instances."""
    found = read_group(
        group(
            member("i-1", "InService"),
            member("i-2", "Terminating"),
            member("i-3", "Standby"),
            member("i-4", "Warmed:Stopped"),
            member("i-5", "Pending"),
            DesiredCapacity=4,
        ),
        NOON,
    )
    assert (found.counted, found.pending) == (2, 2)
    assert set(found.members) == {"i-1", "i-2", "i-3", "i-5"}


def test_pending_is_never_negative() -> None:
    """A group with more members than desired has no pending instances."""
    assert read_group(group(member("i-1", "InService")), NOON).pending == 0


def test_health_and_protection_are_read() -> None:
    """AWS's health status is read in upper and lower case, and protection is read too."""
    found = read_group(
        group(
            member("i-1", "InService", HealthStatus="UNHEALTHY", ProtectedFromScaleIn=True),
            member("i-2", "InService"),
        ),
        NOON,
    )
    assert [(one.healthy, one.protected) for one in found.members.values()] == [
        (False, True),
        (True, False),
    ]


@pytest.mark.parametrize(
    ("lifecycle", "ec2_state", "step"),
    [
        ("InService", "running", StandbyStep.ENTER_STANDBY),
        ("EnteringStandby", "running", StandbyStep.WAIT),
        ("Standby", "running", StandbyStep.STOP),
        ("Standby", "stopping", StandbyStep.WAIT),
        ("Standby", "stopped", StandbyStep.WAIT),
        ("Standby", "terminated", StandbyStep.IMPOSSIBLE),
        ("Pending", "pending", StandbyStep.IMPOSSIBLE),
        ("Terminating", "running", StandbyStep.IMPOSSIBLE),
    ],
)
def test_steps_to_suspend(lifecycle: str, ec2_state: str, step: StandbyStep) -> None:
    """Each state has exactly one next step towards being suspended."""
    assert next_step(SuspensionGoal.SUSPENDED, lifecycle, ec2_state) is step


@pytest.mark.parametrize(
    ("lifecycle", "ec2_state", "step"),
    [
        ("EnteringStandby", "running", StandbyStep.WAIT),
        ("Standby", "stopping", StandbyStep.WAIT),
        ("Standby", "stopped", StandbyStep.START),
        ("Standby", "pending", StandbyStep.WAIT),
        ("Standby", "running", StandbyStep.EXIT_STANDBY),
        ("Pending", "running", StandbyStep.WAIT),
        ("InService", "running", StandbyStep.WAIT),
        ("Standby", "shutting-down", StandbyStep.IMPOSSIBLE),
    ],
)
def test_steps_to_resume(lifecycle: str, ec2_state: str, step: StandbyStep) -> None:
    """Each state has exactly one next step towards being resumed."""
    assert next_step(SuspensionGoal.RESUMED, lifecycle, ec2_state) is step


@pytest.mark.parametrize(
    ("goal", "lifecycle", "ec2_state", "state"),
    [
        (SuspensionGoal.SUSPENDED, "InService", "running", State.RUNNING),
        (SuspensionGoal.SUSPENDED, "EnteringStandby", "running", State.SUSPENDING),
        (SuspensionGoal.SUSPENDED, "Standby", "running", State.SUSPENDING),
        (SuspensionGoal.SUSPENDED, "Standby", "stopping", State.SUSPENDING),
        (None, "Standby", "stopping", State.SUSPENDING),
        (None, "Standby", "stopped", State.SUSPENDED),
        (SuspensionGoal.RESUMED, "Standby", "pending", State.RESUMING),
        (SuspensionGoal.RESUMED, "Standby", "running", State.RESUMING),
        (SuspensionGoal.RESUMED, "Pending", "running", State.RESUMING),
        (None, "EnteringStandby", "running", State.UNKNOWN),
        (None, "Standby", "running", State.UNKNOWN),
        (None, "Standby", "", State.UNKNOWN),
        (None, "Standby", "terminated", State.FAILED),
    ],
)
def test_listed_state_of_instances_in_standby(
    goal: SuspensionGoal | None, lifecycle: str, ec2_state: str, state: State
) -> None:
    """Only stopped instances are listed as suspended; a running one without a goal is unknown."""
    assert standby_status(goal, lifecycle, ec2_state).state is state


def test_unknown_standby_instance_has_a_reason() -> None:
    """An instance that another client has put in standby is listed with a reason."""
    assert standby_status(None, "Standby", "running") == StandbyStatus(
        State.UNKNOWN, "it runs in standby, where another client has put it"
    )


def test_goals_are_reached() -> None:
    """A goal is reached after the last step, and not before."""
    assert is_reached(SuspensionGoal.SUSPENDED, "Standby", "stopped")
    assert not is_reached(SuspensionGoal.SUSPENDED, "Standby", "stopping")
    assert is_reached(SuspensionGoal.RESUMED, "InService", "running")
    assert not is_reached(SuspensionGoal.RESUMED, "Pending", "running")


@pytest.mark.parametrize(
    ("step", "fitting"),
    [
        (StandbyStep.ENTER_STANDBY, ["i-1"]),
        (StandbyStep.START, ["i-1", "i-2"]),
        (StandbyStep.EXIT_STANDBY, ["i-1", "i-2"]),
        (StandbyStep.STOP, ["i-1", "i-2", "i-3"]),
    ],
)
def test_steps_within_the_limits(step: StandbyStep, fitting: list[str]) -> None:
    """As many instances take a step as `MinSize` and `MaxSize` allow."""
    found = read_group(group(MinSize=2, DesiredCapacity=3, MaxSize=5), NOON)
    assert within_limits(found, dict.fromkeys(("i-1", "i-2", "i-3"), step)) == fitting
