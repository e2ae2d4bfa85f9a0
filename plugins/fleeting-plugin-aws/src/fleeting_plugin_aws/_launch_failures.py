"""Gives up instances whose launch failed; `_capacity` decides when and how."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from fleeting.errors import OutcomeUnknown, ProviderError
from fleeting_plugin_aws import _activities, _capacity
from fleeting_plugin_aws._commands import group_command
from fleeting_plugin_aws._requests import describe_group, set_desired_capacity

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    import anyio

    from fleeting.types import CreationFailure
    from fleeting_plugin_aws._activities import Activity
    from fleeting_plugin_aws._clients import Clients
    from fleeting_plugin_aws._states import GroupSnapshot

__all__ = ("LaunchFailures",)

logger = logging.getLogger("fleeting")

# AWS returns this many activities per request, newest first.
RECORDS = 100
# The plugin reads at most this many.
MOST_RECORDS = 500
# Listings repeat at least this many failures.
MOST_FAILURES = 100
# One command can protect this many instances.
MOST_PROTECTED = 50


class _Reduction(NamedTuple):
    """A reduction of the desired capacity whose result has not been seen yet.

    Attributes:
        before: the group when it was decided.
        failed: the failed launches that caused it.
        desired: the new desired capacity.
    """

    before: GroupSnapshot
    failed: list[Activity]
    desired: int


class LaunchFailures:
    """Finds launches that failed since more was asked for, and gives them up.

    Args:
        clients: send the requests.
        name: of the group.
        patience: how long AWS may retry a failed launch.
        writing: the lock for changes of the desired capacity.
        since: when the group was opened, by AWS's clock.

    Attributes:
        since: when more was asked for last, or else when the group was opened; by AWS's clock.
        failures: one for each instance that was given up, the newest last.
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
        self.failures: tuple[CreationFailure, ...] = ()
        self._clients = clients
        self._name = name
        self._patience = patience
        self._writing = writing
        self._reported: frozenset[str] = frozenset()
        # Set from the request until its result was seen, which can take until a later listing.
        self._reduction: _Reduction | None = None
        self._warned: set[str] = set()

    async def settle(self, group: GroupSnapshot) -> GroupSnapshot:
        """Give up the pending instances that will not come, and return the group as it is now."""
        if not group.pending and self._reduction is None:
            return group
        try:
            return await self._settle(group)
        except ProviderError as error:
            # The listing itself is still valid.
            self._warn("asking", "cannot find out why instances are missing: %s", error)
            return group

    async def _settle(self, group: GroupSnapshot) -> GroupSnapshot:
        history = await self._history()
        if self._reduction is None and not self._can_give_up(group, history, group.at):
            return group
        async with self._writing:
            reduction = self._reduction
            if reduction is None:
                now, group = group.at, await describe_group(self._clients, self._name)
                # While this waited for the lock, more may have been asked for, have arrived, or
                # have been reported.
                if not self._can_give_up(group, history, now):
                    return group
                if group.pending and not _capacity.all_protected(group):
                    self._warn_unprotected(group, self._unreported(history))
                    return group
                reduction = await self._reduce(group, self._unreported(history))
            return await self._conclude(reduction, history)

    async def _history(self) -> list[Activity]:
        """Return the activities since more was asked for, newest first."""
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
            found += _activities.read_activities(answer)
            is_enough = len(found) >= MOST_RECORDS or (found and found[-1].started < self.since)
            if is_enough or not answer.get("NextToken"):
                return found
            page = {"NextToken": answer["NextToken"]}

    def _can_give_up(
        self, group: GroupSnapshot, history: Sequence[Activity], now: datetime
    ) -> bool:
        activities = [one for one in history if one.id not in self._reported]
        return _capacity.can_give_up(group, activities, self.since, self._patience, now)

    def _unreported(self, history: Sequence[Activity]) -> list[Activity]:
        """Return the launches that failed since more was asked for and were not reported."""
        failed = [one for one in history if one.is_failed_launch and one.started >= self.since]
        return [one for one in failed if one.id not in self._reported]

    async def _reduce(self, group: GroupSnapshot, failed: list[Activity]) -> _Reduction:
        """Lower the desired capacity to the members that exist."""
        reduction = _Reduction(group, failed, _capacity.reduced_capacity(group))
        if reduction.desired == group.desired:
            return reduction
        self._reduction = reduction
        try:
            await set_desired_capacity(self._clients, self._name, reduction.desired)
        except OutcomeUnknown:
            pass  # The group's description will show whether it was carried out.
        except ProviderError:
            self._reduction = None
            raise
        return reduction

    async def _conclude(self, reduction: _Reduction, history: Sequence[Activity]) -> GroupSnapshot:
        """Record the result of a reduction of the desired capacity, and return the group."""
        before, failed, desired = reduction
        group = before
        if desired != before.desired:
            group = await describe_group(self._clients, self._name)
            self._reduction = None
            if group.desired == before.desired:
                return group  # It was not carried out.
        # These launches are settled: given up, or replaced by an instance that came. Ids that
        # are not in the history any more need not be remembered.
        known = {one.id for one in history}
        self._reported = (self._reported & known) | {one.id for one in failed}
        count = _capacity.count_given_up(before, group)
        new = _activities.launch_failures(failed, count, self._name)
        self.failures = (*self.failures, *new)[-max(MOST_FAILURES, len(new)) :]
        return group

    def _warn_unprotected(self, group: GroupSnapshot, failed: Sequence[Activity]) -> None:
        reason = _activities.classify(failed[0], self._name)
        unprotected = [one.id for one in group.members.values() if not one.protected]
        self._warn(
            "unprotected",
            "%d instances of %s are missing (%s) and stay requested, because lowering the desired "
            "capacity could make AWS end one of %d instances that are not protected from scale-in; "
            "protect them: %s",
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

    def _warn(self, kind: str, message: str, *arguments: object) -> None:
        """Log a warning, each kind once."""
        if kind not in self._warned:
            self._warned.add(kind)
            logger.warning(message, *arguments)
