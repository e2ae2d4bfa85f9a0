"""The table that leads contributors from a symptom to a file names files that exist."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SECTION = re.compile(r"^## From a symptom to a file\n(.*?)^## ", re.MULTILINE | re.DOTALL)
# A path has a slash; the other code spans are commands and settings.
PATH = re.compile(r"`([\w.-]+(?:/[\w.-]*)+)`")
# Names without a folder of their own are in here.
DEFAULT = "taskscaler/src/taskscaler"


def rows(page: str) -> list[str]:
    """Return the rows of the table of symptoms, without its head."""
    section = SECTION.search(page)
    assert section is not None
    return [line for line in section[1].splitlines() if line.startswith("|")][2:]


def missing(rows: list[str], root: Path) -> list[str]:
    """Return the paths in rows that do not exist, and the rows that lack code or tests."""
    return [
        *(
            path
            for row in rows
            for path in PATH.findall(row)
            if not ((root / path).exists() or (root / DEFAULT / path).exists())
        ),
        *(row for row in rows if not all(PATH.search(cell) for cell in row.split("|")[2:4])),
    ]


def test_symptoms_lead_to_files(root: Path) -> None:
    """Each row names code and tests, and every path in it exists."""
    found = rows((root / "docs" / "contributing.md").read_text())
    assert len(found) >= 12
    assert missing(found, root) == []


def test_missing_files_are_noticed(root: Path) -> None:
    """A path that does not exist is found, and so is a row without a test."""
    good = "| it | `core/machine.py` and `tests/repo/` | `conftest.py`, `tests/core` |"
    bad = ["| it | `core/gone.py` | `tests/core` |", "| it | `core/machine.py` | none |"]
    assert missing([good], root) == []
    assert missing(bad, root) == ["core/gone.py", bad[1]]
