"""How EventBridge's events are read."""

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
    """EC2 interrupts a spot instance two minutes after the warning."""
    found = read_event(
        event("EC2 Spot Instance Interruption Warning", **{"instance-action": "terminate"}), "x"
    )
    assert found == Notice(
        ID,
        "EC2 interrupts the spot instance (terminate)",
        datetime(2026, 6, 1, 12, 2, tzinfo=UTC),
    )


def test_reservation_names_its_deadline() -> None:
    """The event of an interruptible capacity reservation contains the deadline."""
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
    """A recommendation is a notice without a deadline."""
    found = read_event(event("EC2 Instance Rebalance Recommendation"), "x")
    assert found is not None
    assert (found.id, found.deadline) == (ID, None)


def test_termination_by_the_group() -> None:
    """A lifecycle hook announces a termination; events of other groups are ignored."""
    body = event(
        "EC2 Instance-terminate Lifecycle Action",
        EC2InstanceId=ID,
        AutoScalingGroupName="builders",
    )
    assert read_event(body, "builders") == Notice(ID, "its group terminates it")
    assert read_event(body, "others") is None


@pytest.mark.parametrize("state", ["shutting-down", "terminated"])
def test_ending_states(state: str) -> None:
    """An instance that is ending is a notice."""
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
def test_events_without_a_notice(body: str) -> None:
    """Events that are not interruptions are neither a notice nor an error."""
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
def test_messages_that_are_not_events(body: str) -> None:
    """A message that is not an event is refused with an error that does not quote it."""
    with pytest.raises(ValueError, match="not an EventBridge event") as caught:
        read_event(body, "x")
    assert "hunter2" not in str(caught.value)
