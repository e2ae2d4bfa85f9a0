"""The groups that a `config.toml` names, each with the settings that it inherits.

The file is GitLab Runner's, and most of it is not about groups. This module reads
`[[runners]]` with its `[autoscaler]`, and of that table the plugin, the plugin's settings,
the connector's settings and the list of several groups. `taskscaler config check` checks
the other keys.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta
from msgspec.structs import asdict, replace

from fleeting._decoding import examine, read_toml
from fleeting._gitlab_reading import as_gitlab_reads
from fleeting._references import parse_reference
from fleeting.errors import ConfigError
from fleeting.types import ConnectorSettings, Duration, Jump, JumpSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fleeting._references import PluginReference

__all__ = (
    "ConfiguredGroup",
    "ConnectorConfig",
    "GroupConfig",
    "GroupConfigEntry",
    "GroupEntryConfig",
    "JumpConfig",
    "choose_group",
    "configured_groups",
    "plugin_references",
)


_WORD = re.compile(r"\{[a-z_]+\}")
_KNOWN_WORDS = ("{host}", "{port}", "{id}", "{username}")


class JumpConfig(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """`[[connector_config.jump]]`: a host on the way to the instances."""

    address: Annotated[str, Meta(description="The host, such as `ada@bastion.example.com:22`.")]
    key_path: Annotated[
        Path | None,
        Meta(description="The file of the private key; by default the key of the instance."),
    ] = None
    host_keys: Annotated[
        list[str],
        Meta(description="Public keys of which the host must show one; by default, the first."),
    ] = []

    def __post_init__(self) -> None:
        """Check the address."""
        Jump.parse(self.address)

    def settings(self) -> JumpSettings:
        """Return the settings of this host."""
        return JumpSettings(
            dataclasses.replace(Jump.parse(self.address), host_keys=tuple(self.host_keys)),
            self.key_path,
        )


class ConnectorConfig(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """`[connector_config]`: how to reach the instances, where the operator knows better."""

    os: Annotated[str | None, Meta(description="The operating system of the instances.")] = None
    arch: Annotated[
        str | None, Meta(description="The processor architecture, such as `amd64`.")
    ] = None
    protocol: Annotated[
        str | None, Meta(description="The name of the connector, such as `ssh`.")
    ] = None
    protocol_port: Annotated[
        Annotated[int, Meta(ge=0, le=65535)] | None,
        Meta(description="The port; by default that of the protocol."),
    ] = None
    username: Annotated[str | None, Meta(description="The user to log in as.")] = None
    password: Annotated[str | None, Meta(description="The password of that user.")] = None
    key_path: Annotated[Path | None, Meta(description="The file of the private key.")] = None
    use_static_credentials: Annotated[
        bool | None, Meta(description="Whether to provision no credentials for each instance.")
    ] = None
    keepalive: Annotated[
        Duration | None, Meta(description="How often an idle connection is tested.")
    ] = None
    timeout: Annotated[
        Duration | None, Meta(description="How long connecting may take in total.")
    ] = None
    use_external_addr: Annotated[
        bool | None, Meta(description="Whether to prefer the external address.")
    ] = None
    jump: Annotated[
        list[JumpConfig] | None,
        Meta(description="The hosts on the way to the instances, the first first."),
    ] = None
    proxy_command: Annotated[
        list[str] | None,
        Meta(
            description="A program that leads to the instance, with its arguments; `{host}`, "
            "`{port}`, `{id}` and `{username}` in them are replaced."
        ),
    ] = None

    slot_users: Annotated[
        list[Annotated[str, Meta(min_length=1)]] | None,
        Meta(description="The user of each slot; by default, all slots share `username`."),
    ] = None

    def __post_init__(self) -> None:
        """Check the keys that belong together."""
        if len(set(self.slot_users or ())) < len(self.slot_users or ()):
            raise ValueError("slot_users names a user twice; each slot needs a user of its own")
        if self.jump and self.proxy_command:
            raise ValueError("jump and proxy_command exclude each other; remove one of them")
        for argument in self.proxy_command or ():
            if wrong := next((w for w in _WORD.findall(argument) if w not in _KNOWN_WORDS), None):
                raise ValueError(
                    f"proxy_command: {wrong} stands for nothing; use {', '.join(_KNOWN_WORDS)}"
                )

    def __repr__(self) -> str:
        """Show no password."""
        return f"ConnectorConfig(protocol={self.protocol!r}, username={self.username!r}, ...)"

    def settings(self) -> ConnectorSettings:
        """Return the settings as `ConnectInfo.with_settings` takes them."""
        written = {name: getattr(self, name) for name in self.__struct_fields__}
        written["jump"] = tuple(one.settings() for one in self.jump or ())
        for name in ("proxy_command", "slot_users"):
            written[name] = tuple(getattr(self, name) or ())
        # GitLab Runner writes a key that is not set as zero.
        return ConnectorSettings(**{name: value for name, value in written.items() if value})


class GroupEntryConfig(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """`[[extensions.group]]`: one of several groups, the preferred first."""

    name: Annotated[
        str, Meta(description="A name for messages; by default the number of the entry.")
    ] = ""
    plugin: Annotated[
        str, Meta(description="The name of a plugin; by default that of the autoscaler.")
    ] = ""
    plugin_config: Annotated[
        dict[str, Any], Meta(description="The keys that differ from those of the autoscaler.")
    ] = {}
    connector_config: Annotated[
        ConnectorConfig, Meta(description="The keys that differ from those of the autoscaler.")
    ] = ConnectorConfig()
    max_instances: Annotated[
        int, Meta(ge=0, description="The most instances in this group; 0 means no own limit.")
    ] = 0

    def __repr__(self) -> str:
        """Show nothing of `plugin_config`, which may hold secrets."""
        return f"GroupEntryConfig(name={self.name!r}, plugin={self.plugin!r}, ...)"


@dataclass(frozen=True, slots=True)
class GroupConfigEntry:
    """A group to open, with all settings that it inherits.

    Attributes:
        name: for messages, unique among the groups of an autoscaler.
        plugin: the name of a plugin; empty if the file names none.
        plugin_config: the settings to open the group with; may hold secrets.
        connector: how to reach its instances, where the operator knows better.
        max_instances: the most instances of this group; 0 means no limit of its own.
    """

    name: str
    plugin: str
    plugin_config: Mapping[str, Any] = field(repr=False)
    connector: ConnectorSettings
    max_instances: int = 0

    @property
    def fingerprint(self) -> bytes | None:
        """Return the same bytes for two entries that name the same group.

        None if the settings do not name a group.
        """
        if not self.plugin_config:
            return None
        try:
            plugin = parse_reference(self.plugin).name
        except ConfigError:
            plugin = self.plugin  # Opening the group reports the mistake.
        return msgspec.json.encode((plugin, self.plugin_config), order="sorted")


class GroupConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The part of `[runners.autoscaler]` that says which group it is and how to reach it."""

    plugin: Annotated[str, Meta(description="The name of an installed plugin.")] = ""
    plugin_config: Annotated[
        dict[str, Any], Meta(description="The settings of the plugin, which defines the keys.")
    ] = {}
    connector_config: Annotated[
        ConnectorConfig, Meta(description="How to reach the instances.")
    ] = ConnectorConfig()

    def __repr__(self) -> str:
        """Show no setting of the plugin, because any of them may be a secret."""
        return f"GroupConfig(plugin={self.plugin!r}, {self.connector_config!r}, ...)"

    def entries(self, listed: Sequence[GroupEntryConfig]) -> tuple[GroupConfigEntry, ...]:
        """Return the groups to open, the preferred first.

        Args:
            listed: the list of several groups, each of which inherits from this table; empty
                if the table itself is the only group.
        """
        if not listed:
            connector = self.connector_config.settings()
            return (GroupConfigEntry("1", self.plugin, self.plugin_config, connector),)
        return tuple(_inherited(self, entry, number) for number, entry in enumerate(listed, 1))


def _inherited(config: GroupConfig, entry: GroupEntryConfig, number: int) -> GroupConfigEntry:
    plugin = entry.plugin or config.plugin
    # The settings of one plugin mean nothing to another plugin.
    above = config.plugin_config if plugin == config.plugin else {}
    written = asdict(entry.connector_config).items()
    own = {name: value for name, value in written if value is not None}
    if "jump" in own or "proxy_command" in own:
        own = {"jump": None, "proxy_command": None, **own}  # There is one way only.
    return GroupConfigEntry(
        name=entry.name or str(number),
        plugin=plugin,
        plugin_config={**above, **entry.plugin_config},
        connector=replace(config.connector_config, **own).settings(),
        max_instances=entry.max_instances,
    )


@dataclass(frozen=True, slots=True)
class ConfiguredGroup:
    """A group of one runner of a file.

    Attributes:
        runner: the name of the runner; may be empty.
        entry: the group to open.
        is_only: whether the runner has no other group.
        where: names the table of the plugin's settings in messages.
        maximum: the most instances that will be requested; None if there is no limit.
    """

    runner: str
    entry: GroupConfigEntry
    is_only: bool
    where: str
    maximum: int | None = None

    @property
    def label(self) -> str:
        """Return `RUNNER`, or `RUNNER/GROUP` if the runner has several groups."""
        return self.runner if self.is_only else f"{self.runner}/{self.entry.name}"


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
        ConfigError: the file cannot be read, or a key that is read here is wrong; with one
            sentence for each problem.
    """
    data, problems = as_gitlab_reads(read_toml(path), _File)
    file, found_wrong = examine(data, _File)
    problems += found_wrong
    if file is None or problems:
        raise ConfigError(*(f"{path}: {problem}" for problem in problems))
    found: list[ConfiguredGroup] = []
    for index, runner in enumerate(file.runners):
        if runner.autoscaler is None:
            continue
        listed = runner.autoscaler.extensions.group
        place = f"{path}: runners[{index}].autoscaler"
        for number, entry in enumerate(runner.autoscaler.entries(listed)):
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
    """Return the plugins that groups refer to, each once.

    Raises:
        ConfigError: a group names no plugin; the message gives its place in the file.
    """
    found: dict[PluginReference, None] = {}
    for group in groups:
        where = group.where.removesuffix("_config")
        if not group.entry.plugin:
            raise ConfigError(f'{where}: no plugin is named; write for example plugin = "aws"')
        try:
            found[parse_reference(group.entry.plugin)] = None
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
    return list(found)


def choose_group(
    path: Path, groups: Sequence[ConfiguredGroup], name: str | None
) -> ConfiguredGroup:
    """Return the group that an operator named.

    Args:
        path: of the file, for messages.
        groups: all groups of that file.
        name: `RUNNER` if the runner has one group, else `RUNNER/GROUP`; None if the file
            has only one group.

    Raises:
        ConfigError: no group, or more than one group, has this name.
    """
    found = [one for one in groups if name in {None, one.label}]
    if len(found) == 1:
        return found[0]
    names = ", ".join(repr(one.label) for one in groups)
    if not groups:
        raise ConfigError(f"{path}: no runner has a table [runners.autoscaler]; add one")
    if name is None:
        raise ConfigError(f"{path}: the file has {len(groups)} groups; choose one: {names}")
    if found:
        raise ConfigError(f"{path}: {len(found)} groups are named {name!r}; rename all but one")
    raise ConfigError(f"{path}: no group is named {name!r}; the file has: {names}")
