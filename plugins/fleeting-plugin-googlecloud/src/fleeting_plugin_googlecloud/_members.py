"""Reads Google's description of a group and its members.

`member_state` maps what the group does with a member (`currentAction`), what the machine does
(`instanceStatus`) and how it shall end (`targetStatus`) to one of our states:

* What the group is about to do counts first: it creates, restarts, suspends or deletes.
* A member that cannot be created, for lack of capacity, quota or a permission, has failed. The
  group would try for ever; `reconcile` cancels it.
* A machine that stops although it should run was interrupted, by Google or by its own user. While
  it stops it is being deleted; when it has stopped it has failed and is removed, because it never
  runs again but costs its disks.
* In `PENDING_STOP` a machine still runs, and a notice says until when.

The SDK lacks some of Google's words, and Google adds new ones. All of them are compared as texts.
A member in a state that is not known is `UNKNOWN`.

A member that is not to be suspended, stopped or deleted counts against the group's target size.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from fleeting.types import State
from fleeting_plugin_googlecloud._errors import classify

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fleeting.errors import ProviderError

__all__ = (
    "ManagedGroup",
    "ManagedMember",
    "MemberState",
    "creation_error",
    "member_state",
    "pending_count",
    "read_managed_group",
    "read_member",
    "read_time",
)

_ENDING_ACTIONS = frozenset({"DELETING", "ABANDONING"})
_ENDING_TARGETS = frozenset({"DELETED", "ABANDONED"})
_ASLEEP = frozenset({"SUSPENDED", "STOPPED"})
_RESTING = frozenset({"SUSPENDED", "STOPPED", "TERMINATED"})
# With these the group does nothing that the state of a member depends on.
_IDLE = frozenset({"NONE", "REFRESHING"})


@dataclass(frozen=True, slots=True)
class ManagedMember:
    """One instance as the group describes it.

    Attributes:
        name: of the instance.
        number: Google's numeric id, which another machine of the same name does not have; empty
            until the machine exists.
        url: of the instance; empty while it is queued.
        action: what the group does with it.
        status: of the machine; empty until it exists.
        target: the status that it shall have in the end; empty if Google does not tell.
        errors: codes and messages of the last attempt to create or delete it.
        healthy: whether its health checks, if there are any, do not fail.
        ends_at: when Google ends the machine; None if that is not planned.
        stops_at: until when it may shut down gracefully; None unless it does so now.
    """

    name: str
    number: str = ""
    url: str = ""
    action: str = "NONE"
    status: str = ""
    target: str = ""
    errors: tuple[tuple[str, str], ...] = ()
    healthy: bool = True
    ends_at: datetime | None = None
    stops_at: datetime | None = None

    @property
    def zone(self) -> str:
        """Return the zone of the instance; empty while it is queued."""
        parts = self.url.split("/")
        return parts[-3] if len(parts) > 3 and parts[-4] == "zones" else ""  # noqa: PLR2004 - the form of URLs

    @property
    def path(self) -> str:
        """Return how the group's methods name it: its zone and its name."""
        return f"zones/{self.zone}/instances/{self.name}"

    @property
    def is_ending(self) -> bool:
        """Return whether it is being removed from the group."""
        return (
            self.action in _ENDING_ACTIONS
            or self.target in _ENDING_TARGETS
            or self.status == "DEPROVISIONING"
        )

    @property
    def counts(self) -> bool:
        """Return whether it counts against the group's target size."""
        asleep = self.target in _ASLEEP or self.action in {"SUSPENDING", "STOPPING"}
        return not self.is_ending and not asleep


class ManagedGroup(NamedTuple):
    """A group at one moment.

    Attributes:
        number: Google's numeric id, which another group of the same name does not have.
        base_name: the beginning of the names of its instances.
        target: how many running instances it shall have.
    """

    number: str
    base_name: str
    target: int


class MemberState(NamedTuple):
    """Our state for a member.

    Attributes:
        state: our state.
        reason: why, if that is worth telling.
        known: whether this version knows the words that Google used.
    """

    state: State
    reason: str | None = None
    known: bool = True


_CREATING = MemberState(State.CREATING)
_STOPPED = MemberState(
    State.FAILED, "it was interrupted: Google, or the machine itself, has stopped it"
)
# The states that follow from what the group does with a member.
_ACTIONS = {
    "CREATING": _CREATING,
    "CREATING_WITHOUT_RETRIES": _CREATING,
    "RECREATING": _CREATING,
    "RESTARTING": _CREATING,
    "VERIFYING": _CREATING,
    "STARTING": MemberState(State.RESUMING),
    "RESUMING": MemberState(State.RESUMING),
    "STOPPING": MemberState(State.SUSPENDING),
    "SUSPENDING": MemberState(State.SUSPENDING),
}
# The states of a machine that shall run, and that the group does nothing with.
_STATUSES = {
    "": _CREATING,
    "PENDING": _CREATING,
    "PROVISIONING": _CREATING,
    "STAGING": _CREATING,
    "REPAIRING": _CREATING,
    "RUNNING": MemberState(State.RUNNING),
    "PENDING_STOP": MemberState(State.RUNNING),
    "STOPPING": MemberState(
        State.DELETING, "it was interrupted: Google, or the machine itself, is stopping it"
    ),
    "STOPPED": _STOPPED,
    "TERMINATED": _STOPPED,
    "SUSPENDING": MemberState(State.SUSPENDING, "another client suspends it"),
    "SUSPENDED": MemberState(State.SUSPENDED, "another client has suspended it"),
}


def read_managed_group(group: Mapping[str, Any]) -> ManagedGroup:
    """Read a group as described by `instanceGroupManagers.get`."""
    return ManagedGroup(
        number=str(group.get("id", "")),
        base_name=str(group.get("baseInstanceName") or group.get("name", "")),
        target=int(group.get("targetSize", 0)),
    )


def read_member(member: Mapping[str, Any]) -> ManagedMember:
    """Read one member of an answer to `listManagedInstances`."""
    url = str(member.get("instance", ""))
    errors = member.get("lastAttempt", {}).get("errors", {}).get("errors", ())
    health = member.get("instanceHealth", ())
    return ManagedMember(
        name=str(member.get("name") or url.rpartition("/")[2]),
        number=str(member.get("id", "")),
        url=url,
        action=str(member.get("currentAction") or "NONE"),
        status=str(member.get("instanceStatus", "")),
        target=str(member.get("targetStatus", "")),
        errors=tuple((str(one.get("code", "")), str(one.get("message", ""))) for one in errors),
        healthy=all(one.get("detailedHealthState") != "UNHEALTHY" for one in health),
        ends_at=read_time(member.get("scheduling", {}).get("terminationTimestamp")),
        stops_at=_stops_at(member),
    )


def _stops_at(member: Mapping[str, Any]) -> datetime | None:
    if member.get("instanceStatus") != "PENDING_STOP":
        return None
    details = member.get("shutdownDetails", {})
    begun = read_time(details.get("requestTimestamp"))
    if begun is None:
        return None
    return begun + timedelta(seconds=float(details.get("maxDuration", {}).get("seconds", 0)))


def read_time(text: object) -> datetime | None:
    """Read a time in Google's form; None if there is none that can be read."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def pending_count(group: ManagedGroup, members: Iterable[ManagedMember]) -> int:
    """Return how many instances the group will create that are not members yet."""
    return max(0, group.target - sum(member.counts for member in members))


def creation_error(member: ManagedMember, where: str) -> ProviderError | None:
    """Return why a member cannot be created; None if it may still come.

    Of several errors the last known one decides, and all of them are told.

    Args:
        member: of the group.
        where: names the group in messages.
    """
    if member.number or member.action not in {"CREATING", "RECREATING"}:
        return None
    others = "".join(f" (before: {code}: {text})" for code, text in member.errors[:-1])
    for code, text in reversed(member.errors):
        what = f"instance {member.name} of group {where} cannot be created"
        error = classify(code, f"{text}{others}", what)
        if error is not None:
            return error
    return None


def member_state(member: ManagedMember, where: str) -> MemberState:
    """Return our state for a member.

    Args:
        member: of the group.
        where: names the group in messages.
    """
    if member.is_ending:
        return MemberState(State.DELETING)
    error = creation_error(member, where)
    if error is not None:
        return MemberState(State.FAILED, str(error))
    if member.action not in _IDLE:
        found = _ACTIONS.get(member.action)
    elif member.target in _ASLEEP:
        resting = member.status in _RESTING
        found = MemberState(State.SUSPENDED if resting else State.SUSPENDING)
    else:
        found = _STATUSES.get(member.status)
    if found is None:
        what = f"Google calls it {member.status or 'without a status'} ({member.action})"
        return MemberState(State.UNKNOWN, what, known=False)
    if found.state is State.CREATING and member.errors:
        return MemberState(State.CREATING, "; ".join(": ".join(one) for one in member.errors))
    return found
