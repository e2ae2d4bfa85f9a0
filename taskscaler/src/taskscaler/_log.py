"""How the scaler writes a decision to its log: as `key=value`, with all of its inputs."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskscaler.core.decisions import Decision

__all__ = ("describe",)


def describe(decision: Decision) -> str:
    """Return a decision in one line, from what was decided to what led to it.

    Values that are not one word are quoted, so that the line can be read by programs.
    """
    return " ".join(f"{name}={_value(value)}" for name, value in _pairs(decision))


def _pairs(struct: msgspec.Struct) -> Iterator[tuple[str, object]]:
    """Yield the fields of a struct, those of the structs in it last."""
    inner: list[msgspec.Struct] = []
    for field in msgspec.structs.fields(struct):
        value: Any = getattr(struct, field.name)
        if isinstance(value, msgspec.Struct):
            inner.append(value)
        elif field.name != "at":
            # The log has a time of its own.
            yield field.name, value
    for one in inner:
        yield from _pairs(one)


def _value(value: object) -> str:
    text = str(value.value if isinstance(value, enum.Enum) else value)
    if text and not any(one.isspace() or one in '"=' for one in text):
        return text
    quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{quoted}"'
