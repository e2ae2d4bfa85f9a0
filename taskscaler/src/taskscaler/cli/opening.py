"""Opens the resources of a run: the state store and the instance groups."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio

from fleeting.errors import ConfigError, FleetingError, ProviderError
from fleeting.types import Duration, GroupSettings
from taskscaler._errors import TaskscalerError
from taskscaler.storage import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
    from contextlib import AsyncExitStack
    from pathlib import Path

    from fleeting.abc import InstanceGroup
    from fleeting.types import GroupInfo
    from taskscaler.cli.plan import GroupPlan, Plan, StateFile
    from taskscaler.core import Settings
    from taskscaler.storage import Store

__all__ = ("open_groups", "open_store", "with_limits", "worker_limit")

# For how long a group is tried to be opened, if the run has no earlier timeout.
PATIENCE = timedelta(minutes=5)


@asynccontextmanager
async def open_store(state: StateFile | None) -> AsyncGenerator[Store]:
    """Open the store of a run; without a state file it is in memory.

    Raises:
        StoreLocked: another running scaler uses the state file.
        StoreError: the file cannot be read or created.
    """
    if state is None:
        yield MemoryStore()
        return
    from taskscaler.storage import SqliteStore

    async with SqliteStore.open(state.path, key_file=state.key_file) as store:
        yield store


async def open_groups(
    stack: AsyncExitStack,
    plan: Plan,
    say: Callable[[str], Awaitable[None]],
) -> list[InstanceGroup]:
    """Open all groups in order, and register their cleanup on the stack.

    If the cloud does not answer or asks to wait, it is tried again for a while. A group that
    cannot be opened is an error even if there are others: its instances could not be used,
    counted against the limits, or removed.

    Args:
        stack: closes the groups.
        plan: with the groups.
        say: shows a message.

    Raises:
        FleetingError: one of the groups cannot be opened; named if there are several.
    """
    groups: list[InstanceGroup] = []
    for one in plan.groups:
        limits = (plan.settings.max_instances, one.max_instances)
        settings = GroupSettings(
            maximum=min((limit for limit in limits if limit), default=None),
            connector=one.connector,
        )
        try:
            group = await _open(stack, one, settings, plan.settings, say)
            if group.info.id in {other.info.id for other in groups}:
                raise ConfigError(f"{group.info.id} is configured twice; remove one of them")
        except FleetingError as error:
            if len(plan.groups) == 1:
                if isinstance(error, ConfigError) and (file := _origin(plan)) is not None:
                    raise ConfigError(*(f"{file}: {text}" for text in error.problems)) from error
                raise
            where = f"cannot open group {one.name!r} (plugin {one.provider.name})"
            if isinstance(error, ConfigError):
                raise ConfigError(*(f"{where}: {text}" for text in error.problems)) from error
            raise TaskscalerError(f"{where}: {error}") from error
        groups.append(group)
    return groups


def _origin(plan: Plan) -> Path | None:
    """Return the file that has the settings of the only group; None if options have them."""
    options = plan.options
    if options is None or options.plugin or options.plugin_config:
        return None
    return options.config or options.file


async def _open(
    stack: AsyncExitStack,
    one: GroupPlan,
    settings: GroupSettings,
    pauses: Settings,
    say: Callable[[str], Awaitable[None]],
) -> InstanceGroup:
    """Open a group, and try again after failures that can pass.

    Raises:
        FleetingError: it cannot be opened, or not within `PATIENCE`.
    """
    until = anyio.current_time() + PATIENCE.total_seconds()
    pause = pauses.backoff
    while True:
        try:
            return await stack.enter_async_context(one.provider.open(one.plugin_config, settings))
        except ProviderError as error:
            wait = max(pause, error.retry_after or pause).total_seconds()
            if not error.retryable or anyio.current_time() + wait > until:
                raise
            seconds = Duration(seconds=round(wait, 1))
            await say(f"group {one.name!r} does not open: {error}; trying again in {seconds}")
            await anyio.sleep(wait)
            pause = min(pause * 2, pauses.backoff_limit)


def with_limits(plan: Plan, groups: Sequence[GroupInfo]) -> Plan:
    """Return the plan with the limits of the groups in its settings, by group id."""
    limits = {
        group.id: one.max_instances
        for group, one in zip(groups, plan.groups, strict=True)
        if one.max_instances
    }
    return replace(plan, settings=replace(plan.settings, group_limits=limits))


def worker_limit(plan: Plan, groups: Sequence[GroupInfo]) -> int:
    """Return how many jobs can run at the same time: the lowest limit, or the number of runs."""
    sizes = [
        min((size for size in (group.max_size, one.max_instances) if size), default=0)
        for group, one in zip(groups, plan.groups, strict=True)
    ]
    # Zero is unlimited; if one group is unlimited, all groups together are.
    instance_limits = [plan.settings.max_instances, sum(sizes) if all(sizes) else 0]
    instances = min((limit for limit in instance_limits if limit), default=0)
    job_limits = [instances * plan.settings.capacity_per_instance, plan.max_jobs]
    return min((limit for limit in job_limits if limit), default=len(plan.runs))
