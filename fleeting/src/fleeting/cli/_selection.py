"""How a command line selects a group: by a plugin, or by a runner of a config file."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    from fleeting.abc import Provider
    from fleeting.types import ConnectorSettings, GroupSettings

    F = TypeVar("F", bound=Callable[..., Any])

__all__ = (
    "GroupSelection",
    "connector_option",
    "file_options",
    "plugin_config_option",
    "select_group",
)


@dataclass(frozen=True, slots=True)
class GroupSelection:
    """The group that a command is about, not yet opened.

    Attributes:
        label: its name in messages until its id is known.
        provider: opens it.
        config: what to open it with; may hold secrets.
        settings: what the provider is told about the group.
        options: the command-line options that select it, for commands in messages; values of
            plugin settings are left out, because they may be secrets.
    """

    label: str
    provider: Provider
    config: Any
    settings: GroupSettings
    options: str


def plugin_config_option(command: F) -> F:
    """Add the option for settings of the plugin."""
    return click.option(
        "--plugin-config",
        metavar="KEY=VALUE",
        multiple=True,
        help="Set a key of plugin_config; repeatable.",
    )(command)


def connector_option(command: F) -> F:
    """Add the option for settings of the connector."""
    return click.option(
        "--connector-config",
        metavar="KEY=VALUE",
        multiple=True,
        help="Set a key of connector_config, such as username=ada; repeatable.",
    )(command)


def file_options(command: F) -> F:
    """Add the options that select a group of a config file."""
    command = click.option(
        "--runner",
        metavar="NAME",
        help="Select a runner of the file, or RUNNER/GROUP if it has several groups.  "
        "[default: the only one]",
    )(command)
    return click.option(
        "-c",
        "--config",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Read the group from a config.toml.",
    )(command)


def select_group(options: Mapping[str, Any], *, plugin_syntax: str) -> GroupSelection:
    """Return the group that the options select.

    Args:
        options: by their names: `plugin`, `plugin_config`, `config`, `runner`, and perhaps
            `connector_config`.
        plugin_syntax: how this command names a plugin, for messages.

    Raises:
        UsageError: the options select no group, or contradict each other.
        ConfigError: a value is wrong.
        PluginError: the plugin is not installed, or is broken.
    """
    plugin: str | None = options["plugin"]
    config: Path | None = options["config"]
    if plugin is not None and config is not None:
        raise click.UsageError(f"got both a plugin ({plugin}) and a config file ({config})")
    if plugin is None and config is None:
        raise click.UsageError(
            f"no group given; use {plugin_syntax} with --plugin-config KEY=VALUE, or "
            "-c config.toml with --runner NAME"
        )
    if config is not None and options["plugin_config"]:
        raise click.UsageError(
            f"--plugin-config cannot be combined with a config file ({config}); change the "
            f"file, or use {plugin_syntax} instead of it"
        )
    if config is None and options["runner"] is not None:
        raise click.UsageError(f"--runner {options['runner']} needs a config file; add -c FILE")
    connector = options.get("connector_config", ())
    if config is not None:
        return _from_file(config, options["runner"], connector)
    return _from_plugin(str(plugin), options["plugin_config"], connector)


def _from_plugin(
    name: str, assignments: tuple[str, ...], connector: tuple[str, ...]
) -> GroupSelection:
    # Imported late, so that --help stays fast.
    from fleeting._decoding import parse_assignments
    from fleeting._plugin_import import open_settings, use_provider
    from fleeting._registry import Registry
    from fleeting.types import ConnectorSettings, GroupSettings

    provider = use_provider(Registry(), name)
    values = parse_assignments(assignments, where="--plugin-config")
    config = open_settings(values, provider, where="--plugin-config")
    settings = GroupSettings(connector=_connector(ConnectorSettings(), connector))
    given = [f"--plugin-config {one.partition('=')[0]}=..." for one in assignments]
    shown = " ".join([f"--plugin {provider.name}", *given])
    return GroupSelection(f"plugin {provider.name}", provider, config, settings, shown)


def _from_file(path: Path, runner: str | None, connector: tuple[str, ...]) -> GroupSelection:
    from fleeting._config import choose_group, configured_groups
    from fleeting._plugin_import import open_settings, use_provider
    from fleeting._registry import Registry
    from fleeting.errors import ConfigError, PluginMismatch, PluginNotFound
    from fleeting.types import GroupSettings

    found = choose_group(path, configured_groups(path), runner)
    if not found.entry.plugin:
        table = found.where.removesuffix("_config")
        raise ConfigError(f'{table}: no plugin given; add a line such as plugin = "aws"')
    try:
        provider = use_provider(Registry(), found.entry.plugin)
    except (PluginMismatch, PluginNotFound) as error:
        raise ConfigError(f"{found.where.removesuffix('_config')}: {error}") from error
    config = open_settings(found.entry.plugin_config, provider, where=found.where)
    settings = GroupSettings(found.maximum, _connector(found.entry.connector, connector))
    shown = f"-c {shlex.quote(str(path))}"
    shown += f" --runner {shlex.quote(runner)}" if runner is not None else ""
    return GroupSelection(f"runner {found.label}", provider, config, settings, shown)


def _connector(settings: ConnectorSettings, assignments: tuple[str, ...]) -> ConnectorSettings:
    """Return the settings with those of the command line in place of the file's."""
    if not assignments:
        return settings
    from dataclasses import fields, replace

    from fleeting._config import ConnectorConfig
    from fleeting._decoding import decode, parse_assignments
    from fleeting.types import ConnectorSettings

    where = "--connector-config"
    values = parse_assignments(assignments, where=where)
    given, unset = decode(values, ConnectorConfig, where=where).settings(), ConnectorSettings()
    pairs = ((one.name, getattr(given, one.name)) for one in fields(given))
    return replace(
        settings, **{name: value for name, value in pairs if value != getattr(unset, name)}
    )
