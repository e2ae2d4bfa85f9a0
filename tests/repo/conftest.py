"""The input of the rules: the files of the repository and its modules.

Each rule is a plain function that returns its complaints. One test asserts that there are none in
the repository, and another one that a bad sample has some.
"""

from __future__ import annotations

import ast
import importlib
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Module:
    """A module of one of our distributions.

    Attributes:
        name: as it is imported.
        distribution: the main package of the distribution that it belongs to.
        path: its file.
        tree: its syntax.
    """

    name: str
    distribution: str
    path: Path
    tree: ast.Module

    @property
    def is_public(self) -> bool:
        """Return whether no part of its name starts with an underscore."""
        return not any(part.startswith("_") for part in self.name.split("."))

    def load(self) -> ModuleType:
        """Import it."""
        return importlib.import_module(self.name)


def _files() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607 - the one on PATH
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    paths = [ROOT / name for name in listing.split("\0") if name]
    return sorted(path for path in paths if path.is_file())


def _modules(sources: dict[Path, ast.Module]) -> list[Module]:
    modules: list[Module] = []
    for path, tree in sources.items():
        parts = path.relative_to(ROOT).parts
        if "src" not in parts or "tests" in parts:
            continue
        dotted = parts[parts.index("src") + 1 :]
        names = [*dotted[:-1], path.stem] if path.stem != "__init__" else list(dotted[:-1])
        project = parts[parts.index("src") - 1].replace("-", "_")
        modules.append(Module(".".join(names), project, path, tree))
    return modules


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def files() -> list[Path]:
    """Return every file of the repository: those that git tracks, or would after `git add`."""
    return _files()


@pytest.fixture(scope="session")
def sources(files: list[Path]) -> dict[Path, ast.Module]:
    """Return every Python file of the repository, tests too, with its syntax."""
    return {path: ast.parse(path.read_text(), str(path)) for path in files if path.suffix == ".py"}


@pytest.fixture(scope="session")
def modules(sources: dict[Path, ast.Module]) -> list[Module]:
    """Return the modules of all distributions of the workspace."""
    return _modules(sources)
