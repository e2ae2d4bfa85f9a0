"""An Auto Scaling group as AWS runs it: its members, desired capacity and activity history.

Everything here is synchronous and without I/O: `aws_autoscaling.py` asks it what
to do, does that with moto, and reports the result.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from aws_errors import validation_error
from aws_shortage import Shortage, first_shortage

__all__ = ("Activity", "Delays", "Group", "Launch", "Member", "Wait")

# The states of members that count against the desired capacity.
STARTING = "Pending"
SERVING = "InService"
ENDING = "Terminating"
STANDBY = "Standby"
UNCOUNTED = ("Terminat", "Detach", "Standby", "EnteringStandby", "Warmed")
ACTIVITY_NUMBERS = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Delays:
    """The duration of transitions.

    A number counts the describes of the group (for `power`: of the instances)
    that still show the old state; a `timedelta` is real time; None means: until
    `settle` is called.

    Attributes:
        listing: from a larger desired capacity until the new members are listed.
        launch: from being listed until a member is in service.
        terminate: how long a member that is being terminated is still listed.
        power: how long stopping and starting an instance take.
    """

    listing: int | timedelta | None = 0
    launch: int | timedelta | None = 1
    terminate: int | timedelta | None = 1
    power: int | timedelta | None = 1


class Wait:
    """A transition that ends after a delay."""

    def __init__(self, delay: int | timedelta | None, now: float) -> None:
        self._looks = delay if isinstance(delay, int) else None
        self._due = now + delay.total_seconds() if isinstance(delay, timedelta) else None

    def look(self, now: float) -> bool:
        """Count one more describe, and return whether the transition has ended."""
        if self._looks is not None:
            self._looks -= 1
            return self._looks < 0
        return self._due is not None and now >= self._due

    def settle(self) -> None:
        """End at the next describe."""
        self._looks = 0


@dataclass
class Member:
    """An instance of the group.

    Attributes:
        id: its name.
        zone: its availability zone.
        type: its instance type.
        state: its LifecycleState.
        is_spot: whether it may be interrupted.
        health: its HealthStatus.
        looks_ill: the number of describes that found it unhealthy.
        is_ended: whether its termination has begun.
        facts: moto's description of it as a member.
        wait: the transition that ends its state, if any.
    """

    id: str
    zone: str
    type: str
    is_spot: bool
    state: str = STARTING
    health: str = "Healthy"
    looks_ill: int = 0
    is_ended: bool = False
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    wait: Wait | None = None

    @property
    def is_counted(self) -> bool:
        """Return whether it counts against the desired capacity."""
        return not self.state.startswith(UNCOUNTED)


@dataclass(frozen=True, slots=True)
class Launch:
    """An instance to be launched."""

    zone: str
    type: str
    is_spot: bool


@dataclass
class Activity:
    """An entry of the group's history."""

    id: str
    description: str
    cause: str
    started: datetime
    status: str
    message: str | None = None
    ended: datetime | None = None
    details: str = "{}"

    def end(self, status: str = "Successful") -> None:
        """Record the result."""
        self.status = status
        self.ended = datetime.now(UTC)


@dataclass
class Group:
    """The behaviour of a group in which moto differs from AWS.

    Attributes:
        name: its name.
        zones: its availability zones.
        types: its instance types, the preferred one first.
        minimum: its MinSize.
        maximum: its MaxSize.
        desired: its DesiredCapacity.
        delays: the duration of transitions.
        is_spot: whether its instances are spot instances.
        is_mixed: whether it has a MixedInstancesPolicy, which changes its error messages.
        suspended: the suspended processes.
        members: by their ids.
        activities: the newest first.
        is_being_deleted: whether it is deleted as soon as its last member is gone.
    """

    name: str
    zones: tuple[str, ...]
    types: tuple[str, ...]
    minimum: int
    maximum: int
    desired: int
    delays: Delays
    is_spot: bool = False
    is_mixed: bool = False
    suspended: set[str] = field(default_factory=set[str])
    members: dict[str, Member] = field(default_factory=dict[str, Member])
    activities: list[Activity] = field(default_factory=list[Activity])
    is_being_deleted: bool = False
    _listing: Wait | None = None
    _complained: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])

    @property
    def counted(self) -> list[Member]:
        """Return the members that count against the desired capacity."""
        return [member for member in self.members.values() if member.is_counted]

    def want(self, desired: int, now: float) -> None:
        """Set a desired capacity that was validated."""
        if desired > self.desired and self.delays.listing != 0:
            self._listing = Wait(self.delays.listing, now)
        self.desired = desired
        self._complained.clear()

    def check_desired(self, desired: int) -> None:
        """Refuse a desired capacity that is out of bounds."""
        if self.is_being_deleted:
            raise validation_error(f"AutoScalingGroup {self.name} is being deleted")
        if desired > self.maximum:
            raise validation_error(
                f"New SetDesiredCapacity value {desired} is above max value {self.maximum}"
                " for the AutoScalingGroup."
            )
        if desired < self.minimum:
            raise validation_error(
                f"New SetDesiredCapacity value {desired} is below min value {self.minimum}"
                " for the AutoScalingGroup."
            )

    def check_decrement(self) -> None:
        """Refuse to terminate a member without replacement at the minimum."""
        if self.desired <= self.minimum:
            raise validation_error(
                f"Currently, desiredSize equals minSize ({self.minimum}). Terminating instance"
                " without replacement will violate group's min size constraint. Either set"
                " shouldDecrementDesiredCapacity flag to false or lower group's min size."
            )

    def found_ill(self) -> list[Member]:
        """Return the members to replace: those that a describe has already shown as unhealthy."""
        return [member for member in self.counted if member.looks_ill > 1]

    def look(self, now: float) -> None:
        """Advance all transitions by one describe."""
        if self._listing is not None and self._listing.look(now):
            self._listing = None
        for member in list(self.members.values()):
            member.looks_ill += member.health == "Unhealthy"
            if member.wait is None or not member.wait.look(now):
                continue
            member.wait = None
            if member.state.startswith(ENDING):
                del self.members[member.id]
                self._end_activity(f"Terminating EC2 instance: {member.id}")
            else:
                member.state = SERVING
                self._end_activity(f"Launching a new EC2 instance: {member.id}")

    def settle(self) -> None:
        """End all transitions at the next describe."""
        for member in self.members.values():
            if member.state.startswith((STARTING, ENDING)):
                member.wait = member.wait or Wait(0, 0)
                member.wait.settle()
        self._listing = None
        self._complained.clear()

    @property
    def is_delayed(self) -> bool:
        """Return whether new members are not listed yet."""
        return self._listing is not None

    def launches(
        self, running: Counter[tuple[str, str]], shortages: list[Shortage]
    ) -> list[Launch]:
        """Return the instances to launch, and record a failure for each impossible launch.

        Args:
            running: how many instances of all groups there are by zone and type.
            shortages: why some cannot be launched.
        """
        here = Counter(member.zone for member in self.counted)
        found: list[Launch] = []
        running = Counter(running)
        for _ in range(self.desired - len(self.counted)):
            for instance_type, zone in itertools.product(
                self.types, sorted(self.zones, key=lambda zone: (here[zone], zone))
            ):
                shortage = first_shortage(zone, instance_type, running, shortages)
                if shortage is None:
                    found.append(Launch(zone, instance_type, self.is_spot))
                    here[zone] += 1
                    running[zone, instance_type] += 1
                    break
                self._complain(shortage, zone, instance_type)
            else:
                break
        return found

    def victims(self) -> list[Member]:
        """Return the surplus members to terminate; protected ones are never chosen."""
        surplus = len(self.counted) - self.desired
        candidates = [m for m in self.counted if not m.facts.get("ProtectedFromScaleIn")]
        chosen: list[Member] = []
        while candidates and len(chosen) < surplus:
            zones = Counter(member.zone for member in self.counted if member not in chosen)
            victim = max(candidates, key=lambda member: zones[member.zone])
            candidates.remove(victim)
            chosen.append(victim)
        return chosen

    def add(self, id: str, launch: Launch, now: float) -> Member:
        """Add an instance that was launched."""
        member = Member(id, launch.zone, launch.type, launch.is_spot)
        member.wait = Wait(self.delays.launch, now)
        self.members[id] = member
        self.note(f"Launching a new EC2 instance: {id}", "PreInService", zone=launch.zone)
        return member

    def end(self, member: Member, cause: str, now: float) -> Activity:
        """Begin to terminate a member."""
        member.state = ENDING
        member.is_ended = True
        member.wait = Wait(self.delays.terminate, now)
        description = f"Terminating EC2 instance: {member.id}"
        return self.note(description, "InProgress", cause=cause, zone=member.zone)

    def note(
        self,
        description: str,
        status: str,
        *,
        cause: str | None = None,
        message: str | None = None,
        zone: str = "",
    ) -> Activity:
        """Add an entry to the history."""
        now = datetime.now(UTC)
        default = "an instance was started in response to a difference between desired and actual"
        activity = Activity(
            f"{next(ACTIVITY_NUMBERS):08x}-0000-4000-8000-000000000000",
            description,
            f"At {now:%Y-%m-%dT%H:%M:%SZ} {cause or f'{default} capacity.'}",
            now,
            status,
            message,
            now if status in {"Failed", "Successful", "Cancelled"} else None,
            f'{{"Availability Zone":"{zone}"}}' if zone else "{}",
        )
        self.activities.insert(0, activity)
        return activity

    def activity_of(self, id: str) -> Activity | None:
        """Return the newest entry about an instance."""
        return next((a for a in self.activities if a.description.endswith(id)), None)

    def _end_activity(self, description: str) -> None:
        for activity in self.activities:
            if activity.description == description and activity.ended is None:
                activity.end()

    def _complain(self, shortage: Shortage, zone: str, instance_type: str) -> None:
        if (shortage.code, zone) in self._complained:
            return
        self._complained.add((shortage.code, zone))
        others = ", ".join(other for other in self.zones if other != zone)
        text = shortage.words(zone, instance_type, others)
        if self.is_mixed:
            kind = "Spot" if self.is_spot else "On-Demand"
            text = f"Could not launch {kind} Instances. {shortage.code} - {text}"
        message = f"{text} Launching EC2 instance failed."
        self.note(
            f"Launching a new EC2 instance.  Status Reason: {message}",
            "Failed",
            message=message,
            zone=zone,
        )
