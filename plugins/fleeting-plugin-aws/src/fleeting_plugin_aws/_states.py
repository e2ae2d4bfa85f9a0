"""Reads AWS's description of a group and its members.

`LIFECYCLES` maps each `LifecycleState` of a member to one of our states, and
says whether the member counts against the group's desired capacity:

* Members that are being launched or repaired count, and are being created.
* `InService` members run, also those that AWS calls unhealthy: the heartbeat
  reports that, and AWS is about to replace them.
* Members that are being terminated or detached do not count any more.
* `Standby` members do not count, because the capacity is decremented when an
  instance enters standby. EC2 knows whether they are stopped (see `_standby`).
* Instances of a warm pool are not members: they are not ours to use or remove.

AWS keeps adding states. A member in a state that is not in the table counts,
because it has an id, and is `UNKNOWN`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from fleeting.types import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

__all__ = ("GroupMember", "GroupSnapshot", "Lifecycle", "is_absent", "lifecycle_of", "read_group")


class Lifecycle(NamedTuple):
    """The meaning of a `LifecycleState`.

    Attributes:
        state: our state.
        counts: whether the member counts against the desired capacity.
    """

    state: State
    counts: bool


_CREATING = Lifecycle(State.CREATING, counts=True)
_DELETING = Lifecycle(State.DELETING, counts=False)
_STANDBY = Lifecycle(State.SUSPENDING, counts=False)

LIFECYCLES = {
    "Pending": _CREATING,
    "Pending:Wait": _CREATING,
    "Pending:Proceed": _CREATING,
    "Quarantined": _CREATING,
    "ReplacingRootVolume": _CREATING,
    "ReplacingRootVolume:Wait": _CREATING,
    "ReplacingRootVolume:Proceed": _CREATING,
    "RootVolumeReplaced": _CREATING,
    "InService": Lifecycle(State.RUNNING, counts=True),
    "Terminating": _DELETING,
    "Terminating:Wait": _DELETING,
    "Terminating:Proceed": _DELETING,
    "Terminating:Retained": _DELETING,
    "Terminated": _DELETING,
    "Detaching": _DELETING,
    "Detached": _DELETING,
    "EnteringStandby": _STANDBY,
    "Standby": _STANDBY,
}
UNKNOWN = Lifecycle(State.UNKNOWN, counts=True)

# Members in these states are gone, although AWS may list them for a moment.
ABSENT = frozenset({"Terminated", "Detached"})
WARM = "Warmed:"


@dataclass(frozen=True, slots=True)
class GroupMember:
    """One instance as the group describes it.

    Attributes:
        id: of the instance.
        lifecycle_state: AWS's `LifecycleState`.
        healthy: whether AWS considers it healthy.
        protected: whether it is protected from scale-in, so that AWS does not choose it when
            the group shrinks.
    """

    id: str
    lifecycle_state: str
    healthy: bool = True
    protected: bool = False

    @property
    def state(self) -> State:
        """Return our state for it."""
        return lifecycle_of(self.lifecycle_state).state

    @property
    def counts(self) -> bool:
        """Return whether it counts against the desired capacity."""
        return lifecycle_of(self.lifecycle_state).counts


@dataclass(frozen=True, slots=True)
class GroupSnapshot:
    """A group at one moment.

    Attributes:
        minimum: its `MinSize`.
        maximum: its `MaxSize`.
        desired: its desired capacity.
        members: by id; without the warm pool.
        at: the moment, by AWS's clock, in whole seconds.
        is_being_deleted: whether AWS is deleting the group together with its members.
    """

    minimum: int
    maximum: int
    desired: int
    members: Mapping[str, GroupMember]
    at: datetime
    is_being_deleted: bool = False

    @property
    def counted(self) -> int:
        """Return how many members count against the desired capacity."""
        return sum(member.counts for member in self.members.values())

    @property
    def pending(self) -> int:
        """Return how many instances AWS still has to launch; they have no id yet."""
        return max(0, self.desired - self.counted)


def lifecycle_of(lifecycle_state: str) -> Lifecycle:
    """Return the meaning of a `LifecycleState`."""
    return LIFECYCLES.get(lifecycle_state, UNKNOWN)


def is_absent(member: GroupMember) -> bool:
    """Return whether a member has already left the group."""
    return member.lifecycle_state in ABSENT


def read_group(group: Mapping[str, Any], at: datetime) -> GroupSnapshot:
    """Read one group of an answer to `DescribeAutoScalingGroups`, which was given at `at`."""
    return GroupSnapshot(
        minimum=int(group["MinSize"]),
        maximum=int(group["MaxSize"]),
        desired=int(group["DesiredCapacity"]),
        members={member.id: member for member in _members(group.get("Instances", ()))},
        at=at,
        is_being_deleted=bool(group.get("Status")),
    )


def _members(instances: Iterable[Mapping[str, Any]]) -> Iterable[GroupMember]:
    for one in instances:
        lifecycle_state = str(one.get("LifecycleState", ""))
        if lifecycle_state.startswith(WARM):
            continue
        yield GroupMember(
            id=str(one["InstanceId"]),
            lifecycle_state=lifecycle_state,
            healthy=str(one.get("HealthStatus", "")).lower() != "unhealthy",
            protected=bool(one.get("ProtectedFromScaleIn", False)),
        )
