"""The process in which one plugin is imported, to see whether that goes well.

It is a process of its own because an import can do anything: fail, hang, crash, or change
what other plugins need. Who starts it is `fleeting._verification`.

    python -P -m fleeting._verify KIND NAME REPORT

`REPORT` is the file to write the result to: what a plugin prints cannot spoil it there.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import msgspec

# What every plugin needs is not counted as part of the time that one takes.
import fleeting.abc
import fleeting.plugin  # noqa: TC001  # pyright: ignore[reportUnusedImport]
from fleeting._annotations import is_struct
from fleeting._keys import Key, example, list_keys
from fleeting._registry import Registry
from fleeting._schema import json_schema
from fleeting.errors import PluginBroken, PluginError
from fleeting.types import Capability

__all__ = ("Report", "examine_plugin", "main")


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out about a plugin by importing it.

    Attributes:
        problem: why it cannot be used, in one sentence; empty if it can.
        import_seconds: how long its import took.
        capabilities: what its groups may be able to do beyond the ordinary.
        keys: of its configuration; a connector has none.
        example: a configuration with the keys that must be there.
        schema: the JSON Schema of its configuration.
    """

    problem: str = ""
    import_seconds: float = 0.0
    capabilities: list[str] = []
    keys: list[Key] = []
    example: dict[str, Any] = {}
    schema: dict[str, Any] = {}


def examine_plugin(kind: str, name: str) -> Report:
    """Import a plugin, and ask it for all that it can say without opening a group.

    Args:
        kind: `provider` or `connector`.
        name: as its entry point has it.
    """
    registry = Registry()
    started = time.perf_counter()
    try:
        if kind == "connector":
            registry.connector(name)
            return Report(import_seconds=time.perf_counter() - started)
        provider = registry.provider(name)
        import_seconds = time.perf_counter() - started
        return _described(provider, import_seconds)
    except PluginError as error:
        return Report(problem=str(error))


def _described(provider: fleeting.abc.Provider, import_seconds: float) -> Report:
    shape: Any = getattr(provider, "config_type", None)
    reason = _breach(shape, provider.capabilities)
    if not reason:
        try:
            return Report(
                import_seconds=import_seconds,
                capabilities=sorted(capability.value for capability in provider.capabilities),
                keys=list_keys(shape),
                example=example(shape),
                schema=json_schema(shape),
            )
        except Exception as error:  # noqa: BLE001 - a stranger's types can do anything
            reason = f"its config_type cannot be described ({type(error).__name__}: {error})"
    entries = Registry().providers()
    distribution = next(entry.distribution for entry in entries if entry.name == provider.name)
    raise PluginBroken(provider.name, distribution, reason)


def _breach(shape: Any, capabilities: Any) -> str:
    """Return which promise of `Provider` the attributes do not keep; empty if they do."""
    if not is_struct(shape) or not shape.__struct_config__.frozen:
        return "its config_type is no msgspec.Struct with frozen=True"
    if not shape.__struct_config__.forbid_unknown_fields:
        return "its config_type lacks forbid_unknown_fields=True, so that misspelt keys pass"
    if not isinstance(capabilities, frozenset) or not capabilities <= {*Capability}:
        return "its capabilities are no frozenset of fleeting.types.Capability"
    return ""


def main(kind: str, name: str, report: str) -> None:
    """Examine a plugin, and write what is found to a file."""
    Path(report).write_bytes(msgspec.json.encode(examine_plugin(kind, name)))


if __name__ == "__main__":
    main(*sys.argv[1:])
