"""Which groups a `config.toml` names: of each runner, with all that each group inherits.

A file is GitLab Runner's, and most of it is about something else: what is read here is
`[[runners]]` with its `[autoscaler]`, and of that the plugin, its settings, the connector's,
and the list of several groups. The other keys are `taskscaler config check`'s to judge.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import asdict, replace

from fleeting._config import ConnectorConfig, GroupConfig, examine, read_toml
from fleeting._references import parse_reference
from fleeting.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from fleeting._references import PluginReference
    from fleeting.types import ConnectorSettings

__all__ = (
    "ConfiguredGroup",
    "GroupConfigEntry",
    "GroupEntryConfig",
    "choose_group",
    "configured_groups",
    "group_entries",
    "plugin_references",
)


class GroupEntryConfig(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """`[[extensions.group]]`: one of several groups, the preferred first.

    Attributes:
        name: for messages; by default the number of the entry.
        plugin: the name of an installed plugin; by default that of the autoscaler.
        plugin_config: keys that differ from those of the autoscaler, if that has the
            same plugin; else all keys.
        connector_config: keys that differ from those of the autoscaler.
        max_instances: the most instances of this group; 0 is no limit of its own.
    """

    name: str = ""
    plugin: str = ""
    plugin_config: dict[str, Any] = {}
    connector_config: ConnectorConfig = ConnectorConfig()
    max_instances: int = 0

    def __repr__(self) -> str:
        """Show nothing of `plugin_config`, which may hold secrets."""
        return f"GroupEntryConfig(name={self.name!r}, plugin={self.plugin!r}, ...)"


@dataclass(frozen=True, slots=True)
class GroupConfigEntry:
    """A group to open, with all that it inherits.

    Attributes:
        name: for messages, unique among the groups of an autoscaler.
        plugin: the name of a plugin; empty if the file names none.
        plugin_config: what to open the group with; may hold secrets.
        connector: how to reach its instances, where the operator knows better.
        max_instances: the most instances of this group; 0 is no limit of its own.
    """

    name: str
    plugin: str
    plugin_config: Mapping[str, Any] = field(repr=False)
    connector: ConnectorSettings
    max_instances: int = 0


@dataclass(frozen=True, slots=True)
class ConfiguredGroup:
    """A group of one runner of a file.

    Attributes:
        runner: the name of the runner; may be empty.
        entry: what to open.
        is_only: whether the runner has no other group.
        where: names the table of the plugin's settings in messages.
        maximum: how many instances will be asked for at most; None if unlimited.
    """

    runner: str
    entry: GroupConfigEntry
    is_only: bool
    where: str
    maximum: int | None = None

    @property
    def label(self) -> str:
        """Return what people call it: the runner, and the group if there are several."""
        return self.runner if self.is_only else f"{self.runner}/{self.entry.name}"


def group_entries(
    config: GroupConfig, entries: Sequence[GroupEntryConfig]
) -> tuple[GroupConfigEntry, ...]:
    """Return the groups of an autoscaler, the preferred first.

    Args:
        config: the autoscaler's own words, which each entry inherits.
        entries: the list of several groups; empty if there is just the one.
    """
    if not entries:
        connector = config.connector_config.settings()
        return (GroupConfigEntry("1", config.plugin, config.plugin_config, connector),)
    return tuple(_inherited(config, entry, number) for number, entry in enumerate(entries, 1))


def _inherited(config: GroupConfig, entry: GroupEntryConfig, number: int) -> GroupConfigEntry:
    plugin = entry.plugin or config.plugin
    # The settings of one plugin mean nothing to another.
    above = config.plugin_config if plugin == config.plugin else {}
    written = asdict(entry.connector_config).items()
    own = {name: value for name, value in written if value is not None}
    return GroupConfigEntry(
        name=entry.name or str(number),
        plugin=plugin,
        plugin_config={**above, **entry.plugin_config},
        connector=replace(config.connector_config, **own).settings(),
        max_instances=entry.max_instances,
    )


class _Extensions(msgspec.Struct, frozen=True):
    group: list[GroupEntryConfig] = []


class _Autoscaler(GroupConfig, frozen=True):
    max_instances: int = 0
    extensions: _Extensions = _Extensions()


class _Runner(msgspec.Struct, frozen=True):
    name: str = ""
    autoscaler: _Autoscaler | None = None


class _File(msgspec.Struct, frozen=True):
    runners: list[_Runner] = []


def configured_groups(path: Path) -> list[ConfiguredGroup]:
    """Read the groups of all runners of a `config.toml` that have an autoscaler, in its order.

    Raises:
        ConfigError: the file cannot be read, or one of the keys that are read here is wrong;
            with a sentence for each.
    """
    file, problems = examine(read_toml(path), _File)
    if file is None or problems:
        raise ConfigError(*(f"{path}: {problem}" for problem in problems))
    found: list[ConfiguredGroup] = []
    for index, runner in enumerate(file.runners):
        if runner.autoscaler is None:
            continue
        listed = runner.autoscaler.extensions.group
        place = f"{path}: runners[{index}].autoscaler"
        for number, entry in enumerate(group_entries(runner.autoscaler, listed)):
            table = f".extensions.group[{number}]" if listed else ""
            limits = (runner.autoscaler.max_instances, entry.max_instances)
            found.append(
                ConfiguredGroup(
                    runner=runner.name,
                    entry=entry,
                    is_only=len(listed) <= 1,
                    where=f"{place}{table}.plugin_config",
                    maximum=min((limit for limit in limits if limit), default=None),
                )
            )
    return found


def plugin_references(groups: Sequence[ConfiguredGroup]) -> list[PluginReference]:
    """Return what groups refer to, each once.

    Raises:
        ConfigError: a group names no plugin; with its place in the file.
    """
    found: dict[PluginReference, None] = {}
    for group in groups:
        where = group.where.removesuffix("_config")
        if not group.entry.plugin:
            raise ConfigError(f'{where}: no plugin is named; write for instance plugin = "aws"')
        try:
            found[parse_reference(group.entry.plugin)] = None
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
    return list(found)


def choose_group(
    path: Path, groups: Sequence[ConfiguredGroup], name: str | None
) -> ConfiguredGroup:
    """Return the group that a person means.

    Args:
        path: of the file, for messages.
        groups: all of that file.
        name: `RUNNER` if the runner has one group, else `RUNNER/GROUP`; None if the file
            has one group only.

    Raises:
        ConfigError: there is no such group, or more than one.
    """
    found = [one for one in groups if name in {None, one.label}]
    if len(found) == 1:
        return found[0]
    names = ", ".join(repr(one.label) for one in groups)
    if not groups:
        raise ConfigError(f"{path}: no runner has a table [runners.autoscaler]; write one")
    if name is None:
        raise ConfigError(f"{path}: it has {len(groups)} groups; say which: {names}")
    if found:
        raise ConfigError(f"{path}: {len(found)} groups are named {name!r}; rename all but one")
    raise ConfigError(f"{path}: no group is named {name!r}; there are: {names}")
