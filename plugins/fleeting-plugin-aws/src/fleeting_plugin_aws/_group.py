"""The group itself: each of its methods is a request or two, and a pure function."""

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
    ProviderError,
    QuotaExceeded,
)
from fleeting.types import Accepted, Instance, Listing, State
from fleeting_plugin_aws._capacity import plan_growth, plan_removal
from fleeting_plugin_aws._describe import describe_group
from fleeting_plugin_aws._errors import Refused
from fleeting_plugin_aws._findings import group_command
from fleeting_plugin_aws._launch_failures import Losses
from fleeting_plugin_aws._notices import watch
from fleeting_plugin_aws._standby import Wish
from fleeting_plugin_aws._states import is_absent
from fleeting_plugin_aws._suspension import Sleepers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
    from datetime import datetime

    from fleeting.types import ConnectInfo, GroupInfo, Notice
    from fleeting_plugin_aws import AwsConfig
    from fleeting_plugin_aws._access import Access
    from fleeting_plugin_aws._clients import Clients
    from fleeting_plugin_aws._standby import Sleeping
    from fleeting_plugin_aws._states import Member, Snapshot

__all__ = ("AwsGroup",)

logger = logging.getLogger("fleeting")

# How many terminations are under way at once.
TERMINATIONS = 10

# How old a listing may be to answer whether an instance works, in seconds: groups are
# listed once a minute by default, and to ask AWS again for each instance would cost more.
FRESH_SECONDS = 90.0


class AwsGroup(InstanceGroup):
    """An open Auto Scaling group.

    Args:
        info: what it is.
        config: the plugin's.
        clients: how to ask AWS.
        group: as it was when it was opened.
        opened: when that was, by AWS's clock.
        access: makes what knows how instances are reached, given who is a member.
    """

    def __init__(
        self,
        info: GroupInfo,
        config: AwsConfig,
        clients: Clients,
        opened: datetime,
        access: Callable[[Callable[[], Collection[str]]], Access],
    ) -> None:
        self.info = info
        self._config = config
        self._name = config.name
        self._clients = clients
        self._writing = anyio.Lock()
        self._losses = Losses(clients, config.name, config.launch_patience, self._writing, opened)
        self._sleepers = Sleepers(clients, config.name, self._writing)
        self._access = access(self._running)
        self._looking = anyio.Lock()
        # The members as they were listed last, and when, in monotonic seconds.
        self._members: Mapping[str, Member] = {}
        self._listed_at = float("-inf")
        self._is_being_deleted = False
        self._strange: set[str] = set()

    @override
    async def update(self) -> Listing:
        """See `InstanceGroup.update`; besides, it goes on with what has been begun.

        That is: it takes back what will not come, before it says so (see `_capacity`), and
        takes the next steps of those who are to sleep or to wake (see `_standby`).
        """
        try:
            group = await self._look()
        except GroupGone:
            if not self._is_being_deleted:
                raise
            return Listing()  # AWS has said that it would take the instances with it.
        self._is_being_deleted = group.is_being_deleted
        failures: tuple[ProviderError, ...] = ()
        if not group.is_being_deleted:
            group, failures = await self._losses.settle(group)
            self._remember(group)
        asleep = await self._sleepers.progress(group)
        instances = [self._listed(one, asleep) for one in group.members.values()]
        return Listing(tuple(one for one in instances if one), group.pending, failures)

    @override
    async def increase(self, count: int, operation: str) -> Accepted:
        async with self._writing:
            group = await describe_group(self._clients, self._name)
            if group.is_being_deleted:
                raise GroupGone(
                    f"group {self.info.id} is being deleted; create it again when that is over, "
                    "or change name in plugin_config"
                )
            plan = plan_growth(group, count)
            error: ProviderError | None = None
            if plan.accepted < count:
                error = QuotaExceeded(
                    f"group {self._name} has a max_size of {group.maximum} and no room for "
                    f"{count - plan.accepted} of {count} more instances; raise it: "
                    f"{self._command('--max-size', 'NUMBER')}"
                )
            if plan.accepted:
                # Failures from before are none of this request, and AWS may begin to launch, and
                # fail, before it answers.
                self._losses.since = group.at
                await self._clients.change(
                    "autoscaling",
                    "SetDesiredCapacity",
                    AutoScalingGroupName=self._name,
                    DesiredCapacity=plan.desired,
                    HonorCooldown=False,
                )
            return Accepted(plan.accepted, error=error)

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
            plan = plan_removal(group, ids)
            wanted = [(id, True) for id in plan.shrink] + [(id, False) for id in plan.release]
            failed: dict[str, ProviderError] = {}
            turns = anyio.CapacityLimiter(TERMINATIONS)
            async with anyio.create_task_group() as terminations:
                for id, shrinks in wanted:
                    terminations.start_soon(self._terminate, id, shrinks, turns, failed)
        self._access.forget([id for id, _ in wanted])
        accepted = [id for id in (*plan.done, *plan.shrink, *plan.release) if id not in failed]
        error = next(iter(failed.values()), None)
        if plan.refused:
            error = error or self._at_minimum(group)
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
        """Terminate an instance, or note why not."""
        async with turns:
            try:
                await self._clients.change(
                    "autoscaling",
                    "TerminateInstanceInAutoScalingGroup",
                    InstanceId=id,
                    ShouldDecrementDesiredCapacity=shrinks,
                )
            except Refused as error:
                if "not found" not in error.words.lower():
                    failed[id] = error
            except ProviderError as error:
                failed[id] = error

    def _at_minimum(self, group: Snapshot) -> ProviderError:
        return QuotaExceeded(
            f"group {self._name} has a min_size of {group.minimum}, and AWS lets no instance go "
            f"below that; lower it: {self._command('--min-size', '0')}"
        )

    def _command(self, *arguments: str) -> str:
        region = self._clients.region
        return group_command(self._name, region, "update-auto-scaling-group", *arguments)

    @override
    async def connect_info(self, id: str) -> ConnectInfo:
        member = await self._member(id)
        if member.life.state is State.DELETING:
            raise InstanceUnhealthy(id, f"instance {id} is being removed ({member.lifecycle})")
        return await self._access.connect_info(id)

    @override
    async def heartbeat(self, id: str) -> None:
        member = await self._member(id)
        if not member.healthy:
            raise InstanceUnhealthy(
                id, f"its group takes instance {id} for unhealthy, and will replace it"
            )
        if member.life.state is State.DELETING:
            raise InstanceUnhealthy(id, f"instance {id} is being removed ({member.lifecycle})")

    @override
    async def suspend(self, ids: Sequence[str]) -> Accepted:
        self._access.forget(ids)
        return await self._sleepers.request(Wish.SLEEP, ids)

    @override
    async def resume(self, ids: Sequence[str]) -> Accepted:
        return await self._sleepers.request(Wish.WAKE, ids)

    @override
    def watch(self) -> AsyncIterator[Notice]:
        queue = self._config.interruption_queue_url
        if queue is None:
            raise NotSupported(
                f"group {self.info.id} announces no interruptions; set interruption_queue_url in "
                "plugin_config"
            )
        return watch(self._clients, queue, self._name, self._config.read_timeout)

    async def _look(self) -> Snapshot:
        group = await describe_group(self._clients, self._name)
        self._remember(group)
        return group

    def _remember(self, group: Snapshot) -> None:
        self._members = group.members
        self._listed_at = anyio.current_time()
        self._access.keep_only(self._running())

    def _running(self) -> Collection[str]:
        """Return the ids of those that can be reached, as they were listed last."""
        return {id for id, member in self._members.items() if member.life.state is State.RUNNING}

    async def _member(self, id: str) -> Member:
        """Return a member as it was listed a moment ago; who asks together asks AWS once.

        Raises:
            InstanceGone: it is none.
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

    def _listed(self, member: Member, asleep: Mapping[str, Sleeping]) -> Instance | None:
        if is_absent(member):
            return None
        if member.id in asleep:
            state, reason = asleep[member.id]
            return Instance(member.id, state, reason=reason)
        state = member.life.state
        if state is State.UNKNOWN and member.lifecycle not in self._strange:
            self._strange.add(member.lifecycle)
            logger.warning(
                "group %s has an instance in the state %r, which this version does not know; it "
                "is left alone until that changes",
                self.info.id,
                member.lifecycle,
            )
        return Instance(member.id, state)
