"""How Google's words for a member become one of our states."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fleeting.errors import OutOfCapacity, PermissionDenied, ProviderError, QuotaExceeded
from fleeting.types import State
from fleeting_plugin_googlecloud._errors import RequestRefused, classify
from fleeting_plugin_googlecloud._members import (
    ManagedGroup,
    ManagedMember,
    creation_error,
    member_state,
    pending_count,
    read_member,
)
from fleeting_plugin_googlecloud._notices import find_notices

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
URL = "https://www.googleapis.com/compute/v1/projects/p/zones/europe-west1-c/instances/builders-a"


@pytest.mark.parametrize(
    ("action", "status", "target", "state"),
    [
        ("CREATING", "", "RUNNING", State.CREATING),
        ("CREATING_WITHOUT_RETRIES", "", "RUNNING", State.CREATING),
        ("CREATING", "STAGING", "RUNNING", State.CREATING),
        ("RECREATING", "RUNNING", "RUNNING", State.CREATING),
        ("RESTARTING", "STOPPING", "RUNNING", State.CREATING),
        ("VERIFYING", "RUNNING", "RUNNING", State.CREATING),
        ("NONE", "", "RUNNING", State.CREATING),
        ("NONE", "PENDING", "RUNNING", State.CREATING),
        ("NONE", "PROVISIONING", "RUNNING", State.CREATING),
        ("NONE", "STAGING", "RUNNING", State.CREATING),
        ("NONE", "REPAIRING", "RUNNING", State.CREATING),
        ("NONE", "RUNNING", "RUNNING", State.RUNNING),
        ("NONE", "RUNNING", "", State.RUNNING),
        ("REFRESHING", "RUNNING", "RUNNING", State.RUNNING),
        ("NONE", "PENDING_STOP", "RUNNING", State.RUNNING),
        ("DELETING", "RUNNING", "DELETED", State.DELETING),
        ("DELETING", "", "DELETED", State.DELETING),
        ("ABANDONING", "RUNNING", "ABANDONED", State.DELETING),
        ("NONE", "DEPROVISIONING", "RUNNING", State.DELETING),
        ("NONE", "STOPPING", "RUNNING", State.DELETING),
        ("NONE", "TERMINATED", "RUNNING", State.FAILED),
        ("NONE", "STOPPED", "RUNNING", State.FAILED),
        ("SUSPENDING", "RUNNING", "SUSPENDED", State.SUSPENDING),
        ("STOPPING", "RUNNING", "STOPPED", State.SUSPENDING),
        ("NONE", "SUSPENDING", "SUSPENDED", State.SUSPENDING),
        ("NONE", "SUSPENDED", "SUSPENDED", State.SUSPENDED),
        ("NONE", "TERMINATED", "STOPPED", State.SUSPENDED),
        ("NONE", "SUSPENDED", "RUNNING", State.SUSPENDED),
        ("RESUMING", "SUSPENDED", "RUNNING", State.RESUMING),
        ("STARTING", "TERMINATED", "RUNNING", State.RESUMING),
        ("POLISHING", "RUNNING", "RUNNING", State.UNKNOWN),
        ("NONE", "DREAMING", "RUNNING", State.UNKNOWN),
    ],
)
def test_states(action: str, status: str, target: str, state: State) -> None:
    """Each combination of Google's words has one state; words that Google adds are unknown."""
    member = ManagedMember("builders-a", "1", URL, action, status, target)
    found = member_state(member, "builders")
    assert (found.state, found.known) == (state, state is not State.UNKNOWN)


def test_interrupted_machine_says_so() -> None:
    """The reason for a machine that stopped by itself is an interruption."""
    for status in ("STOPPING", "TERMINATED"):
        member = ManagedMember("builders-a", "1", URL, "NONE", status, "RUNNING")
        assert "interrupted" in (member_state(member, "builders").reason or "")


def members(*words: tuple[str, str, str]) -> list[ManagedMember]:
    """Return members with these actions, statuses and targets."""
    return [ManagedMember(f"m{number}", "1", URL, *one) for number, one in enumerate(words)]


RUNNING = "NONE", "RUNNING", "RUNNING"
SUSPENDED = "NONE", "SUSPENDED", "SUSPENDED"


@pytest.mark.parametrize(
    ("target", "found", "pending"),
    [
        (2, members(RUNNING, RUNNING, SUSPENDED, SUSPENDED, SUSPENDED), 0),
        (3, members(RUNNING, RUNNING, SUSPENDED), 1),
        (2, members(RUNNING, RUNNING, ("DELETING", "STOPPING", "DELETED")), 0),
        (2, members(RUNNING, ("SUSPENDING", "RUNNING", "SUSPENDED")), 1),
        (2, members(RUNNING, ("RESUMING", "SUSPENDED", "RUNNING")), 0),
        (2, members(RUNNING, ("CREATING", "", "RUNNING")), 0),
        (1, members(RUNNING, RUNNING), 0),
        (2, [], 2),
    ],
)
def test_pending(target: int, found: list[ManagedMember], pending: int) -> None:
    """The target size counts neither suspended members nor those that are being deleted."""
    assert pending_count(ManagedGroup("1", "builders", target), found) == pending


@pytest.mark.parametrize(
    ("code", "text", "kind", "words"),
    [
        ("ZONE_RESOURCE_POOL_EXHAUSTED", "", OutOfCapacity, "another zone"),
        ("ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", "no c3", OutOfCapacity, "no c3"),
        ("RESOURCE_POOL_EXHAUSTED", "", OutOfCapacity, ""),
        ("INSUFFICIENT_CAPACITY", "", OutOfCapacity, ""),
        ("QUOTA_EXCEEDED", "Quota 'CPUS' exceeded", QuotaExceeded, "CPUS"),
        ("REGIONAL_QUOTA_EXCEEDED", "", QuotaExceeded, "quota"),
        ("IP_SPACE_EXHAUSTED_WITH_DETAILS", "", QuotaExceeded, "subnetwork"),
        ("PERMISSIONS_ERROR", "Required 'compute.images.useReadOnly'", PermissionDenied, "agent"),
        ("CONDITION_NOT_MET", "constraints/compute.vmExternalIpAccess", RequestRefused, "external"),
        ("CONDITION_NOT_MET", "constraints/compute.other", RequestRefused, "template"),
        ("UNSUPPORTED_OPERATION", "The reservation 'r' is full", OutOfCapacity, "reservation"),
    ],
)
def test_reasons_of_failed_creations(
    code: str, text: str, kind: type[ProviderError], words: str
) -> None:
    """Each of Google's codes has a class to which the scaler reacts, and says what to do."""
    error = classify(code, text, "instance builders-a")
    assert type(error) is kind
    assert words in str(error)


def creating(*errors: tuple[str, str], **more: Any) -> ManagedMember:
    """Return a member that is being created, with the errors of the last attempt."""
    return ManagedMember("builders-a", more.pop("number", ""), URL, "CREATING", errors=errors)


def test_last_known_error_decides() -> None:
    """Of several errors the last known one decides, and all are shown."""
    member = creating(("QUOTA_EXCEEDED", "cpus"), ("STRANGE", "who knows"))
    error = creation_error(member, "builders")
    assert type(error) is QuotaExceeded
    member = creating(("QUOTA_EXCEEDED", "cpus"), ("RESOURCE_POOL_EXHAUSTED", "no c3"))
    error = creation_error(member, "builders")
    assert type(error) is OutOfCapacity
    assert "cpus" in str(error)
    assert member_state(member, "builders").state is State.FAILED


def test_unknown_errors_and_existing_machines_are_waited_for() -> None:
    """A creation goes on with an error that is not known, and when the machine exists."""
    member = creating(("STRANGE", "who knows"))
    assert creation_error(member, "builders") is None
    assert member_state(member, "builders") == (State.CREATING, "STRANGE: who knows", True)
    assert creation_error(creating(("QUOTA_EXCEEDED", ""), number="1"), "builders") is None


def test_reading_a_member() -> None:
    """The zone comes from the URL, and the id from a text: it is too large for a number."""
    member = read_member(
        {
            "instance": URL,
            "name": "builders-a",
            "id": "18446744073709551615",
            "currentAction": "NONE",
            "instanceStatus": "PENDING_STOP",
            "targetStatus": "RUNNING",
            "instanceHealth": [{"detailedHealthState": "UNHEALTHY"}],
            "shutdownDetails": {
                "requestTimestamp": "2026-11-30T12:00:00.000-00:00",
                "maxDuration": {"seconds": "600"},
            },
        }
    )
    assert (member.zone, member.number) == ("europe-west1-c", "18446744073709551615")
    assert member.path == "zones/europe-west1-c/instances/builders-a"
    assert not member.healthy
    assert member.stops_at == NOW + timedelta(minutes=10)
    queued = read_member({"name": "builders-b", "currentAction": "CREATING"})
    assert (queued.zone, queued.number, queued.stops_at) == ("", "", None)


def test_notices() -> None:
    """A graceful shutdown, a stop and a planned end that is near are announced; others are not."""
    soon, late = NOW + timedelta(minutes=5), NOW + timedelta(hours=5)
    found = find_notices(
        [
            ManagedMember("graceful", "1", URL, "NONE", "PENDING_STOP", "RUNNING", stops_at=soon),
            ManagedMember("stopping", "2", URL, "NONE", "STOPPING", "RUNNING"),
            ManagedMember("soon", "3", URL, "NONE", "RUNNING", "RUNNING", ends_at=soon),
            ManagedMember("late", "4", URL, "NONE", "RUNNING", "RUNNING", ends_at=late),
            ManagedMember("ours", "5", URL, "DELETING", "STOPPING", "DELETED"),
            ManagedMember("plain", "6", URL, "NONE", "RUNNING", "RUNNING"),
            ManagedMember("suspended", "7", URL, "NONE", "SUSPENDING", "SUSPENDED"),
        ],
        NOW,
    )
    assert [(notice.id, notice.deadline) for _, notice in found] == [
        ("graceful", soon),
        ("stopping", NOW),
        ("soon", soon),
    ]
