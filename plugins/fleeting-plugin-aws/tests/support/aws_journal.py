"""The calls of clients, in order, and how many were concurrent."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

__all__ = ("Call", "Journal")


@dataclass
class Call:
    """One request.

    Attributes:
        service: the service.
        operation: the operation.
        parameters: as the client wrote them.
        access_key: the id of the key that signed it.
        at_once: how many calls of the same operation were being answered when it arrived,
            itself included.
        writes_at_once: the same for calls that set a capacity; 0 for others.
        started: when it arrived, on the monotonic clock.
        ended: when it was answered.
        outcome: `ok`, the code of an error, `lost`, or None while it is being answered.
    """

    service: str
    operation: str
    parameters: dict[str, Any]
    access_key: str
    at_once: int = 1
    writes_at_once: int = 0
    started: float = field(default_factory=time.monotonic)
    ended: float | None = None
    outcome: str | None = None

    @property
    def instances(self) -> list[str]:
        """Return the ids of the instances that it names."""
        one = self.parameters.get("InstanceId")
        return [*([one] if one else ()), *self.parameters.get("InstanceIds", ())]

    @property
    def is_write(self) -> bool:
        """Return whether it sets the capacity of a group to an absolute number."""
        return self.operation in {"SetDesiredCapacity", "UpdateAutoScalingGroup"}


class Journal:
    """All calls since the last reset."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def open(self, call: Call) -> Call:
        """Record a call."""
        under_way = [other for other in self.calls if other.ended is None]
        call.at_once += sum(other.operation == call.operation for other in under_way)
        if call.is_write:
            call.writes_at_once = 1 + sum(other.is_write for other in under_way)
        self.calls.append(call)
        return call

    @staticmethod
    def close(call: Call, outcome: str) -> None:
        """Record the outcome of a call."""
        call.outcome = outcome
        call.ended = time.monotonic()
