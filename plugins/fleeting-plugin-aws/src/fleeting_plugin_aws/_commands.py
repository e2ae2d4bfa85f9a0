"""Commands of the `aws` tool for messages and findings, quoted for a shell."""

from __future__ import annotations

import shlex

__all__ = ("group_command", "list_groups_command", "update_group_command")


def group_command(name: str, region: str, verb: str, *arguments: str) -> str:
    """Return the command that runs a verb of `aws autoscaling` on a group."""
    group = ("--region", region, "--auto-scaling-group-name", name)
    return shlex.join(["aws", "autoscaling", verb, *group, *arguments])


def update_group_command(name: str, region: str, *arguments: str) -> str:
    """Return the command that changes a group's settings."""
    return group_command(name, region, "update-auto-scaling-group", *arguments)


def list_groups_command(region: str, *names: str) -> str:
    """Return the command that lists groups; all groups of the region if no name is given."""
    command = ["aws", "autoscaling", "describe-auto-scaling-groups", "--region", region]
    return shlex.join([*command, "--auto-scaling-group-names", *names] if names else command)
