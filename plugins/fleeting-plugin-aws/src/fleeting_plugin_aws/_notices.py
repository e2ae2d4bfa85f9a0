"""Hears of interruptions from a queue, as soon as AWS announces them.

EC2 and Auto Scaling announce what they are about to do through EventBridge; a
rule there puts the events into an SQS queue. Each message is read, told, and
only then deleted, so one that is told twice is possible and one that is lost is
not. What is no event of these is deleted too, or it would come back for ever;
so a queue belongs to one group.
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

# AWS lets one request wait so long for a message, and bring so many.
LONGEST_WAIT = timedelta(seconds=20)
SHORTEST_WAIT = timedelta(seconds=1)
MESSAGES = 10

# A request that waits for messages must be answered before its time is over.
WAIT_MARGIN = timedelta(seconds=5)

# How long after the warning EC2 takes a spot instance away.
SPOT_NOTICE = timedelta(minutes=2)

TERMINATION = "EC2 Instance-terminate Lifecycle Action"

# Not that it is stopped: that may be our own doing, and it can go on later.
_ENDING = frozenset({"shutting-down", "terminated"})


def read_event(body: str, group: str) -> Notice | None:
    """Read a message of the queue.

    Args:
        body: what EventBridge has put there.
        group: whose instances the notices are about, where an event names a group.

    Returns:
        What it announces; None if it is an event that announces nothing.

    Raises:
        ValueError: it is no event; the message holds nothing of it.
    """
    try:
        event: Any = json.loads(body)
        kind, detail = event["detail-type"], event["detail"]
        if kind == TERMINATION:
            if detail["AutoScalingGroupName"] != group:
                return None
            reason = "its group terminates it"
            return Notice(str(detail["EC2InstanceId"]), reason)
        return _of_instance(str(kind), str(detail["instance-id"]), event)
    except (KeyError, TypeError, ValueError):
        raise ValueError("it is no event of EventBridge about an instance") from None


def _of_instance(kind: str, id: str, event: Mapping[str, Any]) -> Notice | None:
    detail: Mapping[str, Any] = event["detail"]
    match kind:
        case "EC2 Spot Instance Interruption Warning":
            action = detail.get("instance-action", "terminate")
            deadline = _time(event["time"]) + SPOT_NOTICE
            return Notice(id, f"EC2 takes the spot instance back ({action})", deadline)
        case "EC2 Interruptible Capacity Reservation Instance Interruption Warning":
            deadline = _time(detail["instance-termination-time"])
            return Notice(id, "EC2 takes the capacity reservation back", deadline)
        case "EC2 Instance Rebalance Recommendation":
            return Notice(id, "EC2 may soon take the spot instance back (rebalance recommendation)")
        case "EC2 Instance State-change Notification" if detail.get("state") in _ENDING:
            return Notice(id, f"it is {detail['state']}")
        case _:
            return None


def _time(text: object) -> datetime:
    found = datetime.fromisoformat(str(text))
    if found.tzinfo is None:
        raise ValueError("a time without a zone")
    return found


async def watch(
    clients: Clients, queue_url: str, group: str, read_timeout: timedelta
) -> AsyncGenerator[Notice]:
    """Yield what is announced, for ever.

    Raises:
        ProviderError: the queue does not answer.
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
                logger.warning("a message in the queue of group %s is ignored: %s", group, error)
                continue
            if notice is not None:
                yield notice
        if messages:
            entries = [
                {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
                for number, message in enumerate(messages)
            ]
            await clients.change("sqs", "DeleteMessageBatch", QueueUrl=queue_url, Entries=entries)
