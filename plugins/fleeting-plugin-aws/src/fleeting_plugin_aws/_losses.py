"""Finds out what was asked for and will not come; the rule is that of `_capacity`."""

from __future__ import annotations

import logging
import shlex
from typing import TYPE_CHECKING

from fleeting.errors import ProviderError
from fleeting_plugin_aws import _activities, _capacity
from fleeting_plugin_aws._clients import server_time
from fleeting_plugin_aws._describe import describe_group

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    import anyio

    from fleeting_plugin_aws._activities import Activity
    from fleeting_plugin_aws._clients import Clients
    from fleeting_plugin_aws._states import Snapshot

__all__ = ("Losses",)

logger = logging.getLogger("fleeting")

# AWS gives so many activities at a time, the newest first.
RECORDS = 100


class Losses:
    """Knows which failures count, and which have been told.

    Args:
        clients: how to ask.
        name: of the group.
        patience: how long a failed launch may be made good.
        writing: held by whoever writes the desired capacity.
        since: when the group was opened, by the cloud's clock.

    Attributes:
        since: when more was asked for last, or the group was opened; by the cloud's clock.
    """

    def __init__(
        self,
        clients: Clients,
        name: str,
        patience: timedelta,
        writing: anyio.Lock,
        since: datetime,
    ) -> None:
        self.since = since
        self._clients = clients
        self._name = name
        self._patience = patience
        self._writing = writing
        self._told: frozenset[str] = frozenset()
        self._warned: set[str] = set()

    async def settle(self, group: Snapshot) -> tuple[Snapshot, tuple[ProviderError, ...]]:
        """Give up what will not come of what is pending.

        Returns:
            The group as it is now, and an error for each instance that was given up.
        """
        try:
            return await self._settle(group)
        except ProviderError as error:
            # The listing is good all the same.
            self._warn("asking", "why instances are missing cannot be found out: %s", error)
            return group, ()

    async def _settle(self, group: Snapshot) -> tuple[Snapshot, tuple[ProviderError, ...]]:
        answer = await self._clients.ask(
            "autoscaling",
            "DescribeScalingActivities",
            AutoScalingGroupName=self._name,
            MaxRecords=RECORDS,
        )
        now = server_time(answer)
        recent = _activities.read(answer)
        history = [one for one in recent if one.id not in self._told]
        if not _capacity.is_final(group, history, self.since, self._patience, now):
            return group, ()
        async with self._writing:
            group = await describe_group(self._clients, self._name)
            # More may have been asked for, or have come, in the meantime.
            if not _capacity.is_final(group, history, self.since, self._patience, now):
                return group, ()
            if group.pending and not _capacity.is_protected(group):
                self._warn_unprotected(group, self._counting(history))
                return group, ()
            # Of all that is told or made good no other word will be said.
            self._told = frozenset(one.id for one in recent if one.is_failed_launch)
            return await self._give_up(group, self._counting(history))

    def _counting(self, history: Sequence[Activity]) -> list[Activity]:
        """Return the failures that count: those since more was asked for."""
        return [one for one in history if one.is_failed_launch and one.started >= self.since]

    async def _give_up(
        self, before: Snapshot, failed: Sequence[Activity]
    ) -> tuple[Snapshot, tuple[ProviderError, ...]]:
        desired = _capacity.lowered(before)
        if desired == before.desired:
            return before, ()
        await self._clients.change(
            "autoscaling",
            "SetDesiredCapacity",
            AutoScalingGroupName=self._name,
            DesiredCapacity=desired,
            HonorCooldown=False,
        )
        after = await describe_group(self._clients, self._name)
        count = _capacity.lost(before, after)
        return after, _activities.failures(failed, count, self._name)

    def _warn_unprotected(self, group: Snapshot, failed: Sequence[Activity]) -> None:
        reason = _activities.classify(failed[0], self._name)
        ids = " ".join(one.id for one in group.members.values() if not one.protected)
        self._warn(
            "unprotected",
            "%d instances of %s are missing (%s), and stay wanted, because to take that back "
            "could make AWS end instances that are not protected from scale-in; protect them: "
            "aws autoscaling set-instance-protection --auto-scaling-group-name %s "
            "--protected-from-scale-in --instance-ids %s",
            group.pending,
            self._name,
            reason,
            shlex.quote(self._name),
            ids,
        )

    def _warn(self, what: str, message: str, *arguments: object) -> None:
        """Log a warning, each kind once."""
        if what not in self._warned:
            self._warned.add(what)
            logger.warning(message, *arguments)
