"""Why something was decided: stored, shown, logged, and asserted on in tests."""

from __future__ import annotations

import enum
from datetime import datetime

import msgspec

from taskscaler.core.model.demand import Demand

__all__ = ("PASSING", "Clamp", "Decision", "Rule")


class Rule(enum.Enum):
    """The rule that fired."""

    TASKS_WAIT = "tasks wait for slots"
    ENDANGERED = "tasks run on instances that the cloud will soon take away"
    IDLE_CAPACITY = "the policy wants more idle capacity"
    RETURN = "a preferred group is tried again"
    IDLE = "idle for longer than the policy allows"
    LIMIT = "more than max_instances"
    GROUP_LIMIT = "more than the limit of its group"
    PREFERENCE = "a preferred group serves in its place"
    USED_UP = "the use count is reached"
    AGE = "older than max_instance_age"
    UNHEALTHY = "it fails its health checks"
    INTERRUPTED = "the cloud announced that it takes it away"
    EXPIRED = "its suspended tasks were not resumed in time"
    FAILED = "failed"
    LOST = "taken away by the cloud"
    UNKNOWN = "not ours, or not any more"
    SHUTDOWN = "the scaler shuts down"


class Clamp(enum.Enum):
    """The kinds of limits that hold a decision back; `Decision.clamped_by` is human-readable."""

    UNANSWERED = "unanswered"
    NOT_LISTED = "not listed"
    PAUSED = "paused"
    INTERVAL = "interval"
    OVERDUE = "overdue"
    MAX_INSTANCES = "max_instances"
    GROUP_LIMIT = "group limit"
    THROTTLED = "throttled"
    TRIAL = "trial"
    FAIL_TOGETHER = "fail together"


# These occur with every growth and end after a moment by themselves, so they are not reported.
PASSING = (Clamp.UNANSWERED, Clamp.INTERVAL)


class Decision(msgspec.Struct, frozen=True):
    """One scaling decision with everything that led to it.

    Attributes:
        at: when it was taken.
        group: the id of the group.
        rule: why anything had to be done.
        wanted: instances to add (positive) or to remove (negative) by the rule alone.
        decided: the rest of `wanted` after limits, pauses and other groups.
        clamped_by: why `decided` is not `wanted`; empty if they are equal.
        demand: the inputs.
        detail: for a removal, which instances and why.
        clamp: the kind of `clamped_by`; None if that is empty.
    """

    at: datetime
    group: str
    rule: Rule
    wanted: int
    decided: int
    clamped_by: str
    demand: Demand
    detail: str = ""
    clamp: Clamp | None = None

    @property
    def kind(self) -> tuple[str, Rule, Clamp | None]:
        """Return the parts that stay the same while only the numbers change."""
        return self.group, self.rule, self.clamp
