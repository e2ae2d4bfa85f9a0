"""Finds out what was asked for and will not come; the rule is that of `_capacity`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from fleeting.errors import OutcomeUnknown, ProviderError
from fleeting_plugin_aws import _activities, _capacity
from fleeting_plugin_aws._describe import describe_group
from fleeting_plugin_aws._findings import group_command

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    import anyio

    from fleeting_plugin_aws._activities import Activity
    from fleeting_plugin_aws._clients import Clients
    from fleeting_plugin_aws._states import Snapshot

__all__ = ("Losses",)

logger = logging.getLogger("fleeting")

# AWS gives so many activities at a time, the newest first, and we read so many at most.
RECORDS = 100
MOST_RECORDS = 500
# So many instances can be protected by one command.
MOST_PROTECTED = 50


class _Lowering(NamedTuple):
    """That the desired capacity is lowered.

    Attributes:
        before: the group as it was when that was decided.
        failed: the launches because of which it was.
        desired: the capacity that is set.
    """

    before: Snapshot
    failed: list[Activity]
    desired: int


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
        # From when it is asked for until it is seen what came of it, if need be in a later listing.
        self._lowering: _Lowering | None = None
        self._warned: set[str] = set()

    async def settle(self, group: Snapshot) -> tuple[Snapshot, tuple[ProviderError, ...]]:
        """Give up what will not come of what is pending.

        Returns:
            The group as it is now, and an error for each instance that was given up.
        """
        if not group.pending and self._lowering is None:
            return group, ()
        try:
            return await self._settle(group)
        except ProviderError as error:
            # The listing is good all the same.
            self._warn("asking", "why instances are missing cannot be found out: %s", error)
            return group, ()

    async def _settle(self, group: Snapshot) -> tuple[Snapshot, tuple[ProviderError, ...]]:
        history = await self._history()
        if self._lowering is None and not self._is_final(group, history, group.at):
            return group, ()
        async with self._writing:
            lowering = self._lowering
            if lowering is None:
                now, group = group.at, await describe_group(self._clients, self._name)
                # More may have been asked for, have come, or have been told, in the meantime.
                if not self._is_final(group, history, now):
                    return group, ()
                if group.pending and not _capacity.is_protected(group):
                    self._warn_unprotected(group, self._counting(history))
                    return group, ()
                lowering = await self._lower(group, self._counting(history))
            return await self._conclude(lowering, history)

    async def _history(self) -> list[Activity]:
        """Return what was done since more was asked for, the newest first."""
        found: list[Activity] = []
        page: dict[str, str] = {}
        while True:
            answer = await self._clients.ask(
                "autoscaling",
                "DescribeScalingActivities",
                AutoScalingGroupName=self._name,
                MaxRecords=RECORDS,
                **page,
            )
            found += _activities.read(answer)
            is_enough = len(found) >= MOST_RECORDS or (found and found[-1].started < self.since)
            if is_enough or not answer.get("NextToken"):
                return found
            page = {"NextToken": answer["NextToken"]}

    def _is_final(self, group: Snapshot, history: Sequence[Activity], now: datetime) -> bool:
        untold = [one for one in history if one.id not in self._told]
        return _capacity.is_final(group, untold, self.since, self._patience, now)

    def _counting(self, history: Sequence[Activity]) -> list[Activity]:
        """Return the failures that count: those since more was asked for that were not told."""
        failed = [one for one in history if one.is_failed_launch and one.started >= self.since]
        return [one for one in failed if one.id not in self._told]

    async def _lower(self, group: Snapshot, failed: list[Activity]) -> _Lowering:
        """Lower the desired capacity to what is there."""
        lowering = _Lowering(group, failed, _capacity.lowered(group))
        if lowering.desired == group.desired:
            return lowering
        self._lowering = lowering
        try:
            await self._clients.change(
                "autoscaling",
                "SetDesiredCapacity",
                AutoScalingGroupName=self._name,
                DesiredCapacity=lowering.desired,
                HonorCooldown=False,
            )
        except OutcomeUnknown:
            pass  # The next look tells.
        except ProviderError:
            self._lowering = None
            raise
        return lowering

    async def _conclude(
        self, lowering: _Lowering, history: Sequence[Activity]
    ) -> tuple[Snapshot, tuple[ProviderError, ...]]:
        """See what came of it that the desired capacity was lowered."""
        before, failed, desired = lowering
        group = before
        if desired != before.desired:
            group = await describe_group(self._clients, self._name)
            self._lowering = None
            if group.desired == before.desired:
                return group, ()  # It was not done.
        # Of all that is told or made good no other word will be said.
        known = {one.id for one in history}
        self._told = (self._told & known) | {one.id for one in failed}
        return group, _activities.failures(failed, _capacity.lost(before, group), self._name)

    def _warn_unprotected(self, group: Snapshot, failed: Sequence[Activity]) -> None:
        reason = _activities.classify(failed[0], self._name)
        unprotected = [one.id for one in group.members.values() if not one.protected]
        self._warn(
            "unprotected",
            "%d instances of %s are missing (%s), and stay wanted, because to take that back "
            "could make AWS end %d instances that are not protected from scale-in; protect "
            "them: %s",
            group.pending,
            self._name,
            reason,
            len(unprotected),
            group_command(
                self._name,
                self._clients.region,
                "set-instance-protection",
                "--protected-from-scale-in",
                "--instance-ids",
                *unprotected[:MOST_PROTECTED],
            ),
        )

    def _warn(self, what: str, message: str, *arguments: object) -> None:
        """Log a warning, each kind once."""
        if what not in self._warned:
            self._warned.add(what)
            logger.warning(message, *arguments)
