"""Aligned tables of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleeting._text import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ("table",)


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return the lines of a table whose columns are aligned; the cells may be foreign text."""
    lines = [heading, *([plain(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
