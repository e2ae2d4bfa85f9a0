"""Looks at the group and at machines, in as few requests as there can be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fleeting.errors import GroupGone
from fleeting_plugin_aws._clients import server_time
from fleeting_plugin_aws._states import snapshot

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from fleeting_plugin_aws._clients import Clients
    from fleeting_plugin_aws._states import Snapshot

__all__ = ("describe_group", "describe_machines", "state_of")

# AWS takes so many values of a filter.
BATCH = 200


async def describe_group(clients: Clients, name: str) -> Snapshot:
    """Return a group as it is now.

    Raises:
        GroupGone: it is not there any more.
        ProviderError: AWS did not say.
    """
    answer = await clients.ask(
        "autoscaling", "DescribeAutoScalingGroups", AutoScalingGroupNames=[name]
    )
    found = next(iter(answer.get("AutoScalingGroups", ())), None)
    if found is None:
        raise GroupGone(
            f"the Auto Scaling group {name} in {clients.region} does not exist any more; "
            "create it again, or change name in plugin_config"
        )
    return snapshot(found, server_time(answer))


async def describe_machines(clients: Clients, ids: Collection[str]) -> dict[str, Mapping[str, Any]]:
    """Return what EC2 says about instances, by id; one that it does not know is left out.

    Asked for by a filter, because an id that EC2 does not know yet fails a request that names it.
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


def state_of(machine: Mapping[str, Any] | None) -> str:
    """Return EC2's word for the state of an instance; empty if it does not know it."""
    return str(machine["State"]["Name"]) if machine is not None else ""
