"""EC2's reasons for not launching an instance, in its own words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import Counter

__all__ = ("Shortage", "first_shortage")

NO_ROOM = (
    "We currently do not have sufficient {type} capacity in the Availability Zone you requested"
    " ({zone}). Our system will be working on provisioning additional capacity. You can currently"
    " get {type} capacity by not specifying an Availability Zone in your request or choosing"
    " {others}."
)
TOO_MANY_CPUS = (
    "You have requested more vCPU capacity than your current vCPU limit of 32 allows for the"
    " instance bucket that the specified instance type belongs to. Please visit"
    " http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit."
)
MESSAGES = {
    "InsufficientInstanceCapacity": NO_ROOM,
    "InstanceLimitExceeded": (
        "You have requested more instances (21) than your current instance limit of 20 allows"
        " for the specified instance type. Please visit"
        " http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit."
    ),
    "InvalidAMIID.NotFound": "The image id '[ami-0fedcba9876543210]' does not exist",
    "MaxSpotInstanceCountExceeded": "Max spot instance count exceeded",
    "UnfulfillableCapacity": (
        "Unable to fulfill capacity due to your request configuration. Please adjust your"
        " request and try again."
    ),
    "VcpuLimitExceeded": TOO_MANY_CPUS,
}


@dataclass(frozen=True, slots=True)
class Shortage:
    """A reason why instances are not launched.

    Attributes:
        room: the maximum of instances.
        zone: the zone; None means all.
        type: the instance type; None means all.
        code: the code of EC2's error.
    """

    room: int
    zone: str | None
    type: str | None
    code: str

    def covers(self, zone: str, instance_type: str) -> bool:
        """Return whether it applies to such instances."""
        return self.zone in {None, zone} and self.type in {None, instance_type}

    def words(self, zone: str, instance_type: str, others: str) -> str:
        """Return EC2's message for an instance, which names the other zones."""
        return MESSAGES[self.code].format(type=instance_type, zone=zone, others=others)


def first_shortage(
    zone: str,
    instance_type: str,
    running: Counter[tuple[str, str]],
    shortages: list[Shortage],
) -> Shortage | None:
    """Return the reason why no instance can be launched, if there is one.

    Args:
        zone: of the instance.
        instance_type: of the instance.
        running: how many instances there are by zone and type.
        shortages: all reasons.
    """
    for shortage in shortages:
        used = sum(count for key, count in running.items() if shortage.covers(*key))
        if shortage.covers(zone, instance_type) and used >= shortage.room:
            return shortage
    return None
