"""Launches that failed, and why: what AWS writes into a group's history.

AWS tells nobody that an instance will not come; it adds an activity to the
group's history, in which a sentence for people says why. Those sentences are
old, and differ in their details only, so their classes can be told by a few
words. What cannot be classified is passed on as it is.
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

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ("Activity", "LaunchFault", "classify", "failures", "read")

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


class LaunchFault(ProviderError):
    """What the group launches cannot be launched; somebody has to mend its launch template."""

    retryable = False


@dataclass(frozen=True, slots=True)
class Activity:
    """One thing that AWS did, or tried to do, with a group.

    Attributes:
        id: of the activity.
        description: what it is; names the instance if there is one.
        status: AWS's word for how it stands.
        message: why it failed.
        zone: where; empty if AWS does not say.
        started: by AWS's clock.
        ended: when it ended, or else when it started.
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
        """Return the id of the instance that it is about; empty if it has none yet."""
        found = _INSTANCE.search(self.description)
        return found[1] if found else ""

    @property
    def is_failed_launch(self) -> bool:
        """Return whether it was to bring instances and did not."""
        return self.status == "Failed" and self.description.startswith("Launching")

    @property
    def is_launching(self) -> bool:
        """Return whether it may still bring an instance."""
        return self.status not in _ENDED and self.description.startswith("Launching")


def read(answer: Mapping[str, Any]) -> list[Activity]:
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


def failures(failed: Sequence[Activity], count: int, group: str) -> tuple[ProviderError, ...]:
    """Return an error for each instance that will not come.

    Args:
        failed: the launches that failed, one at least; one can be for several instances.
        count: how many instances that is in all.
        group: names the group in the sentences.
    """
    errors: Iterable[ProviderError] = (classify(one, group) for one in itertools.cycle(failed))
    return tuple(itertools.islice(errors, count))


def classify(activity: Activity, group: str) -> ProviderError:
    """Return the error that says why a launch failed."""
    words = (activity.message or activity.description).strip()
    words = words.removesuffix("Launching EC2 instance failed.").strip().rstrip(".")
    kind = _TYPE.search(words)
    of_type = f" of an {kind[1]}" if kind else ""
    where = f" in {activity.zone}" if activity.zone else ""
    said = f"the launch{of_type}{where} for {group} failed: {words}"
    for pattern, make, advice in _CLASSES:
        if pattern.search(words):
            return make(f"{said}; {advice}")
    return ProviderError(f"{said}; look at the group's activity history")


_CLASSES: tuple[tuple[re.Pattern[str], type[ProviderError], str], ...] = (
    (_THROTTLED, Throttled, "the account sends too many requests to EC2"),
    (_QUOTA, QuotaExceeded, "ask AWS for a higher quota of the account, or for less"),
    (_CAPACITY, OutOfCapacity, "more zones or instance types in the group make it likelier"),
    (_PERMISSION, PermissionDenied, "let the group's service-linked role do it"),
    (_TEMPLATE, LaunchFault, "mend the launch template of the group"),
)
