"""What AWS's words about a group and its members mean.

A member's life is its `LifecycleState`. Which of ours that is, and whether the
member counts against the group's desired capacity, is the table below:

* What is being launched or repaired counts, and is being created.
* `InService` runs. What AWS calls unhealthy runs, too: it is the heartbeat that
  says so, and AWS is about to replace it.
* What is being terminated or detached does not count any more.
* `Standby` does not count, because we decrement the capacity when we let an
  instance enter it; whether it sleeps is for EC2 to say (see `_standby`).
* Members of a warm pool are no members: they are not ours to use or to end.

AWS keeps inventing states. One that is not in the table counts, because it has
an id, and is `UNKNOWN`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from fleeting.types import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

__all__ = ("Member", "Snapshot", "is_absent", "life", "snapshot")


class Life(NamedTuple):
    """What a `LifecycleState` means.

    Attributes:
        state: ours.
        counts: whether the member counts against the desired capacity.
    """

    state: State
    counts: bool


_CREATING = Life(State.CREATING, counts=True)
_GOING = Life(State.DELETING, counts=False)
_SLEEPING = Life(State.SUSPENDING, counts=False)

LIVES = {
    "Pending": _CREATING,
    "Pending:Wait": _CREATING,
    "Pending:Proceed": _CREATING,
    "Quarantined": _CREATING,
    "ReplacingRootVolume": _CREATING,
    "ReplacingRootVolume:Wait": _CREATING,
    "ReplacingRootVolume:Proceed": _CREATING,
    "RootVolumeReplaced": _CREATING,
    "InService": Life(State.RUNNING, counts=True),
    "Terminating": _GOING,
    "Terminating:Wait": _GOING,
    "Terminating:Proceed": _GOING,
    "Terminating:Retained": _GOING,
    "Terminated": _GOING,
    "Detaching": _GOING,
    "Detached": _GOING,
    "EnteringStandby": _SLEEPING,
    "Standby": _SLEEPING,
}
UNKNOWN = Life(State.UNKNOWN, counts=True)

# Those that are gone, though they may be listed for a moment.
ABSENT = frozenset({"Terminated", "Detached"})
WARM = "Warmed:"


@dataclass(frozen=True, slots=True)
class Member:
    """One instance as the group describes it.

    Attributes:
        id: of the instance.
        lifecycle: AWS's word for its state.
        healthy: whether AWS thinks that it works.
        protected: whether AWS may not choose it when it makes the group smaller.
        zone: where it is.
    """

    id: str
    lifecycle: str
    healthy: bool = True
    protected: bool = False
    zone: str = ""

    @property
    def life(self) -> Life:
        """Return what its state means."""
        return life(self.lifecycle)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A group at one moment.

    Attributes:
        minimum: its `MinSize`.
        maximum: its `MaxSize`.
        desired: how many instances AWS means it to have.
        members: those that are there, by id; without the warm pool.
        at: when that moment was, by the cloud's clock, which has whole seconds.
        is_being_deleted: whether it goes, and its members with it.
    """

    minimum: int
    maximum: int
    desired: int
    members: Mapping[str, Member]
    at: datetime
    is_being_deleted: bool = False

    @property
    def counted(self) -> int:
        """Return how many members count against the desired capacity."""
        return sum(member.life.counts for member in self.members.values())

    @property
    def pending(self) -> int:
        """Return how many instances AWS means to launch and has no id for."""
        return max(0, self.desired - self.counted)


def life(lifecycle: str) -> Life:
    """Return what a `LifecycleState` means."""
    return LIVES.get(lifecycle, UNKNOWN)


def is_absent(member: Member) -> bool:
    """Return whether a member has ceased to be one."""
    return member.lifecycle in ABSENT


def snapshot(group: Mapping[str, Any], at: datetime) -> Snapshot:
    """Read one group of an answer to `DescribeAutoScalingGroups`, given when that came."""
    return Snapshot(
        minimum=int(group["MinSize"]),
        maximum=int(group["MaxSize"]),
        desired=int(group["DesiredCapacity"]),
        members={member.id: member for member in _members(group.get("Instances", ()))},
        at=at,
        is_being_deleted=bool(group.get("Status")),
    )


def _members(instances: Iterable[Mapping[str, Any]]) -> Iterable[Member]:
    for one in instances:
        lifecycle = str(one.get("LifecycleState", ""))
        if lifecycle.startswith(WARM):
            continue
        yield Member(
            id=str(one["InstanceId"]),
            lifecycle=lifecycle,
            healthy=str(one.get("HealthStatus", "")).lower() != "unhealthy",
            protected=bool(one.get("ProtectedFromScaleIn", False)),
            zone=str(one.get("AvailabilityZone", "")),
        )
