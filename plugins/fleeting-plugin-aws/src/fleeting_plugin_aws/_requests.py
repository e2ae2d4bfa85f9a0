"""Requests that several modules send: look at the group and its instances, set the capacity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fleeting.errors import GroupGone
from fleeting_plugin_aws._clients import server_time
from fleeting_plugin_aws._states import read_group

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from fleeting_plugin_aws._clients import Clients
    from fleeting_plugin_aws._states import GroupSnapshot

__all__ = ("describe_group", "describe_instances", "find_group", "set_desired_capacity")

# AWS accepts this many values in one filter.
BATCH = 200


async def find_group(clients: Clients, name: str) -> tuple[Mapping[str, Any] | None, datetime]:
    """Return AWS's description of a group and its time, by AWS's clock.

    Returns:
        None instead of a description if the group does not exist.

    Raises:
        ProviderError: the request failed.
    """
    answer = await clients.ask(
        "autoscaling", "DescribeAutoScalingGroups", AutoScalingGroupNames=[name]
    )
    return next(iter(answer.get("AutoScalingGroups", ())), None), server_time(answer)


async def describe_group(clients: Clients, name: str) -> GroupSnapshot:
    """Return the group as it is now.

    Raises:
        GroupGone: the group does not exist any more.
        ProviderError: the request failed.
    """
    found, at = await find_group(clients, name)
    if found is None:
        raise GroupGone(
            f"the Auto Scaling group {name} in {clients.region} does not exist any more; "
            "create it again, or change name in plugin_config"
        )
    return read_group(found, at)


async def describe_instances(
    clients: Clients, ids: Collection[str]
) -> dict[str, Mapping[str, Any]]:
    """Return EC2's descriptions of instances, by id. Instances unknown to EC2 are left out.

    The ids go into a filter. Naming them directly would fail the whole request if EC2 does not
    know one of them yet.

    Raises:
        ProviderError: a request failed.
    """
    found: dict[str, Mapping[str, Any]] = {}
    wanted = sorted(ids)
    for start in range(0, len(wanted), BATCH):
        filters = [{"Name": "instance-id", "Values": wanted[start : start + BATCH]}]
        page: dict[str, Any] = {}
        while True:
            answer = await clients.ask("ec2", "DescribeInstances", Filters=filters, **page)
            for reservation in answer.get("Reservations", ()):
                found.update({str(one["InstanceId"]): one for one in reservation["Instances"]})
            if not answer.get("NextToken"):
                break
            page = {"NextToken": answer["NextToken"]}
    return found


async def set_desired_capacity(clients: Clients, name: str, desired: int) -> None:
    """Set the desired capacity of a group.

    Raises:
        OutcomeUnknown: it may have been set.
        ProviderError: it was not set.
    """
    await clients.change(
        "autoscaling",
        "SetDesiredCapacity",
        AutoScalingGroupName=name,
        DesiredCapacity=desired,
        HonorCooldown=False,
    )
