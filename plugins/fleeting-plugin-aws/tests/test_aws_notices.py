"""What EventBridge tells through a queue."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from fleeting.types import Notice
from fleeting_plugin_aws._notices import read_event

ID = "i-0123456789abcdef0"


def event(kind: str, **detail: Any) -> str:
    """Return an event as EventBridge writes it."""
    return json.dumps(
        {
            "version": "0",
            "detail-type": kind,
            "source": "aws.ec2",
            "time": "2026-06-01T12:00:00Z",
            "detail": {"instance-id": ID, **detail},
        }
    )


def test_interruption_has_a_deadline() -> None:
    """Two minutes after the warning, EC2 takes a spot instance back."""
    found = read_event(
        event("EC2 Spot Instance Interruption Warning", **{"instance-action": "terminate"}), "x"
    )
    assert found == Notice(
        ID,
        "EC2 takes the spot instance back (terminate)",
        datetime(2026, 6, 1, 12, 2, tzinfo=UTC),
    )


def test_reservation_says_its_deadline_itself() -> None:
    """An interruptible capacity reservation comes with the time of its end."""
    found = read_event(
        event(
            "EC2 Interruptible Capacity Reservation Instance Interruption Warning",
            **{"instance-termination-time": "2026-06-01T12:05:00Z"},
        ),
        "x",
    )
    assert found is not None
    assert found.deadline == datetime(2026, 6, 1, 12, 5, tzinfo=UTC)


def test_rebalance_recommendation_has_no_deadline() -> None:
    """A recommendation is a warning that may be followed by nothing."""
    found = read_event(event("EC2 Instance Rebalance Recommendation"), "x")
    assert found is not None
    assert (found.id, found.deadline) == (ID, None)


def test_termination_by_the_group() -> None:
    """Auto Scaling announces a termination where the group has a lifecycle hook for it."""
    body = event(
        "EC2 Instance-terminate Lifecycle Action",
        EC2InstanceId=ID,
        AutoScalingGroupName="builders",
    )
    assert read_event(body, "builders") == Notice(ID, "its group terminates it")
    assert read_event(body, "others") is None


@pytest.mark.parametrize("state", ["shutting-down", "terminated"])
def test_states_that_end(state: str) -> None:
    """An instance that ends has no future, whoever ended it."""
    found = read_event(event("EC2 Instance State-change Notification", state=state), "x")
    assert found == Notice(ID, f"it is {state}")


@pytest.mark.parametrize(
    "body",
    [
        event("EC2 Instance State-change Notification", state="running"),
        event("EC2 Instance State-change Notification", state="stopping"),
        event("EC2 Instance Levitation"),
    ],
)
def test_events_that_announce_nothing(body: str) -> None:
    """What is no interruption is no notice, and no error either."""
    assert read_event(body, "x") is None


@pytest.mark.parametrize(
    "body",
    [
        "hunter2",
        "[]",
        "null",
        "{}",
        '{"detail-type": "EC2 Spot Instance Interruption Warning"}',
        '{"detail-type": "EC2 Spot Instance Interruption Warning", "detail": "hunter2"}',
        event("EC2 Spot Instance Interruption Warning").replace("2026-06-01T12:00:00Z", "hunter2"),
        event("EC2 Spot Instance Interruption Warning").replace("12:00:00Z", "12:00:00"),
    ],
)
def test_what_is_no_event(body: str) -> None:
    """A message of somebody else's is refused in words that hold nothing of it."""
    with pytest.raises(ValueError, match="no event of EventBridge") as caught:
        read_event(body, "x")
    assert "hunter2" not in str(caught.value)
