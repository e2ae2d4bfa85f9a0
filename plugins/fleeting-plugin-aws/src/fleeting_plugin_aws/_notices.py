"""Reads interruption notices from a queue as soon as AWS announces them.

EC2 and Auto Scaling announce interruptions through EventBridge, where a rule
puts the events into an SQS queue. A message is deleted after its notice was
yielded, so a notice can be repeated but not lost. Other messages are deleted
too, or they would come back for ever; so a queue belongs to one group.
"""

from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from fleeting.types import Notice

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from fleeting_plugin_aws._clients import Clients

__all__ = ("read_event", "watch")

logger = logging.getLogger("fleeting")

# The limits of AWS: how long one request may wait for messages, and how many it returns.
LONGEST_WAIT = timedelta(seconds=20)
SHORTEST_WAIT = timedelta(seconds=1)
MESSAGES = 10

# A request that waits for messages must be answered before `read_timeout` ends.
WAIT_MARGIN = timedelta(seconds=5)

# EC2 interrupts a spot instance this long after the warning.
SPOT_NOTICE = timedelta(minutes=2)

TERMINATION = "EC2 Instance-terminate Lifecycle Action"

# Not `stopping`: the plugin itself stops instances, and they can be started again.
_ENDING = frozenset({"shutting-down", "terminated"})


def read_event(body: str, group: str) -> Notice | None:
    """Read a message of the queue.

    Args:
        body: the event, as EventBridge wrote it.
        group: the group's name; events that name another group are ignored.

    Returns:
        The notice; None if the event does not announce an interruption.

    Raises:
        ValueError: it is not an event; the error contains nothing of the message.
    """
    try:
        event: Any = json.loads(body)
        kind, detail = event["detail-type"], event["detail"]
        if kind == TERMINATION:
            if detail["AutoScalingGroupName"] != group:
                return None
            return Notice(str(detail["EC2InstanceId"]), "its group terminates it")
        return _of_instance(str(kind), str(detail["instance-id"]), event)
    except (KeyError, TypeError, ValueError):
        raise ValueError("not an EventBridge event about an instance") from None


def _of_instance(kind: str, id: str, event: Mapping[str, Any]) -> Notice | None:
    detail: Mapping[str, Any] = event["detail"]
    match kind:
        case "EC2 Spot Instance Interruption Warning":
            action = detail.get("instance-action", "terminate")
            deadline = _time(event["time"]) + SPOT_NOTICE
            return Notice(id, f"EC2 interrupts the spot instance ({action})", deadline)
        case "EC2 Interruptible Capacity Reservation Instance Interruption Warning":
            deadline = _time(detail["instance-termination-time"])
            return Notice(id, "EC2 ends the capacity reservation", deadline)
        case "EC2 Instance Rebalance Recommendation":
            return Notice(id, "EC2 may soon interrupt the spot instance (rebalance recommendation)")
        case "EC2 Instance State-change Notification" if detail.get("state") in _ENDING:
            return Notice(id, f"it is {detail['state']}")
        case _:
            return None


def _time(text: object) -> datetime:
    found = datetime.fromisoformat(str(text))
    if found.tzinfo is None:
        raise ValueError("a time without a UTC offset")
    return found


async def watch(
    clients: Clients, queue_url: str, group: str, read_timeout: timedelta
) -> AsyncGenerator[Notice]:
    """Yield interruption notices for ever.

    Raises:
        ProviderError: the queue could not be read.
    """
    wait = max(SHORTEST_WAIT, min(LONGEST_WAIT, read_timeout - WAIT_MARGIN))
    while True:
        answer = await clients.ask(
            "sqs",
            "ReceiveMessage",
            QueueUrl=queue_url,
            MaxNumberOfMessages=MESSAGES,
            WaitTimeSeconds=int(wait.total_seconds()),
        )
        messages = answer.get("Messages", ())
        for message in messages:
            try:
                notice = read_event(message["Body"], group)
            except ValueError as error:
                logger.warning(
                    "ignoring a message in the interruption queue of group %s: %s", group, error
                )
                continue
            if notice is not None:
                yield notice
        if messages:
            entries = [
                {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
                for number, message in enumerate(messages)
            ]
            await clients.change("sqs", "DeleteMessageBatch", QueueUrl=queue_url, Entries=entries)
