"""Opens the resources of a run: the state store, the instance groups, and enough files."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio

from fleeting.errors import ConfigError, FleetingError, ProviderError
from fleeting.types import Duration, GroupSettings
from taskscaler._errors import TaskscalerError
from taskscaler.core import counted
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

__all__ = (
    "WorkerLimit",
    "open_groups",
    "open_store",
    "raise_open_files",
    "with_limits",
    "worker_limit",
)

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


@dataclass(frozen=True, slots=True)
class WorkerLimit:
    """How many jobs can run at the same time.

    Attributes:
        count: how many.
        why: what limits it, human-readable; empty if it is only the number of runs.
    """

    count: int
    why: str


def worker_limit(plan: Plan, groups: Sequence[GroupInfo]) -> WorkerLimit:
    """Return how many jobs can run at the same time: the lowest limit, or the number of runs."""
    capacity = plan.settings.capacity_per_instance
    limits = [WorkerLimit(count, f"{key} = {count}") for key, count in plan.job_limits.items()]
    most = plan.settings.max_instances
    if most:
        slots = most * capacity
        why = f"held back by max_instances = {most} ({counted(slots, 'slot')})"
        limits.append(WorkerLimit(slots, why))
    sizes = [
        min((size for size in (group.max_size, one.max_instances) if size), default=0)
        for group, one in zip(groups, plan.groups, strict=True)
    ]
    # Zero is unlimited; if one group is unlimited, all groups together are.
    if sizes and all(sizes):
        slots = sum(sizes) * capacity
        of = "the group's size" if len(sizes) == 1 else "the sizes of all groups together"
        why = f"held back by {of} of {sum(sizes)} ({counted(slots, 'slot')})"
        limits.append(WorkerLimit(slots, why))
    limits.append(WorkerLimit(len(plan.runs), ""))
    return min(limits, key=lambda limit: limit.count)


def raise_open_files() -> None:
    """Raise the number of files that may be open to what the administrator permits.

    Each instance and each running job takes a few. The usual limit of 1,024 is for programs that
    cannot deal with more.
    """
    if sys.platform == "win32":
        return  # It has no such limit.
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Some systems refuse the highest value although they report it.
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
