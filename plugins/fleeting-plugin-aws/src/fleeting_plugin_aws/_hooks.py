"""Says which lifecycle hooks hold instances up, for how long, and how to go on sooner.

A hook holds each instance of its group before it serves (`Pending:Wait`) or before
it ends (`Terminating:Wait`), until a program completes the hook or its time is up.
An instance that ends costs money until then, and nothing that the scaler could
send would change that.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from fleeting.errors import ProviderError
from fleeting.types import Duration
from fleeting_plugin_aws._commands import group_command

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fleeting_plugin_aws._clients import Clients
    from fleeting_plugin_aws._states import GroupMember, GroupSnapshot

__all__ = ("DEFAULT_HEARTBEAT", "HookReports", "hold_reason", "hook_wait")

logger = logging.getLogger("fleeting")

# How long a hook waits that does not say how long.
DEFAULT_HEARTBEAT = Duration(hours=1)

# The states in which a hook holds a member, what it delays, and the hook's transition.
_HELD = {
    "Pending:Wait": ("start", "autoscaling:EC2_INSTANCE_LAUNCHING"),
    "Terminating:Wait": ("end", "autoscaling:EC2_INSTANCE_TERMINATING"),
}


def hold_reason(member: GroupMember) -> str | None:
    """Return why a member does not get on; None if no hook holds it."""
    if member.lifecycle_state not in _HELD:
        return None
    what, _ = _HELD[member.lifecycle_state]
    return f"a lifecycle hook of its group delays its {what} ({member.lifecycle_state})"


def hook_wait(hook: Mapping[str, Any]) -> Duration:
    """Return for how long a hook holds an instance if no program completes it."""
    return Duration(seconds=int(hook.get("HeartbeatTimeout") or DEFAULT_HEARTBEAT.total_seconds()))


class HookReports:
    """Logs once for each transition that hooks hold instances up.

    Args:
        clients: send the requests.
        name: of the group.
    """

    def __init__(self, clients: Clients, name: str) -> None:
        self._clients = clients
        self._name = name
        self._told: set[str] = set()

    async def report(self, group: GroupSnapshot) -> None:
        """Log a warning if a hook holds a member, and did not do so before."""
        for state, (what, transition) in _HELD.items():
            held = sorted(id for id, one in group.members.items() if one.lifecycle_state == state)
            if not held or state in self._told:
                continue
            self._told.add(state)
            logger.warning(
                "a lifecycle hook delays the %s of instances of group %s, now of %s%s",
                what,
                self._name,
                ", ".join(held),
                await self._advice(transition, held[0]),
            )

    async def _advice(self, transition: str, id: str) -> str:
        """Return how long the hooks of a transition wait, and the command that ends the wait."""
        try:
            answer = await self._clients.ask(
                "autoscaling", "DescribeLifecycleHooks", AutoScalingGroupName=self._name
            )
        except ProviderError as error:
            return f"; for how long is not known: {error}"
        every = answer.get("LifecycleHooks", ())
        hooks = [one for one in every if one.get("LifecycleTransition") == transition]
        return "".join(
            f"; {hook['LifecycleHookName']} waits for up to {hook_wait(hook)}, or until: "
            + group_command(
                self._name,
                self._clients.region,
                "complete-lifecycle-action",
                "--lifecycle-hook-name",
                str(hook["LifecycleHookName"]),
                "--lifecycle-action-result",
                "CONTINUE",
                "--instance-id",
                id,
            )
            for hook in hooks
        )
