"""The policy that should be in force: the books read the drawn periods by themselves."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from taskscaler.core import Policy, Settings

__all__ = ("idle_target", "policy_at")


def policy_at(settings: Settings, at: datetime) -> Policy:
    """Return the policy in force: the last entry of the schedule that holds, or the default.

    Args:
        settings: with a schedule whose periods have ranges of minutes, hours and weekdays.
        at: an aware time.
    """
    policy = settings.policy
    for entry in settings.schedule:
        local = at.astimezone(entry.zone)
        if any(_holds(period.expression, local) for period in entry.periods):
            policy = entry.policy
    return policy


def _holds(expression: str, local: datetime) -> bool:
    minutes, hours, _, _, days = expression.split()
    values = (local.minute, local.hour, local.isoweekday())
    ranges = (field.split("-") for field in (minutes, hours, days))
    return all(
        int(first) <= value <= int(last)
        for value, (first, last) in zip(values, ranges, strict=True)
    )


def idle_target(policy: Policy, tasks: int) -> int:
    """Return how many slots should be idle while so many tasks run."""
    factor = math.ceil(policy.scale_factor * tasks - 1e-6)
    if policy.scale_factor_limit > 0:
        factor = min(policy.scale_factor_limit, factor)
    return max(policy.idle_count, factor)
