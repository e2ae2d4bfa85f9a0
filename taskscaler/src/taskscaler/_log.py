"""How the scaler writes a decision to its log: as `key=value`, with all of its inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taskscaler.core import Decision

__all__ = ("describe",)


def describe(decision: Decision) -> str:
    """Return a decision in one line, from what was decided to what led to it.

    Values that are not one word are quoted, so that the line can be read by programs.
    """
    pairs: dict[str, object] = {
        "group": decision.group,
        "rule": decision.rule.value,
        "wanted": decision.wanted,
        "decided": decision.decided,
        "clamped_by": decision.clamped_by,
        **decision.demand.inputs,
        "detail": decision.detail,
    }
    return " ".join(f"{name}={_value(value)}" for name, value in pairs.items())


def _value(value: object) -> str:
    text = str(value)
    if text and not any(one.isspace() or one in '"=' for one in text):
        return text
    quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{quoted}"'
