"""From the words on the command line, and the file, to everything that a run needs.

Whatever can be found wrong without starting anything is found here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from fleeting.config import decode, parse_assignments
from fleeting.errors import ConfigError
from fleeting.registry import Registry
from fleeting.types import ConnectorSettings, Duration
from taskscaler.config import AutoscalerConfig
from taskscaler.jobs import Job, JobRun, OutputMode, check_writable, expand, read_jobs_file
from taskscaler.jobs.script import command_line

if TYPE_CHECKING:
    from datetime import timedelta

    from fleeting.abc import Provider
    from taskscaler.core.settings import Settings

__all__ = ("Options", "Plan", "make_plan")

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
class Plan:
    """Everything that a run needs, checked.

    Attributes:
        runs: of the jobs, in order.
        provider: opens the group of instances.
        plugin_config: what it is opened with.
        settings: of the scaler.
        connector: how to reach the instances, where the operator knows better.
        acquire_timeout: how long nothing may come of waiting for a slot.
        output: what becomes of the output of the jobs.
        report: where the report goes; None if there shall be none.
        keep_going: whether the jobs go on after one that did not succeed.
        timeout: for the whole run; None if it may take for ever.
    """

    runs: list[JobRun]
    provider: Provider
    plugin_config: Any
    settings: Settings
    connector: ConnectorSettings
    acquire_timeout: timedelta
    output: OutputMode
    report: Path | None
    keep_going: bool
    timeout: timedelta | None


def make_plan(options: Options) -> Plan:
    """Read, merge and check everything that was given.

    Raises:
        ConfigError: something given is wrong.
        PluginError: the plugin is not there, or broken.
    """
    config, runs = _jobs(options)
    source = str(options.file) if options.file else "--plugin-config"
    if config.delete_instances_on_shutdown is False:
        raise ConfigError(
            f"{source}: autoscaler.delete_instances_on_shutdown: a run always removes its "
            "instances at its end; remove the key"
        )
    config = _merged(config, options)
    provider = Registry().provider(config.plugin)
    where = "--plugin-config" if options.plugin_config else f"{source}: autoscaler.plugin_config"
    plugin_config = decode(config.plugin_config, provider.config_type, where=where)
    if options.report is not None:
        check_writable(options.report)
    return Plan(
        runs=runs,
        provider=provider,
        plugin_config=plugin_config,
        settings=config.settings(),
        connector=config.connector_config.settings(),
        acquire_timeout=config.acquire_timeout,
        output=OutputMode(options.output),
        report=options.report,
        keep_going=options.keep_going,
        timeout=options.timeout,
    )


def _jobs(options: Options) -> tuple[AutoscalerConfig, list[JobRun]]:
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
        return read_jobs_file(options.file)
    if not options.command:
        raise ConfigError(
            "nothing to run is given; name a file of jobs, or write -- and a command after it"
        )
    job = Job(name=_COMMAND_NAME, script=[command_line(options.command)], count=options.count or 1)
    return AutoscalerConfig(), expand([job], Path(), where="--")


def _merged(config: AutoscalerConfig, options: Options) -> AutoscalerConfig:
    """Return the file's settings, with the command line's over them and a run's defaults below."""
    plugin = options.plugin or config.plugin or DEFAULT_PLUGIN
    # The settings of one plugin mean nothing to another.
    plugin_config = dict(config.plugin_config) if plugin == (config.plugin or plugin) else {}
    plugin_config |= parse_assignments(options.plugin_config, where="--plugin-config")
    idle = {"idle_count": options.idle_count, "idle_time": options.idle_time}
    idle = {name: value for name, value in idle.items() if value is not None}
    default_policy = replace(config.default_policy(), **idle)
    max_instances = _first(options.max_instances, config.max_instances, DEFAULT_MAX_INSTANCES)
    return replace(
        config,
        plugin=plugin,
        plugin_config=plugin_config,
        capacity_per_instance=_first(options.capacity_per_instance, config.capacity_per_instance),
        max_instances=max_instances,
        max_use_count=_first(options.max_use_count, config.max_use_count),
        delete_instances_on_shutdown=True,
        update_interval_when_expecting=_first(
            config.update_interval_when_expecting, DEFAULT_EXPECTING_INTERVAL
        ),
        policy=[replace(policy, **idle) for policy in config.policy],
        extensions=replace(config.extensions, default_policy=default_policy),
    )


def _first(*values: Any) -> Any:
    """Return the first value that was given at all."""
    return next(value for value in values if value is not None)
