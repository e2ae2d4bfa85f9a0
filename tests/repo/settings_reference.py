"""Writes `docs/reference/settings.md` from the fields of the settings and their docstrings.

Usage: uv run python -m tests.repo.settings_reference
"""

from __future__ import annotations

import enum
import inspect
from dataclasses import MISSING, Field, fields, is_dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import griffe

from fleeting.types import Duration
from taskscaler import Placement, Policy, Settings, UnknownInstances

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"
OPENING = """\
# Reference of the settings

The fields of `taskscaler.Settings` and of the values in it, from their docstrings. Do not edit
this page; `uv run python -m tests.repo.settings_reference` writes it again.

A length of time is a `timedelta`. The table writes `5m` for `timedelta(minutes=5)`. An impossible
value raises `ValueError` with the name of the field. In a `config.toml`, the fields have
[the names of its keys](../operators/config.md).
"""


def render() -> str:
    """Return the page."""
    lines = [OPENING]
    for kind in (Settings, Policy, Placement, UnknownInstances):
        lines += [f"## `{kind.__name__}`", "", *_section(kind), ""]
    return "\n".join(lines).rstrip() + "\n"


def _section(kind: type) -> Iterator[str]:
    docstring = griffe.Docstring(
        inspect.getdoc(kind) or "",
        parser=griffe.Parser.google,
        parser_options={"warn_unknown_params": False, "warn_missing_types": False},
    )
    texts: dict[str, str] = {}
    for section in docstring.parse():
        if isinstance(section, griffe.DocstringSectionText):
            yield from (" ".join(section.value.split()), "")
        elif isinstance(section, griffe.DocstringSectionAttributes):
            texts = {one.name: " ".join(one.description.split()) for one in section.value}
    if is_dataclass(kind):
        yield from ("| field | meaning | default |", "|---|---|---|")
        yield from (
            f"| `{one.name}` | {texts[one.name]} | {_default(one)} |" for one in fields(kind)
        )


def _default(field: Field[Any]) -> str:
    made = field.default_factory
    value = field.default if made is MISSING else made()
    match value:
        case timedelta():
            text = str(Duration(seconds=value.total_seconds()))
        case enum.Enum():
            text = str(value)
        case Policy():
            text = "Policy()"
        case _:
            text = repr(value)
    return f"`{text}`"


def main() -> None:
    """Write the page."""
    PAGE.write_text(render())


if __name__ == "__main__":
    main()
