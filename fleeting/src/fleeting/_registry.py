"""Finds providers and connectors by name, and imports a plugin only when it is requested.

Names come from the metadata of installed distributions (entry points), so
listing them imports nothing. A broken plugin does not affect the others: pluggy
loads only the requested one, and any failure in it is reported with the names
of the plugin and of its distribution.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from fleeting._metadata import PluginEntry, entry_points
from fleeting.errors import (
    ConfigError,
    PluginBroken,
    PluginConflict,
    PluginMismatch,
    PluginNotFound,
)

if TYPE_CHECKING:
    from fleeting._references import PluginReference
    from fleeting.abc import Connector, Provider
    from fleeting.types import ConnectorSettings

__all__ = ("PluginEntry", "Registry")

PROVIDERS = "fleeting"
CONNECTORS = "fleeting.connectors"


class Registry:
    """The plugins of this Python environment.

    Cheap to create. Its only state is a cache of the plugins that it has loaded.
    """

    def __init__(self) -> None:
        self._providers: dict[str, Provider] = {}
        self._connectors: dict[str, Connector] = {}

    def providers(self) -> list[PluginEntry]:
        """Return the installed providers, sorted by name, without importing them."""
        return _entries(PROVIDERS)

    def connectors(self) -> list[PluginEntry]:
        """Return the installed connectors, sorted by protocol, without importing them."""
        return _entries(CONNECTORS)

    def provider(self, reference: str) -> Provider:
        """Return a provider; import its plugin on the first call.

        Args:
            reference: its name, or its name and version as in `aws:1`; see
                `fleeting._references`.

        Raises:
            ConfigError: the reference is malformed.
            PluginNotFound: no installed plugin has that name.
            PluginMismatch: it is installed in another version.
            PluginConflict: several distributions register the name.
            PluginBroken: it cannot be imported, or registers no provider of that name.
        """
        # Imported here, like the contracts below, so that listing plugins stays fast.
        from fleeting._references import parse_reference

        wanted = parse_reference(reference)
        name = wanted.name
        if wanted.constraint:
            _check_version(wanted)
        if name not in self._providers:
            from fleeting.abc import Provider

            found = _load(PROVIDERS, "plugin", name)
            if (
                not isinstance(found, Provider)
                or getattr(cast("object", found), "name", None) != name
            ):
                raise _registers_nothing(PROVIDERS, name, "provider")
            self._providers[name] = found
        return self._providers[name]

    def has_loaded(self, name: str) -> bool:
        """Return whether the plugin of a provider has been imported by this registry."""
        return name in self._providers

    def not_found(self, reference: PluginReference) -> PluginNotFound:
        """Return the error for a plugin that is not installed, with a hint."""
        return _not_found(PROVIDERS, "plugin", reference.name, str(reference))

    def check_connector(self, settings: ConnectorSettings) -> None:
        """Refuse settings with which no connection can be made; import no plugin.

        Raises:
            ConfigError: no installed plugin has a connector for the protocol, or a private
                key cannot be read or used.
        """
        protocol = settings.protocol
        if protocol is not None and protocol not in {one.name for one in self.connectors()}:
            reason = _not_found(CONNECTORS, "connector", protocol, protocol)
            raise ConfigError(f"connector_config.protocol: {reason}")
        if settings.key_path is not None:
            from fleeting._private_keys import check_private_key

            check_private_key(settings)
        settings.read_jumps()

    def connector(self, protocol: str) -> Connector:
        """Return the connector for this protocol; import its plugin on the first call.

        Raises:
            PluginNotFound: no installed plugin has a connector for it.
            PluginConflict: several distributions register it.
            PluginBroken: it cannot be imported, or registers no connector of that name.
        """
        if protocol not in self._connectors:
            from fleeting.abc import Connector

            found = _load(CONNECTORS, "connector", protocol)
            if not isinstance(found, Connector) or getattr(found, "protocol", None) != protocol:
                raise _registers_nothing(CONNECTORS, protocol, "connector")
            self._connectors[protocol] = found
        return self._connectors[protocol]


def _entries(group: str) -> list[PluginEntry]:
    return sorted(entry_points(group))


def _load(group: str, kind: str, name: str) -> object:
    claims = [entry for entry in _entries(group) if entry.name == name]
    if not claims:
        raise _not_found(group, kind, name, name)
    if len(claims) > 1:
        raise PluginConflict(kind, name, [f"{one.distribution} {one.version}" for one in claims])
    import pluggy

    from fleeting import plugin
    from fleeting._bugs import quote_bug

    manager = pluggy.PluginManager("fleeting")
    manager.add_hookspecs(plugin)
    try:
        manager.load_setuptools_entrypoints(group, name=name)
        hook = (
            manager.hook.fleeting_provider
            if group == PROVIDERS
            else manager.hook.fleeting_connector
        )
        return hook()
    except KeyboardInterrupt:
        raise
    # Third-party code can raise anything on import, and some modules call sys.exit when a
    # requirement is missing. Report all of it as a broken plugin.
    except BaseException as error:
        reason = quote_bug(error).rstrip(".")
        raise PluginBroken(name, claims[0].distribution, reason) from error


def _not_found(group: str, kind: str, name: str, reference: str) -> PluginNotFound:
    from fleeting._decoding import nearest
    from fleeting._references import OUR_PLUGINS

    known = [entry.name for entry in _entries(group)]
    ours = OUR_PLUGINS if group == PROVIDERS else ()
    meant = nearest(name, [*known, *ours])
    # A plugin that is not installed is what was meant, if its name is right.
    hint = f"did you mean {meant!r}? Otherwise " if meant and meant != name else ""
    return PluginNotFound(kind, name, known, f"{hint}run `fleeting install {reference}`")


def _registers_nothing(group: str, name: str, noun: str) -> PluginBroken:
    distribution = next(entry.distribution for entry in _entries(group) if entry.name == name)
    return PluginBroken(name, distribution, f"its module registers no {noun} named {name!r}")


def _check_version(wanted: PluginReference) -> None:
    claims = [entry for entry in _entries(PROVIDERS) if entry.name == wanted.name]
    if claims and not any(wanted.accepts(entry.version) for entry in claims):
        raise PluginMismatch(wanted.name, claims[0].version, str(wanted))
