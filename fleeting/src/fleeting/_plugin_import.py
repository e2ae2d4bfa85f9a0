"""Imports the plugins of a command.

An import can do anything: hang, crash, print, or end the process with exit code 0. So a plugin
that is not our own is first imported in a process of its own, and standard output is kept for the
command. After that a plugin is trusted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fleeting._secret_keys import texts
from fleeting._secrets import remember_settings
from fleeting._text import keep_output

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from fleeting._registry import Registry
    from fleeting.abc import Provider

__all__ = ("open_settings", "use_provider")

_OURS = "fleeting"


def use_provider(
    registry: Registry, reference: str, *, timeout: timedelta | None = None
) -> Provider:
    """Return the provider that a command uses; do not call this in an event loop.

    Args:
        registry: finds the plugin.
        reference: its name, or its name and version; see `Registry.provider`.
        timeout: how long its import may take; None is a minute.

    Raises:
        ConfigError, PluginError: as `Registry.provider` does; and `PluginBroken` if this process
            would not survive the import.
        ProviderError: the import took too long.
        OSError: no process could be started.
    """
    from fleeting._references import parse_reference

    name = parse_reference(reference).name
    keep_output()
    claims = [entry for entry in registry.providers() if entry.name == name]
    # The registry reports a plugin that is missing or in conflict, and imports none then.
    if len(claims) == 1 and claims[0].distribution != _OURS and not registry.has_loaded(name):
        import anyio

        from fleeting._verification import DEADLINE, survive_import

        limit = DEADLINE if timeout is None else min(DEADLINE, timeout)
        anyio.run(survive_import, "provider", claims[0], limit)
    return registry.provider(reference)


def open_settings(table: Mapping[str, Any], provider: Provider, *, where: str) -> Any:
    """Decode the settings with which a plugin opens a group.

    From now on no description of a bug quotes them.

    Args:
        table: the `plugin_config`.
        provider: of the plugin.
        where: names the table in messages.

    Raises:
        ConfigError: with one sentence for each mistake.
    """
    from fleeting._gitlab_reading import decode_settings

    remember_settings(texts(table))
    return decode_settings(table, provider.config_type, where=where)
