"""Lifecycle hooks, scaling policies and scheduled actions, which work on a group from outside.

The fake cloud keeps and describes them. Hooks hold instances for their time; the others
never act by themselves.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, NamedTuple

from aws_engine import NotModelled, paged
from aws_errors import ACCOUNT

__all__ = ("Influences",)

DEFAULT_PAGE = 50
ARN = f"arn:aws:autoscaling:eu-central-1:{ACCOUNT}"


class _Kind(NamedTuple):
    """One kind.

    Attributes:
        name: the parameter that names one of them.
        key: of the list in an answer.
        defaults: what AWS adds.
    """

    name: str
    key: str
    defaults: dict[str, Any]


HOOK = _Kind(
    "LifecycleHookName",
    "LifecycleHooks",
    {"HeartbeatTimeout": 3600, "GlobalTimeout": 172800, "DefaultResult": "ABANDON"},
)
POLICY = _Kind(
    "PolicyName",
    "ScalingPolicies",
    {"PolicyType": "SimpleScaling", "Enabled": True, "Alarms": [], "PolicyARN": f"{ARN}:policy"},
)
ACTION = _Kind(
    "ScheduledActionName",
    "ScheduledUpdateGroupActions",
    {"ScheduledActionARN": f"{ARN}:scheduledUpdateGroupAction"},
)
PUT = {
    "PutLifecycleHook": HOOK,
    "PutScalingPolicy": POLICY,
    "PutScheduledUpdateGroupAction": ACTION,
}
DESCRIBE = {
    "DescribeLifecycleHooks": HOOK,
    "DescribePolicies": POLICY,
    "DescribeScheduledActions": ACTION,
}


class Influences:
    """Answers the calls about them; the caller has checked that the group exists."""

    OPERATIONS = frozenset({*PUT, *DESCRIBE})

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}

    def hold_of(self, group: str, transition: str) -> timedelta | None:
        """Return for how long the hooks of a transition hold an instance; None without any."""
        hooks = self._kept.get((group, HOOK.key), {}).values()
        times = [
            timedelta(seconds=hook["HeartbeatTimeout"])
            for hook in hooks
            if hook["LifecycleTransition"] == f"autoscaling:EC2_INSTANCE_{transition}"
        ]
        return max(times, default=None)

    def answer(
        self, operation: str, parameters: dict[str, Any], page_size: int | None
    ) -> dict[str, Any]:
        """Carry out an operation.

        Raises:
            NotModelled: it has unusual parameters.
        """
        group = str(parameters["AutoScalingGroupName"])
        if kind := PUT.get(operation):
            kept = self._kept.setdefault((group, kind.key), {})
            kept[parameters[kind.name]] = kind.defaults | parameters
            return {"PolicyARN": kind.defaults["PolicyARN"]} if kind is POLICY else {}
        kind = DESCRIBE[operation]
        if others := set(parameters) - {"AutoScalingGroupName", "MaxRecords", "NextToken"}:
            raise NotModelled(f"not modelled: the parameters {sorted(others)} of {operation}")
        items = list(self._kept.get((group, kind.key), {}).values())
        if kind is HOOK:  # AWS describes all of them at once.
            return {kind.key: items}
        size = int(parameters.get("MaxRecords", DEFAULT_PAGE))
        page, token = paged(items, page_size, size, parameters.get("NextToken"))
        return {kind.key: page} | ({} if token is None else {"NextToken": token})
