"""Why something was decided: kept, shown, logged and asserted on."""

from __future__ import annotations

import enum
from datetime import datetime

import msgspec

from taskscaler.core.model.demand import Demand

__all__ = ("PASSING", "Clamp", "Decision", "Rule")


class Rule(enum.Enum):
    """The rule that fired."""

    TASKS_WAIT = "tasks wait for slots"
    IDLE_CAPACITY = "the policy wants more idle capacity"
    IDLE = "idle for longer than the policy allows"
    LIMIT = "more than max_instances"
    GROUP_LIMIT = "more than the limit of its group"
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
    """What held growth back, for machines; `Decision.clamped_by` says it to people."""

    UNANSWERED = "unanswered"
    NOT_LISTED = "not listed"
    PAUSED = "paused"
    INTERVAL = "interval"
    OVERDUE = "overdue"
    MAX_INSTANCES = "max_instances"
    GROUP_LIMIT = "group limit"
    THROTTLED = "throttled"


# These come with every growth, and are over in a moment by themselves.
PASSING = (Clamp.UNANSWERED, Clamp.INTERVAL)


class Decision(msgspec.Struct, frozen=True):
    """One scaling decision with everything that led to it.

    Attributes:
        at: when.
        group: which group it concerns.
        rule: why anything was to be done at all.
        wanted: instances to add (positive) or to remove (negative) by the rule alone.
        decided: how many were in the end; what limits, pauses and the other groups left of it.
        clamped_by: what made `decided` differ from `wanted`; empty if nothing did.
        demand: the inputs.
        detail: for a removal, which instances and why.
        clamp: the kind of `clamped_by`; None if nothing did.
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
        """Return what it has in common with one that differs in its numbers only."""
        return self.group, self.rule, self.clamp
