"""Imports one plugin and reports whether it works; the program that `_verification` runs.

It is a separate process because an import can do anything: fail, hang, crash, or change what
other plugins need.

    python -P -m fleeting._plugin_report KIND NAME REPORT [--only-import]

`REPORT` is the file for the result, where the output of a plugin cannot corrupt it. With
`--only-import` the process ends with the report, although a plugin may have started threads.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

# Imported before the clock starts: every plugin needs these.
import fleeting.abc
import fleeting.plugin  # noqa: TC001  # pyright: ignore[reportUnusedImport]
from fleeting._annotations import is_struct
from fleeting._keys import Key, example, list_keys
from fleeting._registry import Registry
from fleeting._schema import json_schema
from fleeting.errors import PluginBroken, PluginError
from fleeting.types import Capability

__all__ = ("PluginReport", "examine_plugin", "main")

# Longer than anything waits for this process.
ALARM_SECONDS = 120


class PluginReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result of importing a plugin.

    Attributes:
        problem: why it cannot be used, in one sentence; empty if it can.
        import_seconds: how long its import took.
        capabilities: the optional abilities that its groups may have.
        keys: of its configuration; a connector has none.
        example: a configuration with the required keys.
        schema: the JSON Schema of its configuration.
    """

    problem: str = ""
    import_seconds: float = 0.0
    capabilities: list[str] = []
    keys: list[Key] = []
    example: dict[str, Any] = {}
    schema: dict[str, Any] = {}


def examine_plugin(kind: str, name: str) -> PluginReport:
    """Import a plugin, and describe it without opening a group.

    Args:
        kind: `provider` or `connector`.
        name: of its entry point.
    """
    registry = Registry()
    started = time.perf_counter()
    try:
        if kind == "connector":
            registry.connector(name)
            return PluginReport(import_seconds=time.perf_counter() - started)
        provider = registry.provider(name)
        import_seconds = time.perf_counter() - started
        return _described(provider, import_seconds)
    except PluginError as error:
        return PluginReport(problem=str(error))


def _described(provider: fleeting.abc.Provider, import_seconds: float) -> PluginReport:
    shape: Any = getattr(provider, "config_type", None)
    reason = _breach(shape, provider.capabilities)
    if not reason:
        try:
            return PluginReport(
                import_seconds=import_seconds,
                capabilities=sorted(capability.value for capability in provider.capabilities),
                keys=list_keys(shape),
                example=example(shape),
                schema=json_schema(shape),
            )
        except Exception as error:  # noqa: BLE001 - types of a plugin can do anything
            reason = f"its config_type cannot be described ({type(error).__name__}: {error})"
    entries = Registry().providers()
    distribution = next(entry.distribution for entry in entries if entry.name == provider.name)
    raise PluginBroken(provider.name, distribution, reason)


def _breach(shape: Any, capabilities: Any) -> str:
    """Return the promise of `Provider` that the attributes break; empty if they break none."""
    if not is_struct(shape) or not shape.__struct_config__.frozen:
        return "its config_type is not a msgspec.Struct with frozen=True"
    if not shape.__struct_config__.forbid_unknown_fields:
        return (
            "its config_type lacks forbid_unknown_fields=True, so misspelt keys would be accepted"
        )
    if not isinstance(capabilities, frozenset) or not capabilities <= {*Capability}:
        return "its capabilities are not a frozenset of fleeting.types.Capability"
    return ""


def main(kind: str, name: str, report: str, only_import: str = "") -> None:
    """Examine a plugin, and write the report to a file."""
    if sys.platform != "win32":
        # The process that waits for the report may be killed, and an import may never end.
        signal.alarm(ALARM_SECONDS)
    Path(report).write_bytes(msgspec.json.encode(examine_plugin(kind, name)))
    if only_import:
        os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
