"""Opens what a run stands on: the store of its state, and the groups of instances."""

from __future__ import annotations

from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from fleeting import driving
from fleeting.errors import ConfigError, FleetingError, GroupHeld
from fleeting.types import GroupSettings
from taskscaler._errors import TaskscalerError
from taskscaler.storage import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from contextlib import AsyncExitStack

    from fleeting.abc import InstanceGroup
    from fleeting.types import GroupInfo
    from taskscaler.cli.plan import Plan, State
    from taskscaler.storage import Store

__all__ = ("open_groups", "open_store", "with_limits")

# For whoever is refused by the lock of a group.
PURPOSE = "taskscaler run"


@asynccontextmanager
async def open_store(state: State | None) -> AsyncGenerator[Store]:
    """Return a context manager with the store of a run; None is one in memory.

    Raises:
        StoreLocked: on entering, another scaler that is alive holds it.
        StoreError: on entering, it cannot be read or made.
    """
    if state is None:
        yield MemoryStore()
        return
    from taskscaler.storage import SqliteStore

    async with SqliteStore.open(state.path, key_file=state.key_file) as store:
        yield store


async def open_groups(stack: AsyncExitStack, plan: Plan) -> list[InstanceGroup]:
    """Open all groups in order, drive them alone, and let a stack close them.

    One that cannot be opened is an error even where there are others: what runs there
    could be neither used nor counted against the limits, nor removed.

    Raises:
        GroupHeld: another process drives one of them.
        FleetingError: one of them cannot be opened, naming it if there are several.
    """
    groups: list[InstanceGroup] = []
    # Below the groups in the stack, so that each lock is held until its group is closed.
    locks = stack.enter_context(ExitStack())
    for one in plan.groups:
        limits = (plan.settings.max_instances, one.max_instances)
        settings = GroupSettings(
            maximum=min((limit for limit in limits if limit), default=None),
            connector=one.connector,
        )
        try:
            group = await stack.enter_async_context(one.provider.open(one.plugin_config, settings))
            if group.info.id in {other.info.id for other in groups}:
                raise ConfigError(f"{group.info.id} is in the list already; remove one of the two")
            locks.enter_context(driving(group.info.id, PURPOSE))
        except GroupHeld:
            raise
        except FleetingError as error:
            if len(plan.groups) == 1:
                raise
            where = f"group {one.name!r} (plugin {one.provider.name}) cannot be opened"
            if isinstance(error, ConfigError):
                raise ConfigError(*(f"{where}: {text}" for text in error.problems)) from error
            raise TaskscalerError(f"{where}: {error}") from error
        groups.append(group)
    return groups


def with_limits(plan: Plan, groups: Sequence[GroupInfo]) -> Plan:
    """Return a plan whose settings know the limits of the groups, by the ids that these have."""
    limits = {
        group.id: one.max_instances
        for group, one in zip(groups, plan.groups, strict=True)
        if one.max_instances
    }
    return replace(plan, settings=replace(plan.settings, group_limits=limits))
