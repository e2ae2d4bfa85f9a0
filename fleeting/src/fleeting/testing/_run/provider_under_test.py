"""The provider that a run tests, according to the options of pytest and a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec

from fleeting._config import ConnectorConfig, choose_group, configured_groups
from fleeting._decoding import examine, read_toml
from fleeting._gitlab_reading import decode_settings
from fleeting._references import parse_reference
from fleeting._registry import Registry
from fleeting.errors import ConfigError
from fleeting.testing._contract.secrets import secret_values
from fleeting.types import Duration, GroupSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from fleeting.abc import InstanceGroup, Provider
    from fleeting.types import ConnectorSettings, Finding

__all__ = ("ContractSettings", "ProviderUnderTest", "read_provider_under_test")

Shape = TypeVar("Shape")


class ContractSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """`[contract]`: attributes of `InstanceGroupContract`, which describes them."""

    instance_timeout: Duration | None = None
    call_timeout: Duration | None = None
    lag: Duration | None = None
    frugal: bool | None = None
    affordable: Annotated[int, msgspec.Meta(ge=0)] | None = None
    page_size: Annotated[int, msgspec.Meta(ge=0)] | None = None
    cancellation_points: Annotated[int, msgspec.Meta(ge=1)] | None = None
    repeats_operations: bool | None = None
    keeps_instances: bool | None = None
    can_connect: bool | None = None
    command: str | None = None
    unknown_id: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    foreign_id: str | None = None

    def attributes(self) -> dict[str, Any]:
        """Return the values that the file sets, by attribute."""
        written = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: value for name, value in written.items() if value is not None}


class _OwnFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file that was written for the contract."""

    plugin_config: dict[str, Any] = {}
    connector_config: ConnectorConfig = ConnectorConfig()
    contract: ContractSettings = ContractSettings()


class _RunnersFile(msgspec.Struct, frozen=True):
    """The part of a `config.toml` that is read here, in addition to its groups."""

    contract: ContractSettings = ContractSettings()


@dataclass(frozen=True)
class ProviderUnderTest:
    """A provider, and what it needs to open the group that is tested.

    Attributes:
        name: the name of the provider.
        provider: the provider.
        config: its configuration.
        settings: its settings, as a scaler would pass them.
        attributes: the attributes of the contract that the file sets.
        secrets: texts that no output may show; secrets of instances are added when seen.
    """

    name: str
    provider: Provider
    config: Any = field(repr=False)
    settings: GroupSettings
    attributes: Mapping[str, Any]
    secrets: set[str] = field(repr=False)

    def open(self) -> AbstractAsyncContextManager[InstanceGroup]:
        """Open the group."""
        return self.provider.open(self.config, self.settings)

    async def check(self) -> Sequence[Finding]:
        """Return the findings of the provider."""
        return await self.provider.check(self.config, self.settings)


def read_provider_under_test(name: str, path: Path, runner: str | None) -> ProviderUnderTest:
    """Load a provider, and read its configuration.

    Args:
        name: of an installed plugin, with an optional version, as in `aws:1`.
        path: of a file with `[plugin_config]`, or of a `config.toml`.
        runner: selects a group of a `config.toml`; may be None if there is only one.

    Raises:
        ConfigError: the file is not valid.
        PluginError: the plugin is missing or broken.
    """
    provider = Registry().provider(name)
    data = read_toml(path)
    if "runners" in data:
        table, connector, where, maximum = _of_runner(provider.name, path, runner)
        contract = _examined(path, data, _RunnersFile).contract
    else:
        if runner is not None:
            raise ConfigError(f"{path}: the file has no [[runners]]; drop --fleeting-runner")
        own = _examined(path, data, _OwnFile)
        table, connector, maximum = own.plugin_config, own.connector_config.settings(), None
        where, contract = f"{path}: plugin_config", own.contract
    return ProviderUnderTest(
        name=provider.name,
        provider=provider,
        config=decode_settings(table, provider.config_type, where=where),
        settings=GroupSettings(maximum=maximum, connector=connector),
        attributes=contract.attributes(),
        secrets={*secret_values(table), *filter(None, [connector.password])},
    )


def _of_runner(
    name: str, path: Path, runner: str | None
) -> tuple[Mapping[str, Any], ConnectorSettings, str, int | None]:
    chosen = choose_group(path, configured_groups(path), runner)
    plugin = parse_reference(chosen.entry.plugin).name if chosen.entry.plugin else ""
    if plugin != name:
        raise ConfigError(
            f"{path}: group {chosen.label!r} uses plugin {plugin!r}, not {name!r}; select another "
            f"group with --fleeting-runner, or use --fleeting-provider {plugin}"
        )
    return chosen.entry.plugin_config, chosen.entry.connector, chosen.where, chosen.maximum


def _examined(path: Path, data: dict[str, Any], shape: type[Shape]) -> Shape:
    found, problems = examine(data, shape)
    if found is None or problems:
        raise ConfigError(*(f"{path}: {problem}" for problem in problems))
    return found
