"""From the words on the command line, and the files, to everything that a run needs.

Whatever can be found wrong without starting anything is found here. There are
two places where an operator says where jobs run: the table `[autoscaler]` of a
file of jobs, for a run that comes and goes with its instances; and a
`config.toml`, which `--config` names, for instances that outlive the run. Both
become the same plan, and the command line wins over both.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from fleeting import Registry, decode, parse_assignments
from fleeting.errors import ConfigError
from fleeting.types import ConnectorSettings, Duration
from taskscaler.config import AutoscalerConfig, read_config
from taskscaler.jobs import Job, JobRun, OutputMode, check_writable, expand, read_jobs_file
from taskscaler.jobs.script import command_line

if TYPE_CHECKING:
    from datetime import timedelta

    from fleeting.abc import Provider
    from taskscaler.config import RunnerConfig, RunnerFile
    from taskscaler.core import Policy, Settings

__all__ = (
    "GroupPlan",
    "Options",
    "Plan",
    "State",
    "make_plan",
    "most_jobs",
    "plan_groups",
    "plan_settings",
    "state_of",
)

DEFAULT_PLUGIN = "local"
# A mistake in a file of jobs must not start a thousand instances.
DEFAULT_MAX_INSTANCES = 10
# Somebody waits for a run, and its instances are often there at once.
DEFAULT_EXPECTING_INTERVAL = Duration(milliseconds=200)
_COMMAND_NAME = "command"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options and arguments of `taskscaler run`; None is one that was not given."""

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
    """A group to open.

    Attributes:
        name: for messages.
        provider: opens it.
        plugin_config: what it is opened with.
        connector: how to reach its instances, where the operator knows better.
        max_instances: the most instances of this group; 0 is no limit of its own.
    """

    name: str
    provider: Provider
    plugin_config: Any
    connector: ConnectorSettings
    max_instances: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Where to keep what must survive a restart.

    Attributes:
        path: of the file.
        key_file: of the key that seals its secrets; None is one kept beside it.
    """

    path: Path
    key_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that a run needs, checked.

    Attributes:
        runs: of the jobs, in order.
        groups: to open, the preferred first.
        settings: of the scaler, but for the limits of groups, which have an id only when
            they are open.
        acquire_timeout: how long nothing may come of waiting for a slot.
        most_jobs: how many jobs may run at once, however many slots there are; 0 is no limit.
        state: where to keep what must survive; None keeps it in memory.
        runner: of the operator's file, as it was read last; None without one.
        opened: the same as it was when groups and state were opened.
        warnings: about that file, to be told.
        options: as they were given, to read the operator's file again by; None reads nothing.
        output: what becomes of the output of the jobs.
        report: where the report goes; None if there shall be none.
        keep_going: whether the jobs go on after one that did not succeed.
        timeout: for the whole run; None if it may take for ever.
    """

    runs: list[JobRun]
    groups: tuple[GroupPlan, ...]
    settings: Settings
    acquire_timeout: timedelta
    most_jobs: int = 0
    state: State | None = None
    runner: RunnerConfig | None = None
    opened: RunnerConfig | None = None
    warnings: tuple[str, ...] = ()
    options: Options | None = None
    output: OutputMode
    report: Path | None
    keep_going: bool
    timeout: timedelta | None


def make_plan(options: Options) -> Plan:
    """Read, merge and check everything that was given.

    Raises:
        ConfigError: something given is wrong.
        PluginError: a plugin is not there, or broken.
    """
    written, runs = _jobs(options)
    runner, file = _runner(options)
    config = written if runner is None or runner.autoscaler is None else runner.autoscaler
    groups = plan_groups(config, options)
    settings = plan_settings(config, options)
    if options.report is not None:
        check_writable(options.report)
    return Plan(
        runs=runs,
        groups=groups,
        settings=settings,
        acquire_timeout=config.acquire_timeout,
        most_jobs=0 if runner is None or file is None else most_jobs(file, runner),
        state=state_of(options, runner),
        runner=runner,
        opened=runner,
        warnings=() if file is None else file.warnings,
        options=options,
        output=OutputMode(options.output),
        report=options.report,
        keep_going=options.keep_going,
        timeout=options.timeout,
    )


def plan_groups(config: AutoscalerConfig, options: Options) -> tuple[GroupPlan, ...]:
    """Find the providers of all groups, and check what they are to be opened with.

    Raises:
        ConfigError: something given is wrong.
        PluginError: a plugin is not there, or broken.
    """
    entries = config.groups()
    if len(entries) > 1 and (options.plugin or options.plugin_config):
        raise ConfigError(
            f"{options.config or options.file}: it has {len(entries)} groups, and --plugin and "
            "--plugin-config cannot say which they mean; change the file instead"
        )
    registry = Registry()
    groups: list[GroupPlan] = []
    for entry in entries:
        plugin = options.plugin or entry.plugin or DEFAULT_PLUGIN
        # The settings of one plugin mean nothing to another.
        known = dict(entry.plugin_config) if plugin == (entry.plugin or plugin) else {}
        known |= parse_assignments(options.plugin_config, where="--plugin-config")
        provider = registry.provider(plugin)
        where = _where(options, entry.name if len(entries) > 1 else None)
        groups.append(
            GroupPlan(
                name=entry.name,
                provider=provider,
                plugin_config=decode(known, provider.config_type, where=where),
                connector=entry.connector,
                max_instances=entry.max_instances,
            )
        )
    return tuple(groups)


def _where(options: Options, group: str | None) -> str:
    """Name the place of a plugin's settings in messages."""
    if options.plugin_config:
        return "--plugin-config"
    table = "autoscaler" if options.config is None else "runners.autoscaler"
    place = f"extensions.group {group!r}: " if group is not None else ""
    return f"{options.config or options.file or '--plugin-config'}: {table}.{place}plugin_config"


def plan_settings(config: AutoscalerConfig, options: Options) -> Settings:
    """Return the scaler's settings: the command line's over the file's."""
    if options.config is None:
        config = _of_a_run(config)
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


def _of_a_run(config: AutoscalerConfig) -> AutoscalerConfig:
    """Put in what a run that comes and goes with its instances has as defaults."""
    most, expecting = config.max_instances, config.update_interval_when_expecting
    return replace(
        config,
        max_instances=DEFAULT_MAX_INSTANCES if most is None else most,
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


def most_jobs(file: RunnerFile, runner: RunnerConfig) -> int:
    """Return how many jobs may run at once; 0 is no limit."""
    return min((limit for limit in (file.concurrent, runner.limit) if limit), default=0)


def _runner(options: Options) -> tuple[RunnerConfig | None, RunnerFile | None]:
    if options.config is None:
        if options.runner is not None:
            raise ConfigError(
                f"--runner {options.runner} names a runner of a file, but no file is given; "
                "add --config FILE"
            )
        return None, None
    file = read_config(options.config)
    return file.runner(options.runner), file


def state_of(options: Options, runner: RunnerConfig | None) -> State | None:
    """Return where to keep the state; None if it is not to be kept.

    Raises:
        ConfigError: it is to be kept, and nothing names it.
    """
    if runner is None or runner.autoscaler is None or options.config is None:
        return None if options.state is None else State(path=options.state)
    key_file = runner.autoscaler.extensions.state_key_file
    if key_file is not None:
        key_file = options.config.parent / key_file
    path = options.state or runner.state_path(options.config)
    if path is not None:
        return State(path=path, key_file=key_file)
    if runner.autoscaler.state_storage.enabled is False:
        return None
    raise ConfigError(
        f"{options.config}: nothing names the state of this runner over a restart; write "
        'id = "a name that never changes" into [runners.autoscaler.extensions], or give '
        "--state, or, to keep none, write enabled = false into [runners.autoscaler.state_storage]"
    )


def _jobs(options: Options) -> tuple[AutoscalerConfig, list[JobRun]]:
    config, runs = _read_jobs(options)
    if config.delete_instances_on_shutdown is False:
        raise ConfigError(
            f"{options.file}: autoscaler.delete_instances_on_shutdown: a run always removes its "
            "instances at its end, unless a file that --config names says otherwise; remove the key"
        )
    return config, runs


def _read_jobs(options: Options) -> tuple[AutoscalerConfig, list[JobRun]]:
    if options.file is not None and options.command is not None:
        raise ConfigError(
            f"both a file ({options.file}) and a command after -- are given; give one of them"
        )
    if options.file is not None:
        if options.count is not None:
            raise ConfigError(
                f"--count is for a command after --; write count = {options.count} into the jobs "
                f"of {options.file}"
            )
        return read_jobs_file(options.file, autoscaler=options.config is None)
    if not options.command:
        raise ConfigError(
            "nothing to run is given; name a file of jobs, or write -- and a command after it"
        )
    job = Job(name=_COMMAND_NAME, script=[command_line(options.command)], count=options.count or 1)
    return AutoscalerConfig(), expand([job], Path(), where="--")
