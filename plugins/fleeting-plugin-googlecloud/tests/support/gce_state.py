"""The state of the fake cloud: groups, their members, machines and operations."""

from __future__ import annotations

import itertools
import secrets
import string
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = (
    "NEVER",
    "FakeGroup",
    "FakeMachine",
    "FakeMember",
    "FakeOperation",
    "Pace",
    "Refusal",
    "base64_text",
    "new_number",
    "now_text",
    "random_letters",
)

NEVER = float("inf")
ROOT = "https://www.googleapis.com/compute/v1"


class Refusal(Exception):
    """The fake cloud refuses a request."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        self.status = status
        self.reason = reason
        super().__init__(message)


@dataclass(frozen=True)
class Pace:
    """How long everything takes, in seconds. A step that takes for ever waits for `settle`.

    Attributes:
        operation: until an operation is done.
        create: from then on until a machine exists.
        boot: until it runs.
        delete: until a machine is gone.
        suspend: until it is suspended, or runs again.
    """

    operation: float = 0.0
    create: float = NEVER
    boot: float = NEVER
    delete: float = NEVER
    suspend: float = NEVER


_numbers = itertools.count(2**60 + 7)


def new_number() -> str:
    """Return a numeric id, which is too large for a JSON number as Google's are."""
    return str(next(_numbers))


def random_letters(count: int) -> str:
    """Return letters as in the names that Google makes."""
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(count))


def base64_text() -> str:
    """Return a new fingerprint."""
    return secrets.token_urlsafe(9)[:11] + "="


def now_text() -> str:
    """Return the time as Google writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass
class FakeMachine:
    """A virtual machine.

    Attributes:
        number: its numeric id.
        status: as Google calls it.
        metadata: its items.
        fingerprint: of the metadata.
        inner: its internal address.
        outer: its external address.
        serial: what its guest agent has printed on the fourth port.
        attributes: its guest attributes, by key.
        changes: replaces parts of its description.
    """

    name: str
    zone: str
    number: str = field(default_factory=new_number)
    status: str = "PROVISIONING"
    metadata: dict[str, str] = field(default_factory=dict[str, str])
    fingerprint: str = field(default_factory=base64_text)
    inner: str = "10.0.0.2"
    outer: str = "203.0.113.2"
    serial: str = ""
    attributes: dict[str, str] = field(default_factory=dict[str, str])
    changes: dict[str, Any] = field(default_factory=dict[str, Any])

    def describe(self, project: str) -> dict[str, Any]:
        """Return it as `instances.get` does."""
        running = self.status in {"RUNNING", "PENDING_STOP", "STOPPING"}
        access: dict[str, Any] = {"type": "ONE_TO_ONE_NAT", "kind": "compute#accessConfig"}
        interface: dict[str, Any] = {"name": "nic0", "accessConfigs": [access]}
        if running:
            interface["networkIP"] = self.inner
            access["natIP"] = self.outer
        return {
            "kind": "compute#instance",
            "id": self.number,
            "name": self.name,
            "zone": f"{ROOT}/projects/{project}/zones/{self.zone}",
            "status": self.status,
            "networkInterfaces": [interface],
            "disks": [{"boot": True, "architecture": "X86_64", "guestOsFeatures": []}],
            "metadata": {
                "kind": "compute#metadata",
                "fingerprint": self.fingerprint,
                "items": [{"key": key, "value": value} for key, value in self.metadata.items()],
            },
            **self.changes,
        }


@dataclass
class FakeMember:
    """A managed instance.

    Attributes:
        machine: None until it exists.
        errors: code and message of the errors of the last attempt.
        changes: replaces parts of its description.
    """

    name: str
    zone: str
    action: str = "CREATING"
    target: str = "RUNNING"
    machine: FakeMachine | None = None
    errors: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    changes: dict[str, Any] = field(default_factory=dict[str, Any])

    def describe(self, project: str) -> dict[str, Any]:
        """Return it as `listManagedInstances` does."""
        found: dict[str, Any] = {
            "instance": f"{ROOT}/projects/{project}/zones/{self.zone}/instances/{self.name}",
            "name": self.name,
            "currentAction": self.action,
            "targetStatus": self.target,
        }
        if self.machine is not None:
            found |= {"id": self.machine.number, "instanceStatus": self.machine.status}
        if self.errors:
            errors = [{"code": code, "message": text} for code, text in self.errors]
            found["lastAttempt"] = {"errors": {"errors": errors}}
        return found | self.changes


@dataclass
class FakeGroup:
    """A managed instance group.

    Attributes:
        zones: one for a zonal group, or several.
        region: None for a zonal group.
        settings: the parts of its description that the fake cloud does not make.
        target: its target size; `suspended` is the number of suspended members.
        log: its errors, as `listErrors` returns them.
        retries: whether it tries again to create a member.
    """

    name: str
    zones: tuple[str, ...]
    region: str | None
    settings: dict[str, Any]
    number: str = field(default_factory=new_number)
    target: int = 0
    suspended: int = 0
    members: dict[str, FakeMember] = field(default_factory=dict[str, FakeMember])
    log: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    retries: bool = True
    turn: int = 0

    @property
    def place(self) -> str:
        """Return its region or zone."""
        return self.region or self.zones[0]

    @property
    def scope(self) -> str:
        """Return the part of its URL that says where it is."""
        return f"regions/{self.region}" if self.region else f"zones/{self.zones[0]}"

    def describe(self, project: str) -> dict[str, Any]:
        """Return it as `instanceGroupManagers.get` does."""
        place = f"{ROOT}/projects/{project}/{self.scope}"
        found: dict[str, Any] = {
            "kind": "compute#instanceGroupManager",
            "id": self.number,
            "name": self.name,
            "baseInstanceName": self.name,
            "targetSize": self.target,
            "targetSuspendedSize": self.suspended,
            "instanceTemplate": f"{ROOT}/projects/{project}/global/instanceTemplates/template",
            "selfLink": f"{place}/instanceGroupManagers/{self.name}",
            "fingerprint": "bm9uZQ==",
            "listManagedInstancesResults": "PAGELESS",
            "status": {"isStable": all(one.action == "NONE" for one in self.members.values())},
            "instanceLifecyclePolicy": {"defaultActionOnFailure": "DO_NOTHING"},
            "updatePolicy": {"type": "OPPORTUNISTIC"},
        }
        if self.region:
            found["region"] = place
            found["updatePolicy"]["instanceRedistributionType"] = "NONE"
            urls = [f"{ROOT}/projects/{project}/zones/{zone}" for zone in self.zones]
            found["distributionPolicy"] = {
                "targetShape": "ANY",
                "zones": [{"zone": url} for url in urls],
            }
        else:
            found["zone"] = place
        return found | self.settings


@dataclass
class FakeOperation:
    """An operation: accepted, and done some time later.

    Attributes:
        apply: carries it out; returns its errors.
        polls: how often it was asked for.
    """

    name: str
    kind: str
    scope: str
    request_id: str
    apply: Callable[[], list[tuple[str, str]]]
    status: str = "PENDING"
    errors: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    polls: int = 0

    def describe(self, project: str) -> dict[str, Any]:
        """Return it as `zoneOperations.get` does."""
        place, _, name = self.scope.partition("/")
        found: dict[str, Any] = {
            "kind": "compute#operation",
            "id": "1",
            "name": self.name,
            "operationType": self.kind,
            "status": self.status,
            "progress": 100 if self.status == "DONE" else 0,
            place.removesuffix("s"): f"{ROOT}/projects/{project}/{place}/{name}",
            "insertTime": now_text(),
        }
        if self.request_id:
            found["clientOperationId"] = self.request_id
        if self.errors:
            errors = [{"code": code, "message": text} for code, text in self.errors]
            found["error"] = {"errors": errors}
        return found
