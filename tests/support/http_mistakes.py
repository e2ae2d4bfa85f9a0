"""Reads the wrong providers for an HTTP cloud; the head of their file describes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ("Mistake", "read_mistakes")


class Mistake(msgspec.Struct, forbid_unknown_fields=True):
    """A wrong provider, as a table of the file has it."""

    caught_by: str
    told: str
    edits: list[tuple[str, str]]
    cloud: dict[str, float] = {}


def read_mistakes(path: Path) -> dict[str, Mistake]:
    """Return the wrong providers by name."""
    return msgspec.toml.decode(path.read_bytes(), type=dict[str, Mistake])
