"""Modules import each other in one direction only, so that each can be read before the next."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from tests.repo.imports import graph, imports, loops

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .conftest import Module


def edges(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Return the graph of modules that are given by name and text."""
    return graph(
        {
            name: set(imports(ast.parse(text), name, is_package=False))
            for name, text in sources.items()
        }
    )


def describe(members: list[str], edges: Mapping[str, set[str]]) -> str:
    """Return a loop in lines: each of its modules, and which others of the loop it imports."""
    lines = (f"  {one} imports {', '.join(sorted(edges[one] & {*members}))}" for one in members)
    return "\n".join((f"loop of {len(members)} modules:", *lines))


def test_no_loops(modules: list[Module], sources: dict[Path, ast.Module]) -> None:
    """No module imports itself through others, also inside a function or for typing only."""
    imported = {
        module.name: set(
            imports(module.tree, module.name, is_package=module.path.stem == "__init__")
        )
        for module in modules
    }
    helpers = {path.stem: tree for path, tree in sources.items() if path.parent.name == "support"}
    imported |= {name: set(imports(tree, name, is_package=False)) for name, tree in helpers.items()}
    found = graph(imported)
    complaints = [describe(members, found) for members in loops(found)]
    assert not complaints, "\n".join(complaints)


def test_loops_are_noticed() -> None:
    """A loop of three is found, also where one import is in a function and one for typing."""
    found = edges(
        {
            "p.a": "from p import b\nimport os",
            "p.b": "def f():\n    from p.c import name",
            "p.c": "if TYPE_CHECKING:\n    import p.a",
            "p.d": "from p.a import x",
        }
    )
    assert loops(found) == [["p.a", "p.b", "p.c"]]
    told = "loop of 3 modules:\n  p.a imports p.b\n  p.b imports p.c\n  p.c imports p.a"
    assert describe(["p.a", "p.b", "p.c"], found) == told


def test_packages_are_counted_by_what_is_imported_of_them() -> None:
    """A name of a package counts as the package; a submodule counts as the submodule alone."""
    assert loops(edges({"p": "from p.a import x", "p.a": "import p.b", "p.b": ""})) == []
    assert loops(edges({"p": "from p.a import x", "p.a": "from p import y"})) == [["p", "p.a"]]
