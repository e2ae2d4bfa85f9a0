"""Opens all that a `config.toml` describes, for a program that uses the library."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from fleeting import Registry, open_settings
from fleeting.errors import ConfigError
from fleeting.types import GroupSettings
from taskscaler._scaler import Taskscaler
from taskscaler.config import AutoscalerConfig, RunnerConfig, read_config
from taskscaler.storage import MemoryStore

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator

    from fleeting import GroupConfigEntry
    from fleeting.abc import InstanceGroup, Provider
    from fleeting.types import ConnectorSettings
    from taskscaler.storage import Store

__all__ = ("open_scaler",)


@asynccontextmanager
async def open_scaler(
    path: str | os.PathLike[str], *, runner: str | None = None
) -> AsyncGenerator[Taskscaler]:
    """Open the groups, the state and the scaler that a `config.toml` describes.

    An async context manager that yields the open scaler. On leaving, even after a cancellation,
    the scaler is closed first, then the groups and the state. The keys of the file about jobs
    are not applied, because the program starts the tasks: `concurrent`, `limit` and
    `instance_acquire_timeout`.

    Args:
        path: of the file, which is read once.
        runner: the name of the runner; None if the file has only one with an autoscaler.

    Raises:
        ConfigError: the file or a setting in it is wrong. The operator's fault.
        PluginError: a plugin is not installed, or is broken.
        ProviderError: a group cannot be opened; `retryable` tells whether to try again.
        TaskscalerError: as `Taskscaler` raises.
    """
    file = Path(path)
    # Reading files and importing plugins would block the event loop.
    found, config, opened = await anyio.to_thread.run_sync(_read, file, runner)
    settings = config.settings()
    async with AsyncExitStack() as stack:
        # A file that is in use is refused before a cloud is asked.
        store = await _open_store(stack, file, found)
        groups: list[InstanceGroup] = []
        connectors: dict[str, ConnectorSettings] = {}
        limits: dict[str, int] = {}
        for entry, provider, plugin_config in opened:
            bounds = (settings.max_instances, entry.max_instances)
            bound = min((limit for limit in bounds if limit), default=None)
            given = GroupSettings(maximum=bound, connector=entry.connector)
            group = await stack.enter_async_context(provider.open(plugin_config, given))
            groups.append(group)
            connectors[group.info.id] = entry.connector
            if entry.max_instances:
                limits[group.info.id] = entry.max_instances
        settings = replace(settings, group_limits=limits)
        scaler = Taskscaler(groups, settings, store=store, connector=connectors)
        yield await stack.enter_async_context(scaler)


def _read(
    path: Path, name: str | None
) -> tuple[RunnerConfig, AutoscalerConfig, list[tuple[GroupConfigEntry, Provider, Any]]]:
    """Return a runner with its autoscaler, and the provider and the settings of each group."""
    runner = read_config(path).runner(name)
    config, registry = runner.autoscaler, Registry()
    if config is None:  # `runner` finds only those that have one.
        raise ConfigError(f"{path}: the runner has no table [runners.autoscaler]; add one")
    opened: list[tuple[GroupConfigEntry, Provider, Any]] = []
    for entry in config.groups():
        provider = registry.provider(entry.plugin)
        where = f"{path}: runners.autoscaler.plugin_config"
        opened.append(
            (entry, provider, open_settings(dict(entry.plugin_config), provider, where=where))
        )
    return runner, config, opened


async def _open_store(stack: AsyncExitStack, path: Path, runner: RunnerConfig) -> Store:
    state = runner.state_path(path)
    if state is None:
        return MemoryStore()
    from taskscaler.storage import SqliteStore

    key_file = runner.state_key_path(path)
    return await stack.enter_async_context(SqliteStore.open(state, key_file=key_file))
