"""The JSON Schema of `config.toml`, for editors that complete keys and show mistakes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fleeting import json_schema
from taskscaler.config.autoscaler import AutoscalerConfig
from taskscaler.config.ranges import LEAST, MOST
from taskscaler.config.runners import FileConfig

if TYPE_CHECKING:
    import msgspec

__all__ = ("config_schema",)


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema of a whole `config.toml`, of the draft 2020-12."""
    return json_schema(FileConfig, _limits)


def _limits(shape: type[msgspec.Struct], field: msgspec.structs.FieldInfo) -> dict[str, Any]:
    """Return what the table of ranges says of a key."""
    limits: dict[str, Any] = {}
    # Elsewhere the same names have other meanings.
    if shape.__module__ == AutoscalerConfig.__module__:
        if field.name in LEAST:
            limits["minimum"] = LEAST[field.name][0]
        if field.name in MOST:
            limits["maximum"] = MOST[field.name]
    return limits
