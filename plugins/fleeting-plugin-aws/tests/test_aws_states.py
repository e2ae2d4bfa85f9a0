"""What AWS's words about a group and its members mean."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import botocore.session
import pytest

from fleeting.types import State
from fleeting_plugin_aws._standby import Sleeping, Step, Wish, is_fulfilled, next_step, sleeping
from fleeting_plugin_aws._states import WARM, life, snapshot

NOON = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)


def member(id: str, lifecycle: str, **facts: Any) -> dict[str, Any]:
    """Return a member as AWS describes it."""
    return {"InstanceId": id, "LifecycleState": lifecycle, "HealthStatus": "Healthy", **facts}


def group(*members: dict[str, Any], **facts: Any) -> dict[str, Any]:
    """Return a group as AWS describes it."""
    return {"MinSize": 0, "MaxSize": 9, "DesiredCapacity": 0, "Instances": members, **facts}


def test_every_state_that_aws_has_is_known() -> None:
    """Each `LifecycleState` of AWS's own model, but those of warm pools, has a meaning."""
    model: Any = botocore.session.get_session().get_service_model("autoscaling")
    states: list[str] = model.shape_for("LifecycleState").enum
    unknown = [one for one in states if life(one).state is State.UNKNOWN]
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
def test_states(lifecycle: str, state: State, counts: bool) -> None:  # noqa: FBT001
    """A state of AWS is one of ours, and counts against the capacity or not."""
    assert life(lifecycle) == (state, counts)


def test_pending_is_what_is_desired_and_not_there() -> None:
    """What goes, sleeps or is warm does not count, so it cannot hide what is still to come."""
    found = snapshot(
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


def test_more_members_than_desired_are_nothing_pending() -> None:
    """Pending is never negative."""
    assert snapshot(group(member("i-1", "InService")), NOON).pending == 0


def test_health_and_protection_are_read() -> None:
    """A member that AWS calls unhealthy is, in whichever case it writes that."""
    found = snapshot(
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
    ("lifecycle", "machine", "step"),
    [
        ("InService", "running", Step.ENTER_STANDBY),
        ("EnteringStandby", "running", Step.WAIT),
        ("Standby", "running", Step.STOP),
        ("Standby", "stopping", Step.WAIT),
        ("Standby", "stopped", Step.WAIT),
        ("Standby", "terminated", Step.IMPOSSIBLE),
        ("Pending", "pending", Step.IMPOSSIBLE),
        ("Terminating", "running", Step.IMPOSSIBLE),
    ],
)
def test_steps_to_sleep(lifecycle: str, machine: str, step: Step) -> None:
    """From wherever an instance is, there is one next step to put it to sleep."""
    assert next_step(Wish.SLEEP, lifecycle, machine) is step


@pytest.mark.parametrize(
    ("lifecycle", "machine", "step"),
    [
        ("EnteringStandby", "running", Step.WAIT),
        ("Standby", "stopping", Step.WAIT),
        ("Standby", "stopped", Step.START),
        ("Standby", "pending", Step.WAIT),
        ("Standby", "running", Step.EXIT_STANDBY),
        ("Pending", "running", Step.WAIT),
        ("InService", "running", Step.WAIT),
        ("Standby", "shutting-down", Step.IMPOSSIBLE),
    ],
)
def test_steps_to_wake(lifecycle: str, machine: str, step: Step) -> None:
    """From wherever an instance is, there is one next step to wake it."""
    assert next_step(Wish.WAKE, lifecycle, machine) is step


@pytest.mark.parametrize(
    ("wish", "lifecycle", "machine", "state"),
    [
        (Wish.SLEEP, "InService", "running", State.RUNNING),
        (Wish.SLEEP, "EnteringStandby", "running", State.SUSPENDING),
        (Wish.SLEEP, "Standby", "running", State.SUSPENDING),
        (Wish.SLEEP, "Standby", "stopping", State.SUSPENDING),
        (None, "Standby", "stopping", State.SUSPENDING),
        (None, "Standby", "stopped", State.SUSPENDED),
        (Wish.WAKE, "Standby", "pending", State.RESUMING),
        (Wish.WAKE, "Standby", "running", State.RESUMING),
        (Wish.WAKE, "Pending", "running", State.RESUMING),
        (None, "Standby", "running", State.UNKNOWN),
        (None, "Standby", "", State.UNKNOWN),
        (None, "Standby", "terminated", State.FAILED),
    ],
)
def test_what_a_listing_says_of_sleepers(
    wish: Wish | None, lifecycle: str, machine: str, state: State
) -> None:
    """Only what really sleeps is called suspended, and what somebody else did is left alone."""
    assert sleeping(wish, lifecycle, machine).state is state


def test_who_is_left_alone_is_told_why() -> None:
    """An instance that somebody has put in standby comes with a reason."""
    assert sleeping(None, "Standby", "running") == Sleeping(
        State.UNKNOWN, "somebody has put it in standby, and it runs"
    )


def test_wishes_come_true() -> None:
    """A wish ends with the last step, and not before."""
    assert is_fulfilled(Wish.SLEEP, "Standby", "stopped")
    assert not is_fulfilled(Wish.SLEEP, "Standby", "stopping")
    assert is_fulfilled(Wish.WAKE, "InService", "running")
    assert not is_fulfilled(Wish.WAKE, "Pending", "running")
