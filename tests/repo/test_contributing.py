"""The table that leads contributors from a symptom to a file names files and symbols that exist."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECTION = re.compile(r"^## From a symptom to a file\n(.*?)^## ", re.MULTILINE | re.DOTALL)
# A path has a slash; the other code spans are commands and settings.
PATH = re.compile(r"`([\w.-]+(?:/[\w.-]*)+)(?:::[\w.]+)?`")
# The two ways to name a symbol of a file.
AFTER = re.compile(r"`([\w./-]+\.py)::([\w.]+)`")
BEFORE = re.compile(r"`([\w.]+)`(?: and its neighbours)? in `([\w./-]+\.py)`")
# Names without a folder of their own are in here.
DEFAULT = "taskscaler/src/taskscaler"


def rows(page: str) -> list[str]:
    """Return the rows of the table of symptoms, without its head."""
    section = SECTION.search(page)
    assert section is not None
    return [line for line in section[1].splitlines() if line.startswith("|")][2:]


def missing(rows: list[str], root: Path) -> list[str]:
    """Return the paths and symbols that do not exist, and the rows without code or tests."""
    return [
        *(path for row in rows for path in PATH.findall(row) if not find(path, root).exists()),
        *(
            f"{path}::{symbol}"
            for row in rows
            for path, symbol in symbols(row)
            if find(path, root).exists() and symbol not in defined(find(path, root))
        ),
        *(row for row in rows if not all(PATH.search(cell) for cell in row.split("|")[2:4])),
    ]


def symbols(row: str) -> Iterator[tuple[str, str]]:
    """Yield each symbol of a row after the path of its file."""
    yield from AFTER.findall(row)
    yield from ((path, symbol) for symbol, path in BEFORE.findall(row))


def find(path: str, root: Path) -> Path:
    """Return the file or folder of a path in the table."""
    return root / path if (root / path).exists() else root / DEFAULT / path


def defined(path: Path) -> set[str]:
    """Return the names that a module defines, those in a class with and without its name."""
    return set(_names(ast.parse(path.read_text()).body))


def _names(body: list[ast.stmt]) -> Iterator[str]:
    for one in body:
        match one:
            case ast.ClassDef(name=name, body=inner):
                yield name
                for below in _names(inner):
                    yield from (below, f"{name}.{below}")
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.Assign(targets=targets):
                yield from (target.id for target in targets if isinstance(target, ast.Name))
            case _:
                pass


def test_symptoms_lead_to_files(root: Path) -> None:
    """Each row names code and tests, and every path and symbol in it exists."""
    found = rows((root / "docs" / "contributing.md").read_text())
    assert len(found) >= 12
    assert sum(1 for row in found for _ in symbols(row)) >= 8
    assert missing(found, root) == []


def test_missing_files_are_noticed(root: Path) -> None:
    """A path that does not exist is found, and so is a row without a test."""
    good = "| it | `core/machine.py` and `tests/repo/` | `conftest.py`, `tests/core` |"
    bad = ["| it | `core/gone.py` | `tests/core` |", "| it | `core/machine.py` | none |"]
    assert missing([good], root) == []
    assert missing(bad, root) == ["core/gone.py", bad[1]]


def test_missing_symbols_are_noticed(root: Path) -> None:
    """A name that its file does not define is found, in both spellings."""
    file = "core/model/throttle.py"
    good = f"| it | `Cooldown.failed` in `{file}`, `{file}::Backoff` | `tests/core/conftest.py` |"
    assert missing([good], root) == []
    bad = good.replace("failed", "gone").replace("Backoff", "Cooldown.gone")
    assert missing([bad], root) == [f"{file}::Cooldown.gone"] * 2
