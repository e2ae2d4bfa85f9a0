"""Turns the command line and the files into a plan of the run, and checks it completely.

An operator configures where jobs run in one of two places: the table `[autoscaler]`
of a jobs file, if the instances exist only for this run; or a `config.toml` given
with `--config`, if they outlive it. Both become the same plan, and options of the
command line override both.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from dataclasses import replace as changed
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from fleeting import Registry, open_settings, parse_assignments, parse_reference, use_provider
from fleeting.errors import ConfigError, PluginMismatch, PluginNotFound
from fleeting.types import ConnectorSettings, Duration
from taskscaler._errors import StoreError
from taskscaler.config import AutoscalerConfig, read_config
from taskscaler.jobs.job import Job, expand
from taskscaler.jobs.jobs_file import read_jobs_file
from taskscaler.jobs.output import OutputMode
from taskscaler.jobs.report import check_report_path
from taskscaler.jobs.script import command_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import timedelta

    from fleeting import GroupConfigEntry
    from fleeting.abc import Provider
    from taskscaler.config import RunnerConfig, RunnerFile
    from taskscaler.core import Policy, Settings
    from taskscaler.jobs.job import JobRun

__all__ = (
    "GroupPlan",
    "Options",
    "Plan",
    "StateFile",
    "job_limits",
    "make_plan",
    "plan_groups",
    "plan_settings",
    "state_file",
)

DEFAULT_PLUGIN = "local"
# A mistake in a jobs file must not start a thousand instances.
DEFAULT_MAX_INSTANCES = 10
# A user is waiting, and local instances start quickly.
DEFAULT_EXPECTING_INTERVAL = Duration(milliseconds=200)
_COMMAND_NAME = "command"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options and arguments of `taskscaler run`; None if not given."""

    command: tuple[str, ...] | None
    file: Path | None
    config: Path | None
    runner: str | None
    state: Path | None
    plugin: str | None
    plugin_config: tuple[str, ...]
    capacity_per_instance: int | None
    max_instances: int | None
    max_use_count: int | None
    idle_count: int | None
    idle_time: Duration | None
    count: int | None
    output: str
    report: Path | None
    keep_going: bool
    timeout: timedelta | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPlan:
    """An instance group to open.

    Attributes:
        name: for messages.
        provider: opens the group.
        plugin_config: the settings of the plugin.
        connector: the operator's settings for connecting to its instances.
        max_instances: the limit of this group; 0 is unlimited.
    """

    name: str
    provider: Provider
    plugin_config: Any
    connector: ConnectorSettings
    max_instances: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StateFile:
    """Where to keep the state that must survive a restart.

    Attributes:
        path: of the file.
        key_file: the file with the key that seals its secrets; None is one next to it.
    """

    path: Path
    key_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A checked plan of a run.

    Attributes:
        runs: of the jobs, in order.
        groups: to open, in order of preference.
        settings: of the scaler, without the limits of groups: their ids are known only after
            they are opened.
        acquire_timeout: how long a job waits for a slot.
        job_limits: how many jobs may run at the same time, by the keys that say so.
        state: where to keep the state; None keeps it in memory.
        runner: the runner in the config.toml, as it was read last; None without --config.
        opened: the same runner as it was when groups and state were opened.
        warnings: about the config.toml.
        options: the options of the command, to reload the config.toml; None never reloads.
        output: how to show the output of the jobs.
        report: where to write the report; None writes none.
        keep_going: whether to go on after a job that did not succeed.
        timeout: for the whole run; None is unlimited.
    """

    runs: list[JobRun]
    groups: tuple[GroupPlan, ...]
    settings: Settings
    acquire_timeout: timedelta
    job_limits: Mapping[str, int] = field(default_factory=dict[str, int])
    state: StateFile | None = None
    runner: RunnerConfig | None = None
    opened: RunnerConfig | None = None
    warnings: tuple[str, ...] = ()
    options: Options | None = None
    output: OutputMode
    report: Path | None
    keep_going: bool
    timeout: timedelta | None


def make_plan(options: Options) -> Plan:
    """Read, merge and check the options and files.

    Raises:
        ConfigError: an option or a file is invalid.
        PluginError: a plugin is not installed, or cannot be loaded.
    """
    from_jobs_file, runs = _jobs(options)
    runner, file = _runner(options)
    config = from_jobs_file if runner is None or runner.autoscaler is None else runner.autoscaler
    groups = plan_groups(config, options)
    settings = plan_settings(config, options)
    report = None if options.report is None else check_report_path(options.report)
    return Plan(
        runs=runs,
        groups=groups,
        settings=settings,
        acquire_timeout=config.acquire_timeout,
        job_limits={} if runner is None or file is None else job_limits(file, runner),
        state=_checked(state_file(options, runner)),
        runner=runner,
        opened=runner,
        warnings=(*(() if file is None else file.warnings), *_unused(config, options)),
        options=options,
        output=OutputMode(options.output),
        report=report,
        keep_going=options.keep_going,
        timeout=options.timeout,
    )


def plan_groups(config: AutoscalerConfig, options: Options) -> tuple[GroupPlan, ...]:
    """Find the providers of all groups, and check their settings.

    Raises:
        ConfigError: a setting is invalid.
        PluginError: a plugin is not installed, or cannot be loaded.
    """
    entries = config.groups()
    if len(entries) > 1 and (options.plugin or options.plugin_config):
        raise ConfigError(
            f"{options.config or options.file}: --plugin and --plugin-config are not possible with "
            f"{len(entries)} groups; change the file instead"
        )
    registry = Registry()
    groups: list[GroupPlan] = []
    for in_file in entries:
        plugin = options.plugin or in_file.plugin or DEFAULT_PLUGIN
        entry = _with_plugin(in_file, plugin)
        known = dict(entry.plugin_config)
        known |= parse_assignments(options.plugin_config, where="--plugin-config")
        place = _place(options, entry.name if len(entries) > 1 else None)
        provider = _provider(registry, plugin, entry, place, options.timeout)
        where = "--plugin-config" if options.plugin_config else f"{place}plugin_config"
        groups.append(
            GroupPlan(
                name=entry.name,
                provider=provider,
                plugin_config=open_settings(known, provider, where=where),
                connector=entry.connector,
                max_instances=entry.max_instances,
            )
        )
    return tuple(groups)


def _with_plugin(entry: GroupConfigEntry, plugin: str) -> GroupConfigEntry:
    """Return a group of the file, without the settings of its plugin if that is another one."""
    if not _replaces(plugin, entry):
        return entry
    # How to create instances and how to log in to them is different for another plugin.
    return changed(entry, plugin_config={}, connector=ConnectorSettings())


def _replaces(plugin: str | None, entry: GroupConfigEntry) -> bool:
    """Return whether an option names a different plugin than the file, in any spelling."""
    if not plugin or not entry.plugin or plugin == entry.plugin:
        return False
    return parse_reference(plugin).name != parse_reference(entry.plugin).name


def _unused(config: AutoscalerConfig, options: Options) -> Iterator[str]:
    """Yield a warning if settings of the file are not used because of `--plugin`."""
    for entry in config.groups():
        found = {
            "plugin_config": bool(entry.plugin_config),
            "connector_config": entry.connector != ConnectorSettings(),
        }
        names = " and ".join(name for name, given in found.items() if given)
        if names and _replaces(options.plugin, entry):
            yield (
                f"{_place(options, None).removesuffix('.')}: --plugin {options.plugin} replaces "
                f"the plugin {entry.plugin!r}; not used: {names} of the file"
            )


def _provider(
    registry: Registry,
    plugin: str,
    entry: GroupConfigEntry,
    place: str,
    timeout: timedelta | None,
) -> Provider:
    """Return the provider of a group, and refuse a connector that cannot work."""
    try:
        registry.check_connector(entry.connector)
    except ConfigError as error:
        raise ConfigError(f"{place}{error}") from error
    try:
        return use_provider(registry, plugin, timeout=timeout)
    except (PluginMismatch, PluginNotFound) as error:
        if plugin != entry.plugin:
            raise  # An option named it, or it is the default.
        raise ConfigError(f"{place}plugin: {error}") from error


def _place(options: Options, group: str | None) -> str:
    """Return the table in which a group is configured, for messages that add a key to it."""
    table = "autoscaler" if options.config is None else "runners.autoscaler"
    runner = f"runner {options.runner!r}: " if options.runner is not None else ""
    place = f"extensions.group {group!r}: " if group is not None else ""
    return f"{options.config or options.file or '--plugin-config'}: {runner}{table}.{place}"


def plan_settings(config: AutoscalerConfig, options: Options) -> Settings:
    """Return the scaler's settings; options of the command line override the file."""
    if options.config is None:
        config = _with_run_defaults(config)
    settings = config.settings()
    given = {
        name: value
        for name in ("capacity_per_instance", "max_instances", "max_use_count")
        if (value := getattr(options, name)) is not None
    }
    schedule = tuple(
        changed(one, policy=_with_idle(one.policy, options)) for one in settings.schedule
    )
    return changed(
        settings, **given, policy=_with_idle(settings.policy, options), schedule=schedule
    )


def _with_run_defaults(config: AutoscalerConfig) -> AutoscalerConfig:
    """Set the defaults of a run whose instances exist only for it."""
    maximum, expecting = config.max_instances, config.update_interval_when_expecting
    return replace(
        config,
        max_instances=DEFAULT_MAX_INSTANCES if maximum is None else maximum,
        update_interval_when_expecting=expecting or DEFAULT_EXPECTING_INTERVAL,
        delete_instances_on_shutdown=True,
    )


def _with_idle(policy: Policy, options: Options) -> Policy:
    given = {
        name: value
        for name in ("idle_count", "idle_time")
        if (value := getattr(options, name)) is not None
    }
    return changed(policy, **given) if given else policy


def job_limits(file: RunnerFile, runner: RunnerConfig) -> dict[str, int]:
    """Return how many jobs may run at the same time, by the keys that limit it."""
    limits = {"concurrent": file.concurrent, "limit": runner.limit}
    return {key: limit for key, limit in limits.items() if limit}


def _runner(options: Options) -> tuple[RunnerConfig | None, RunnerFile | None]:
    if options.config is None:
        if options.runner is not None:
            raise ConfigError(
                f"--runner {options.runner} selects a runner of a config.toml; add --config FILE"
            )
        return None, None
    file = read_config(options.config)
    return file.runner(options.runner), file


def state_file(options: Options, runner: RunnerConfig | None) -> StateFile | None:
    """Return where to keep the state; None keeps it in memory."""
    if runner is None or runner.autoscaler is None or options.config is None:
        return None if options.state is None else StateFile(path=options.state)
    path = options.state or runner.state_path(options.config)
    if path is None:
        return None
    return StateFile(path=path, key_file=runner.state_key_path(options.config))


def _checked(state: StateFile | None) -> StateFile | None:
    """Check that the state file is none of another program.

    Raises:
        ConfigError: it is.
    """
    if state is None:
        return None
    from taskscaler.storage._sqlite import check_state_file

    try:
        check_state_file(state.path)
    except StoreError as error:
        raise ConfigError(str(error)) from error
    return state


def _jobs(options: Options) -> tuple[AutoscalerConfig, list[JobRun]]:
    config, runs = _read_jobs(options)
    if config.delete_instances_on_shutdown is False:
        raise ConfigError(
            f"{options.file}: autoscaler.delete_instances_on_shutdown: must not be false without "
            "--config, because the run removes its instances at the end; remove the key"
        )
    return config, runs


def _read_jobs(options: Options) -> tuple[AutoscalerConfig, list[JobRun]]:
    if options.file is not None and options.command is not None:
        raise ConfigError(
            f"both a jobs file ({options.file}) and a command after -- are given; use only one"
        )
    if options.file is not None:
        if options.count is not None:
            raise ConfigError(
                f"--count applies only to a command after --; set count = {options.count} for the "
                f"jobs in {options.file} instead"
            )
        return read_jobs_file(options.file, autoscaler=options.config is None)
    if not options.command:
        raise ConfigError("nothing to run; give a jobs file, or -- and a command")
    job = Job(name=_COMMAND_NAME, script=[command_line(options.command)], count=options.count or 1)
    return AutoscalerConfig(), expand([job], Path(), where="--count")
