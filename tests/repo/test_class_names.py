"""A class name means one thing in all distributions."""

from __future__ import annotations

import ast
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .conftest import Module


def repeated(trees: Mapping[str, ast.Module]) -> dict[str, list[str]]:
    """Return the class names that several modules define, with these modules."""
    homes: defaultdict[str, list[str]] = defaultdict(list)
    for module, tree in trees.items():
        for name in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}:
            homes[name].append(module)
    return {name: found for name, found in sorted(homes.items()) if len(found) > 1}


def test_class_names_are_unique(modules: list[Module]) -> None:
    """No two modules of any distribution define classes of the same name."""
    found = repeated({module.name: module.tree for module in modules})
    assert not found, "\n".join(f"{name}: {', '.join(homes)}" for name, homes in found.items())


def test_repeated_names_are_noticed() -> None:
    """A name in two modules is found; a class inside of another one belongs to that."""
    one = ast.parse("class Line: ...\nclass _Table:\n    class Row: ...")
    other = ast.parse("class Row: ...\nclass _Table: ...")
    assert repeated({"a.one": one, "b.other": other}) == {"_Table": ["a.one", "b.other"]}
