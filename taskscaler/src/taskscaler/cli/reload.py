"""Notices that the operator's file has changed, and finds out what that means for a run.

The file is looked at once a second, and read when it looks the same twice in a
row: an editor may be in the middle of writing it. That costs one `stat` and
works on every file system, also over a network, where notifications do not.

Most settings take effect at once. A few are built into the slots, the groups or
the state, and stay as they are until the command is started anew, which is said
loudly. A file with mistakes changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from fleeting.types import Duration
from taskscaler.cli.plan import most_jobs, plan_settings, state_of
from taskscaler.config import read_config
from taskscaler.core import Policy

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from pathlib import Path

    from taskscaler.cli.plan import GroupPlan, Options, Plan
    from taskscaler.config import AutoscalerConfig, RunnerConfig
    from taskscaler.core import Settings

__all__ = ("Reread", "file_changes", "reread")

_LOOK_SECONDS = 1.0
# The core refuses to change these: slots and use counts are made of them.
_FIXED = ("capacity_per_instance", "max_use_count", "placement")
# Their values may be long, or hold what nobody else should see.
_NOT_SHOWN = frozenset({"instance_ready_command", "schedule"})
_WORDS = {"schedule": "the policies with periods"}


@dataclass(frozen=True, slots=True)
class Reread:
    """What a changed file means.

    Attributes:
        plan: the new one; what cannot change is as before.
        changes: what takes effect, for people.
        kept: what does not, for people.
        warnings: about the file, that were not told before.
    """

    plan: Plan
    changes: tuple[str, ...]
    kept: tuple[str, ...]
    warnings: tuple[str, ...]


async def file_changes(path: Path) -> AsyncGenerator[None]:
    """Yield at first, and then each time that a file was changed and is at rest again."""
    yielded = before = await _look(path)
    yield
    while True:
        await anyio.sleep(_LOOK_SECONDS)
        now = await _look(path)
        if now == before != yielded:
            yielded = now
            yield
        before = now


async def _look(path: Path) -> tuple[int, ...] | None:
    try:
        facts = await anyio.Path(path).stat()
    except OSError:
        return None  # Whoever reads it will say so.
    return facts.st_dev, facts.st_ino, facts.st_mtime_ns, facts.st_size


async def reread(plan: Plan) -> Reread | None:
    """Read the operator's file again; None if it says the same as before.

    Raises:
        ConfigError: it has mistakes; nothing is to be changed.
    """
    return await anyio.to_thread.run_sync(_reread, plan)


def _reread(plan: Plan) -> Reread | None:
    options, opened = plan.options, plan.opened
    if options is None or options.config is None or opened is None or opened.autoscaler is None:
        return None
    file = read_config(options.config)
    runner = file.runner(options.runner)
    same = runner == plan.runner and most_jobs(file, runner) == plan.most_jobs
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
        most_jobs=most_jobs(file, runner),
        runner=runner,
        warnings=file.warnings,
    )
    warnings = tuple(one for one in file.warnings if one not in plan.warnings)
    return Reread(new, tuple(_changes(plan, new)), tuple(kept), warnings)


def _kept(
    options: Options,
    old: RunnerConfig,
    new: RunnerConfig,
    before: AutoscalerConfig,
    after: AutoscalerConfig,
) -> Iterator[str]:
    """Find what belongs to the groups and the state, which are open."""
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
    if old.identity() != new.identity() or state_of(options, old) != state_of(options, new):
        yield "the place of the state (id, state_storage)"


def _limited(groups: tuple[GroupPlan, ...], config: AutoscalerConfig) -> tuple[GroupPlan, ...]:
    """Return the same groups with their new limits."""
    limits = {entry.name: entry.max_instances for entry in config.groups()}
    return tuple(
        replace(group, max_instances=limits.get(group.name, group.max_instances))
        for group in groups
    )


def _changes(old: Plan, new: Plan) -> Iterator[str]:
    yield from _differences(old.settings, new.settings, "")
    yield from _difference("instance_acquire_timeout", old.acquire_timeout, new.acquire_timeout)
    before_and_after = (plan.most_jobs or "no limit" for plan in (old, new))
    yield from _difference("concurrent or limit", *before_and_after)
    for before, after in zip(old.groups, new.groups, strict=True):
        name = f"max_instances of group {before.name!r}"
        yield from _difference(name, before.max_instances, after.max_instances)


def _differences(old: Settings | Policy, new: Settings | Policy, prefix: str) -> Iterator[str]:
    for field in fields(old):
        name = field.name
        before, after = getattr(old, name), getattr(new, name)
        if isinstance(before, Policy) and isinstance(after, Policy):
            yield from _differences(before, after, f"{name}.")
        elif name in _NOT_SHOWN and before != after:
            yield _WORDS.get(name, name)
        else:
            yield from _difference(f"{prefix}{name}", before, after)


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
        case _:
            return str(value)
