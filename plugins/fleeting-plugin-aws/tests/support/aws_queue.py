"""An SQS queue with the events that EventBridge sends about a group's instances."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("Queue",)


@dataclass(frozen=True)
class Queue:
    """An SQS queue that is the target of a rule.

    Attributes:
        url: its URL, as clients use it.
        region: the region that events come from.
        send: sends any message to it.
    """

    url: str
    region: str
    send: Callable[[str], None]

    def send_event(self, kind: str, source: str, **detail: Any) -> None:
        """Put an event into the queue.

        Args:
            kind: its `detail-type`.
            source: which service it is from.
            detail: what it says.
        """
        event: dict[str, Any] = {
            "version": "0",
            "id": "6a2b1c1e-7f43-4a44-9b9e-0f3c1d2e4a5b",
            "detail-type": kind,
            "source": source,
            "account": "123456789012",
            "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "region": self.region,
            "resources": [],
            "detail": detail,
        }
        self.send(json.dumps(event))

    def warn_of_interruption(self, id: str) -> None:
        """Announce the interruption of a spot instance in two minutes."""
        detail = {"instance-id": id, "instance-action": "terminate"}
        self.send_event("EC2 Spot Instance Interruption Warning", "aws.ec2", **detail)

    def recommend_rebalance(self, id: str) -> None:
        """Announce that a spot instance may be interrupted soon."""
        kind = "EC2 Instance Rebalance Recommendation"
        self.send_event(kind, "aws.ec2", **{"instance-id": id})

    def announce_termination(self, group: str, id: str) -> None:
        """Announce the termination of a member, as a lifecycle hook does."""
        self.send_event(
            "EC2 Instance-terminate Lifecycle Action",
            "aws.autoscaling",
            AutoScalingGroupName=group,
            EC2InstanceId=id,
            LifecycleActionToken="87654321-4321-4321-4321-210987654321",
            LifecycleHookName="farewell",
            LifecycleTransition="autoscaling:EC2_INSTANCE_TERMINATING",
        )

    def tell_of_termination(self, group: str, id: str) -> None:
        """Send the event that a member was terminated."""
        self.send_event(
            "EC2 Instance Terminate Successful",
            "aws.autoscaling",
            AutoScalingGroupName=group,
            EC2InstanceId=id,
            StatusCode="InProgress",
            Description=f"Terminating EC2 instance: {id}",
        )
