"""An open group: each method sends a request or two and calls a pure function."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio
from typing_extensions import override

from fleeting.abc import InstanceGroup
from fleeting.errors import (
    GroupGone,
    InstanceGone,
    InstanceUnhealthy,
    NotSupported,
    OutcomeUnknown,
    ProviderError,
    QuotaExceeded,
)
from fleeting.types import Accepted, Instance, Listing, State
from fleeting_plugin_aws._capacity import plan_increase, plan_termination
from fleeting_plugin_aws._commands import update_group_command
from fleeting_plugin_aws._errors import Refused
from fleeting_plugin_aws._hooks import HookReports, hold_reason
from fleeting_plugin_aws._launch_failures import LaunchFailures
from fleeting_plugin_aws._notices import watch
from fleeting_plugin_aws._requests import describe_group, set_desired_capacity
from fleeting_plugin_aws._standby import SuspensionGoal
from fleeting_plugin_aws._states import is_absent
from fleeting_plugin_aws._successors import Successors
from fleeting_plugin_aws._suspension import Suspensions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from datetime import datetime

    from fleeting.types import ConnectInfo, GroupInfo, Notice
    from fleeting_plugin_aws._access import Access
    from fleeting_plugin_aws._clients import Clients
    from fleeting_plugin_aws._config import AwsConfig
    from fleeting_plugin_aws._standby import StandbyStatus
    from fleeting_plugin_aws._states import GroupMember, GroupSnapshot

__all__ = ("AwsGroup",)

logger = logging.getLogger("fleeting")

# The number of concurrent terminations.
TERMINATIONS = 10

# The age in seconds up to which a listing answers whether an instance works. Groups are listed
# once a minute by default, and asking AWS again for each instance would cost more requests.
FRESH_SECONDS = 90.0


class AwsGroup(InstanceGroup):
    """An open Auto Scaling group.

    Args:
        info: describes the group.
        config: the plugin's configuration.
        clients: send the requests.
        access: answers how instances are reached.
        opened: when the group was opened, by AWS's clock.
    """

    def __init__(
        self,
        info: GroupInfo,
        config: AwsConfig,
        clients: Clients,
        access: Access,
        opened: datetime,
    ) -> None:
        self.info = info
        self._config = config
        self._name = config.name
        self._clients = clients
        self._access = access
        # Held while the desired capacity is read and written: AWS only stores the last write.
        self._writing = anyio.Lock()
        self._failures = LaunchFailures(
            clients, config.name, config.launch_patience, self._writing, opened
        )
        self._suspensions = Suspensions(clients, config.name, self._writing)
        self._hooks = HookReports(clients, config.name)
        self._successors = Successors()
        # Of the newest increase: its operation, and the desired capacity before and after.
        self._newest_increase = ("", 0, 0)
        self._looking = anyio.Lock()
        self._snapshot: GroupSnapshot | None = None
        # The members as listed last, and when, in monotonic seconds.
        self._members: Mapping[str, GroupMember] = {}
        self._listed_at = float("-inf")
        self._is_being_deleted = False
        self._unknown_states: set[str] = set()

    @override
    async def update(self) -> Listing:
        try:
            group = await self._look()
        except GroupGone:
            if not self._is_being_deleted:
                raise
            return Listing()  # AWS deleted the instances together with the group.
        if group.is_being_deleted and not self._is_being_deleted:
            logger.warning("%s", self._deleted_error())
        self._is_being_deleted = group.is_being_deleted
        standby = await self._suspensions.look(group)
        instances = [self._listed(one, standby) for one in group.members.values()]
        return Listing(
            tuple(one for one in instances if one), group.pending, self._failures.failures
        )

    @override
    async def reconcile(self, listing: Listing) -> None:
        """Take the next steps; see `InstanceGroup.reconcile`.

        This gives up instances whose launch failed (see `_capacity`), and suspends and resumes
        instances (see `_standby`). It also says which hooks hold instances up (see `_hooks`).
        """
        del listing  # The snapshot behind it says more.
        group = self._snapshot
        if group is None or group.is_being_deleted:
            return
        settled = await self._failures.settle(group)
        if settled is not group:
            self._remember(settled)
        await self._hooks.report(settled)
        await self._suspensions.proceed(settled)

    @override
    async def increase(self, count: int, operation: str) -> Accepted:
        async with self._writing:
            group = await describe_group(self._clients, self._name)
            if group.is_being_deleted:
                raise self._deleted_error()
            plan = plan_increase(group, count)
            error: ProviderError | None = None
            if plan.accepted < count:
                error = QuotaExceeded(
                    f"group {self._name} has a max_size of {group.maximum}, which does not allow "
                    f"{count - plan.accepted} of {count} more instances; raise it: "
                    f"{self._update_command('--max-size', 'NUMBER')}"
                )
            if plan.accepted:
                # Earlier failures do not belong to this request. Set before the request is sent,
                # because AWS may begin to launch, and fail, before it answers.
                self._failures.since = group.at
                self._newest_increase = (operation, group.desired, plan.desired)
                await set_desired_capacity(self._clients, self._name, plan.desired)
            return Accepted(plan.accepted, error=error)

    @override
    async def outcome(self, operation: str) -> int | None:
        newest, before, after = self._newest_increase
        if operation != newest:
            return None
        group = await describe_group(self._clients, self._name)
        if group.desired >= after:
            return after - before
        # Anything else between the two was set by another program, or after a removal.
        return 0 if group.desired == before else None

    @override
    async def decrease(self, ids: Sequence[str]) -> Accepted:
        if not ids:
            return Accepted(0)
        async with self._writing:
            try:
                group = await describe_group(self._clients, self._name)
            except GroupGone:
                if not self._is_being_deleted:
                    raise
                return Accepted(len(set(ids)), tuple(dict.fromkeys(ids)))
            plan = plan_termination(group, ids)
            wanted = [(id, True) for id in plan.shrink] + [(id, False) for id in plan.release]
            self._successors.expect_end([id for id, _ in wanted])
            failed: dict[str, ProviderError] = {}
            turns = anyio.CapacityLimiter(TERMINATIONS)
            async with anyio.create_task_group() as terminations:
                for id, shrinks in wanted:
                    terminations.start_soon(self._terminate, id, shrinks, turns, failed)
        self._successors.expect_no_end(
            [id for id, one in failed.items() if not isinstance(one, OutcomeUnknown)]
        )
        self._access.forget([id for id, _ in wanted])
        accepted = [id for id in (*plan.done, *plan.shrink, *plan.release) if id not in failed]
        error = next(iter(failed.values()), None)
        if plan.refused:
            error = error or self._minimum_error(group)
        if error is not None and not accepted:
            raise error
        return Accepted(len(accepted), tuple(accepted), error)

    async def _terminate(
        self,
        id: str,
        shrinks: bool,  # noqa: FBT001 - a task takes positional arguments only
        turns: anyio.CapacityLimiter,
        failed: dict[str, ProviderError],
    ) -> None:
        """Terminate an instance, or record the error in `failed`."""
        async with turns:
            try:
                await self._clients.change(
                    "autoscaling",
                    "TerminateInstanceInAutoScalingGroup",
                    InstanceId=id,
                    ShouldDecrementDesiredCapacity=shrinks,
                )
            except Refused as error:
                if "not found" not in error.reason.lower():
                    failed[id] = error
            except ProviderError as error:
                failed[id] = error

    def _minimum_error(self, group: GroupSnapshot) -> ProviderError:
        return QuotaExceeded(
            f"group {self._name} has a min_size of {group.minimum}, and AWS does not remove "
            f"instances below that; lower it: {self._update_command('--min-size', '0')}"
        )

    def _deleted_error(self) -> GroupGone:
        return GroupGone(
            f"group {self.info.id} is being deleted with its instances; create it again "
            "afterwards, or change name in plugin_config"
        )

    def _update_command(self, *arguments: str) -> str:
        return update_group_command(self._name, self._clients.region, *arguments)

    @override
    async def connect_info(self, id: str) -> ConnectInfo:
        member = await self._member(id)
        _require_staying(member)
        return await self._access.connect_info(id)

    @override
    async def heartbeat(self, id: str) -> None:
        member = await self._member(id)
        if not member.healthy:
            raise InstanceUnhealthy(
                id, f"the group considers instance {id} unhealthy and will replace it"
            )
        _require_staying(member)

    @override
    async def suspend(self, ids: Sequence[str]) -> Accepted:
        self._access.forget(ids)
        return await self._suspensions.request(SuspensionGoal.SUSPENDED, ids)

    @override
    async def resume(self, ids: Sequence[str]) -> Accepted:
        return await self._suspensions.request(SuspensionGoal.RESUMED, ids)

    @override
    def watch(self) -> AsyncIterator[Notice]:
        queue = self._config.interruption_queue_url
        if queue is None:
            raise NotSupported(
                f"group {self.info.id} does not announce interruptions; set "
                "interruption_queue_url in plugin_config"
            )
        return watch(self._clients, queue, self._name, self._config.read_timeout)

    async def _look(self) -> GroupSnapshot:
        group = await describe_group(self._clients, self._name)
        self._remember(group)
        return group

    def _remember(self, group: GroupSnapshot) -> None:
        if self._snapshot is not None:
            self._successors.look(self._snapshot, group)
        self._snapshot = group
        self._members = group.members
        self._listed_at = anyio.current_time()
        self._access.update_running(
            frozenset(id for id, one in group.members.items() if one.state is State.RUNNING)
        )

    async def _member(self, id: str) -> GroupMember:
        """Return a member as listed a moment ago; concurrent callers share one request.

        Raises:
            InstanceGone: the instance is not a member.
        """
        if not self._is_fresh(id):
            async with self._looking:
                if not self._is_fresh(id):
                    await self._look()
        member = self._members.get(id)
        if member is None or is_absent(member):
            raise InstanceGone(id, f"there is no instance {id} in group {self.info.id}")
        return member

    def _is_fresh(self, id: str) -> bool:
        age = anyio.current_time() - self._listed_at
        return id in self._members and age < FRESH_SECONDS

    def _listed(self, member: GroupMember, standby: Mapping[str, StandbyStatus]) -> Instance | None:
        """Return how a listing shows a member; None if it has left the group."""
        if is_absent(member):
            return None
        if member.id in standby:
            state, reason = standby[member.id]
            return Instance(member.id, state, reason=reason)
        state = member.state
        if state is State.UNKNOWN and member.lifecycle_state not in self._unknown_states:
            self._unknown_states.add(member.lifecycle_state)
            logger.warning(
                "group %s has an instance in the state %r, which this version does not know; the "
                "instance is left alone until its state changes",
                self.info.id,
                member.lifecycle_state,
            )
        return Instance(
            member.id,
            state,
            reason=hold_reason(member),
            replaces=self._successors.predecessor(member.id),
        )


def _require_staying(member: GroupMember) -> None:
    if member.state is State.DELETING:
        raise InstanceUnhealthy(
            member.id, f"instance {member.id} is being removed ({member.lifecycle_state})"
        )
