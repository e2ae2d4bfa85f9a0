"""Detects changes to config.toml and turns them into a new plan of the running command.

The file is checked once a second, and read when two checks in a row are equal,
because an editor may be in the middle of writing it. This costs one `stat` and
works on every file system, even on network file systems without notifications.

Most settings take effect at once. A few are fixed in the slots, the groups or the
state; they keep their values until the command is restarted, and a warning says so.
An invalid file changes nothing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from enum import Enum
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.to_thread

from fleeting import open_regular
from fleeting.errors import ConfigError
from fleeting.types import Duration
from taskscaler.cli.plan import job_limits, plan_settings, state_file
from taskscaler.config import read_config

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence
    from pathlib import Path

    from msgspec import Struct

    from taskscaler.cli.plan import GroupPlan, Options, Plan
    from taskscaler.config import AutoscalerConfig, RunnerConfig
    from taskscaler.core import Settings

__all__ = ("ReloadedPlan", "file_changes", "reload_plan")

_CHECK_SECONDS = 1.0
# The core refuses to change these: slots and use counts depend on them.
_FIXED = ("capacity_per_instance", "max_use_count", "placement")
# Its value may be long or secret, so messages name only the key.
_NOT_SHOWN = frozenset({"instance_ready_command"})
# They are compared as the file has them.
_POLICIES = frozenset({"policy", "schedule"})


@dataclass(frozen=True, slots=True)
class ReloadedPlan:
    """The new plan after a change to the file.

    Attributes:
        plan: the new plan; settings that cannot change have their old values.
        changes: the changes that take effect, human-readable.
        kept: the settings that keep their old values, human-readable.
        warnings: new warnings about the file.
    """

    plan: Plan
    changes: tuple[str, ...]
    kept: tuple[str, ...]
    warnings: tuple[str, ...]


async def file_changes(path: Path) -> AsyncGenerator[None]:
    """Yield once at the start, then after each change that is complete."""
    yielded = before = await _stat(path)
    yield
    while True:
        await anyio.sleep(_CHECK_SECONDS)
        now = await _stat(path)
        if now == before != yielded:
            yielded = now
            yield
        before = now


async def _stat(path: Path) -> tuple[int, ...] | None:
    try:
        facts = await anyio.Path(path).stat()
    except OSError:
        return None  # Reading the file will report the error.
    return facts.st_dev, facts.st_ino, facts.st_mtime_ns, facts.st_size


async def reload_plan(plan: Plan) -> ReloadedPlan | None:
    """Read config.toml again and return the new plan; None if nothing has changed.

    Raises:
        ConfigError: the file is invalid; keep the old plan.
    """
    return await anyio.to_thread.run_sync(_reload_plan, plan)


def _reload_plan(plan: Plan) -> ReloadedPlan | None:
    options, opened = plan.options, plan.opened
    if options is None or options.config is None or opened is None or opened.autoscaler is None:
        return None
    _check_regular(options.config)
    file = read_config(options.config)
    runner = file.runner(options.runner)
    same = runner == plan.runner and job_limits(file, runner) == plan.job_limits
    if runner.autoscaler is None or same:
        return None
    settings = plan_settings(runner.autoscaler, options)
    fixed = {name: getattr(plan.settings, name) for name in _FIXED}
    kept = [name for name in _FIXED if getattr(settings, name) != fixed[name]]
    kept += _kept(options, opened, runner, opened.autoscaler, runner.autoscaler)
    new = replace(
        plan,
        settings=replace(settings, **fixed),
        groups=_limited(plan.groups, runner.autoscaler),
        acquire_timeout=runner.autoscaler.acquire_timeout,
        job_limits=job_limits(file, runner),
        runner=runner,
        warnings=file.warnings,
    )
    warnings = tuple(one for one in file.warnings if one not in plan.warnings)
    return ReloadedPlan(new, tuple(_changes(plan, new)), tuple(kept), warnings)


def _check_regular(path: Path) -> None:
    """Refuse a pipe: at the start it may be read, but a read now could not be cancelled."""
    try:
        os.close(open_regular(path))
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise ConfigError(f"{path}: cannot be read again ({why}); use a regular file") from None


def _kept(
    options: Options,
    old: RunnerConfig,
    new: RunnerConfig,
    before: AutoscalerConfig,
    after: AutoscalerConfig,
) -> Iterator[str]:
    """Yield the changed settings of groups and state, which are open and keep their values."""
    entries, others = before.groups(), after.groups()
    if [one.name for one in entries] != [one.name for one in others]:
        yield "the list of groups"
    else:
        for one, other in zip(entries, others, strict=True):
            of = f" of group {one.name!r}" if len(entries) > 1 else ""
            if one.plugin != other.plugin:
                yield f"plugin{of}"
            if one.plugin_config != other.plugin_config:
                yield f"plugin_config{of}"
            if one.connector != other.connector:
                yield f"connector_config{of}"
    if state_file(options, old) != state_file(options, new):
        yield "the location of the state (id, state_storage)"


def _limited(groups: tuple[GroupPlan, ...], config: AutoscalerConfig) -> tuple[GroupPlan, ...]:
    """Return the groups with their new limits."""
    limits = {entry.name: entry.max_instances for entry in config.groups()}
    return tuple(
        replace(group, max_instances=limits.get(group.name, group.max_instances))
        for group in groups
    )


def _changes(old: Plan, new: Plan) -> Iterator[str]:
    yield from _setting_changes(old.settings, new.settings)
    first, second = (plan.runner.autoscaler if plan.runner else None for plan in (old, new))
    if first is not None and second is not None:
        # An option stays in force, whatever the file says.
        options = [key for key in ("idle_count", "idle_time") if getattr(new.options, key, None)]
        yield from _policy_changes(first, second, options)
    yield from _difference("instance_acquire_timeout", old.acquire_timeout, new.acquire_timeout)
    for key in ("concurrent", "limit"):
        limits = (plan.job_limits.get(key, "no limit") for plan in (old, new))
        yield from _difference(key, *limits)
    for before, after in zip(old.groups, new.groups, strict=True):
        name = f"max_instances of group {before.name!r}"
        yield from _difference(name, before.max_instances, after.max_instances)


def _setting_changes(old: Settings, new: Settings) -> Iterator[str]:
    for field in fields(old):
        name = field.name
        before, after = getattr(old, name), getattr(new, name)
        if name in _NOT_SHOWN and before != after:
            yield name
        elif name not in _POLICIES:
            yield from _difference(name, before, after)


def _policy_changes(
    old: AutoscalerConfig, new: AutoscalerConfig, options: Sequence[str]
) -> Iterator[str]:
    """Yield the changes of each policy, by its place in the file."""
    # A policy that is always in force hides it.
    if not any(policy.always for policy in (*old.policy, *new.policy)):
        yield from _fields("default_policy", old.default_policy(), new.default_policy(), options)
    for index, (before, after) in enumerate(zip_longest(old.policy, new.policy)):
        # The periods tell an operator which one it is.
        name = f"policy[{index}] ({', '.join((after or before).periods)})"
        if before is None:
            yield f"{name} was added"
        elif after is None:
            yield f"{name} was removed"
        else:
            yield from _fields(name, before, after, options)


def _fields(name: str, old: Struct, new: Struct, options: Sequence[str]) -> Iterator[str]:
    changes = [
        change
        for key in old.__struct_fields__
        if key not in options
        for change in _difference(key, getattr(old, key), getattr(new, key))
    ]
    if changes:
        yield f"{name}: {', '.join(changes)}"


def _difference(name: str, old: Any, new: Any) -> Iterator[str]:
    if old != new:
        yield f"{name} {_text(old)} -> {_text(new)}"


def _text(value: Any) -> str:
    match value:
        case timedelta():
            return str(Duration(seconds=value.total_seconds()))
        case Enum():
            return str(value.value)
        case bool():
            return str(value).lower()
        case None | "":
            return "not set"
        case list():
            return ", ".join(map(str, cast("list[object]", value)))
        case _:
            return str(value)
