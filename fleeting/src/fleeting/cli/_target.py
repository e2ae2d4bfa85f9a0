"""The one way to name a group on a command line: with a plugin, or with a file."""

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

__all__ = ("Target", "connector_option", "file_options", "find_target", "plugin_config_option")


@dataclass(frozen=True, slots=True)
class Target:
    """A group that somebody named, not yet opened.

    Attributes:
        label: what to call it before its id is known.
        provider: opens it.
        config: what to open it with; may hold secrets.
        settings: what the provider may know.
        words: what names it on a command line, for a command that is told to somebody; the
            settings of a plugin may hold secrets, so of those only the keys.
    """

    label: str
    provider: Provider
    config: Any
    settings: GroupSettings
    words: str


def plugin_config_option(command: F) -> F:
    """Add the option for a setting of the plugin."""
    return click.option(
        "--plugin-config",
        metavar="KEY=VALUE",
        multiple=True,
        help="A setting of the plugin; repeatable.",
    )(command)


def connector_option(command: F) -> F:
    """Add the option for how to reach instances."""
    return click.option(
        "--connector-config",
        metavar="KEY=VALUE",
        multiple=True,
        help="How to reach instances, such as username=ada; repeatable.",
    )(command)


def file_options(command: F) -> F:
    """Add the options that name a group of a file."""
    command = click.option(
        "--runner",
        metavar="NAME",
        help="Which runner of the file, as RUNNER/GROUP if it has several groups.  "
        "[default: the only one]",
    )(command)
    return click.option(
        "-c",
        "--config",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="A config.toml that names the group.",
    )(command)


def find_target(words: Mapping[str, Any], *, name: str = "--plugin NAME") -> Target:
    """Return the group that the options mean.

    Args:
        words: the options by their names: `plugin`, `plugin_config`, `config`, `runner`, and
            perhaps `connector_config`.
        name: how the plugin is named, for messages.

    Raises:
        UsageError: there is no group named, or in two ways at once.
        ConfigError: something given is wrong.
        PluginError: the plugin is not there, or broken.
    """
    plugin: str | None = words["plugin"]
    config: Path | None = words["config"]
    if plugin is not None and config is not None:
        raise click.UsageError(
            f"both a plugin ({plugin}) and a file ({config}) are given; give one of them"
        )
    if plugin is None and config is None:
        raise click.UsageError(
            f"no group is named; give {name} with its --plugin-config KEY=VALUE, or "
            "-c config.toml with --runner NAME"
        )
    if config is not None and words["plugin_config"]:
        raise click.UsageError(
            f"--plugin-config belongs to a plugin, and a file ({config}) is given; change the "
            "file, or name the plugin instead"
        )
    if config is None and words["runner"] is not None:
        raise click.UsageError(
            f"--runner {words['runner']} names a runner of a file, but no file is given; "
            "add -c FILE"
        )
    connector = words.get("connector_config", ())
    if config is not None:
        return _of_a_file(config, words["runner"], connector)
    return _of_a_plugin(str(plugin), words["plugin_config"], connector)


def _of_a_plugin(name: str, assignments: tuple[str, ...], connector: tuple[str, ...]) -> Target:
    # Imported late: the help must not pay for it.
    from fleeting._decoding import decode, parse_assignments
    from fleeting._registry import Registry
    from fleeting.types import ConnectorSettings, GroupSettings

    provider = Registry().provider(name)
    words = parse_assignments(assignments, where="--plugin-config")
    config = decode(words, provider.config_type, where="--plugin-config")
    settings = GroupSettings(connector=_connector(ConnectorSettings(), connector))
    # Whoever reads them has just typed the values.
    given = [f"--plugin-config {one.partition('=')[0]}=..." for one in assignments]
    named = " ".join([f"--plugin {provider.name}", *given])
    return Target(f"plugin {provider.name}", provider, config, settings, named)


def _of_a_file(path: Path, runner: str | None, connector: tuple[str, ...]) -> Target:
    from fleeting._config import choose_group, configured_groups
    from fleeting._decoding import decode
    from fleeting._registry import Registry
    from fleeting.errors import ConfigError
    from fleeting.types import GroupSettings

    found = choose_group(path, configured_groups(path), runner)
    if not found.entry.plugin:
        table = found.where.removesuffix("_config")
        raise ConfigError(f'{table}: no plugin is named; write for instance plugin = "aws"')
    provider = Registry().provider(found.entry.plugin)
    config = decode(found.entry.plugin_config, provider.config_type, where=found.where)
    settings = GroupSettings(found.maximum, _connector(found.entry.connector, connector))
    named = f"-c {shlex.quote(str(path))}"
    named += f" --runner {shlex.quote(runner)}" if runner is not None else ""
    return Target(f"runner {found.label}", provider, config, settings, named)


def _connector(settings: ConnectorSettings, assignments: tuple[str, ...]) -> ConnectorSettings:
    """Return settings in which what the command line says has won."""
    if not assignments:
        return settings
    from dataclasses import fields, replace

    from fleeting._config import ConnectorConfig
    from fleeting._decoding import decode, parse_assignments
    from fleeting.types import ConnectorSettings

    where = "--connector-config"
    said = decode(parse_assignments(assignments, where=where), ConnectorConfig, where=where)
    own, nothing = said.settings(), ConnectorSettings()
    names = [one.name for one in fields(own)]
    given = {name: getattr(own, name) for name in names}
    return replace(
        settings, **{k: value for k, value in given.items() if value != getattr(nothing, k)}
    )
