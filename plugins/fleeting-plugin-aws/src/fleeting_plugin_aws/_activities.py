"""Reads a group's activity history: which launches failed, and why.

AWS does not notify anyone of a failed launch. It adds an activity to the
group's history, with the reason as a human-readable sentence and no code. The
sentences have been stable for years, so patterns classify them. A sentence that
matches no pattern is passed on as it is.
"""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fleeting.errors import (
    OutOfCapacity,
    PermissionDenied,
    ProviderError,
    QuotaExceeded,
    Throttled,
)
from fleeting.types import CreationFailure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ("Activity", "LaunchTemplateError", "classify", "launch_failures", "read_activities")

_INSTANCE = re.compile(r"\b(i-[0-9a-f]+)\b")
_TYPE = re.compile(r"\b([a-z][a-z0-9-]*\d[a-z0-9-]*\.[a-z0-9-]+)\b")
_ENDED = frozenset({"Successful", "Failed", "Cancelled"})

_CAPACITY = re.compile(
    r"sufficient .*capacity|insufficient.*capacity|capacity-not-available|no spot capacity"
    r"|capacity-oversubscribed|not supported in your requested availability zone"
    r"|bid price|spot.*price.*(low|below)|could not launch .*instances.*unfulfillable",
    re.IGNORECASE,
)
_QUOTA = re.compile(
    r"limitexceeded|vcpu capacity than your current|more .* than your current .*limit"
    r"|instance\(s\) are already running|max spot instance count|quota|exceed.*limit",
    re.IGNORECASE,
)
_PERMISSION = re.compile(
    r"not authorized|unauthorizedoperation|accessdenied|not subscribed|optinrequired"
    r"|blocked|pendingverification|service-linked role|client\.internalerror",
    re.IGNORECASE,
)
_THROTTLED = re.compile(r"request limit exceeded|requestlimitexceeded|throttl", re.IGNORECASE)
_TEMPLATE = re.compile(
    r"does not exist|invalid|not supported|no longer supported|launch template|is not valid"
    r"|block device|placement groups? may not|malformed|missing parameter",
    re.IGNORECASE,
)


class LaunchTemplateError(ProviderError):
    """The group's launch template describes an instance that cannot be launched."""

    retryable = False


@dataclass(frozen=True, slots=True)
class Activity:
    """One activity of a group's history.

    Attributes:
        id: of the activity.
        description: what AWS does; names the instance if there is one.
        status: AWS's `StatusCode`.
        message: why it failed.
        zone: the availability zone; empty if AWS does not say.
        started: by AWS's clock.
        ended: by AWS's clock; while it is under way, the same as `started`.
    """

    id: str
    description: str
    status: str
    message: str
    zone: str
    started: datetime
    ended: datetime

    @property
    def instance(self) -> str:
        """Return the id of the instance; empty if there is none yet."""
        found = _INSTANCE.search(self.description)
        return found[1] if found else ""

    @property
    def is_failed_launch(self) -> bool:
        """Return whether it is a launch that failed."""
        return self.status == "Failed" and self.description.startswith("Launching")

    @property
    def is_launching(self) -> bool:
        """Return whether it is a launch that is still under way."""
        return self.status not in _ENDED and self.description.startswith("Launching")


def read_activities(answer: Mapping[str, Any]) -> list[Activity]:
    """Read an answer to `DescribeScalingActivities`, the newest first."""
    return [_activity(one) for one in answer.get("Activities", ())]


def _activity(one: Mapping[str, Any]) -> Activity:
    started: datetime = one.get("StartTime") or datetime.fromtimestamp(0, UTC)
    return Activity(
        id=str(one.get("ActivityId", "")),
        description=str(one.get("Description", "")),
        status=str(one.get("StatusCode", "")),
        message=str(one.get("StatusMessage", "")),
        zone=_zone(str(one.get("Details", ""))),
        started=started,
        ended=one.get("EndTime") or started,
    )


def _zone(details: str) -> str:
    try:
        found: Any = json.loads(details)["Availability Zone"]
    except (KeyError, TypeError, ValueError):
        return ""
    return str(found)


def launch_failures(
    failed: Sequence[Activity], count: int, group: str
) -> tuple[CreationFailure, ...]:
    """Return a failure for each instance that was given up.

    Args:
        failed: the failed launches, at least one. A launch can be for several instances.
        count: how many instances were given up.
        group: the group's name, for the messages.
    """
    causes = itertools.islice(itertools.cycle(failed), count)
    return tuple(
        CreationFailure(f"{one.id}/{number}", classify(one, group))
        for number, one in enumerate(causes, 1)
    )


def classify(activity: Activity, group: str) -> ProviderError:
    """Return the error that says why a launch failed."""
    reason = (activity.message or activity.description).strip()
    reason = reason.removesuffix("Launching EC2 instance failed.").strip().rstrip(".")
    instance_type = _TYPE.search(reason)
    of_type = f" of an {instance_type[1]}" if instance_type else ""
    where = f" in {activity.zone}" if activity.zone else ""
    message = f"the launch{of_type}{where} for {group} failed: {reason}"
    for pattern, make, advice in _CLASSES:
        if pattern.search(reason):
            return make(f"{message}; {advice}")
    return ProviderError(f"{message}; see the group's activity history")


_CLASSES: tuple[tuple[re.Pattern[str], type[ProviderError], str], ...] = (
    (_THROTTLED, Throttled, "the account sends too many requests to EC2"),
    (_QUOTA, QuotaExceeded, "ask AWS to raise the account's quota, or use fewer instances"),
    (_CAPACITY, OutOfCapacity, "allow more zones or instance types in the group"),
    (_PERMISSION, PermissionDenied, "grant this permission to the group's service-linked role"),
    (_TEMPLATE, LaunchTemplateError, "correct the launch template of the group"),
)
