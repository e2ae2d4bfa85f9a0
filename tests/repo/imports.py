"""The import graph of our modules: which module imports which, and where the graph has loops."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

# Rooms whose modules have plain names, but are for their own distribution alone.
INTERNAL = (
    *("taskscaler.cli", "taskscaler.config", "taskscaler.core", "taskscaler.jobs"),
    *("taskscaler.runtime", "fleeting.cli", "fleeting.connectors", "fleeting.install"),
    "fleeting.local",
)


def imports(tree: ast.Module, module: str, *, is_package: bool) -> Iterator[str]:
    """Yield the dotted name of everything imported, wherever in the module it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")
            up = node.level - 1 if is_package else node.level
            base = ".".join(above[: len(above) - up]) if node.level else ""
            origin = ".".join(filter(None, (base, node.module)))
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def is_within(name: str, module: str) -> bool:
    """Return whether a dotted name is the module or something in it."""
    return name == module or name.startswith(f"{module}.")


def is_ours(package: str) -> bool:
    """Return whether it is a package of this repository."""
    return package in {"fleeting", "taskscaler"} or package.startswith("fleeting_plugin_")


def is_internal(name: str) -> bool:
    """Return whether a module belongs to one of the internal rooms."""
    return any(is_within(name, room) for room in INTERNAL)


def has_private_part(name: str) -> bool:
    """Return whether a part of a dotted name starts with one underscore."""
    return any(part.startswith("_") and not part.endswith("__") for part in name.split("."))


def home(imported: str, modules: Iterable[str]) -> str | None:
    """Return the module that an imported name belongs to: the name itself if it is a module."""
    if imported in modules:
        return imported
    above = imported.rpartition(".")[0]
    return above if above in modules else None


def graph(imported: Mapping[str, Iterable[str]]) -> dict[str, set[str]]:
    """Return for each module the modules of the mapping that it imports.

    An import of a submodule does not count as an import of the packages above it. Python runs
    their `__init__` first, but that is true of every import, and would make a loop of each package
    that offers a name of one of its modules.
    """
    found = {
        module: {target for name in names if (target := home(name, imported))}
        for module, names in imported.items()
    }
    return {module: targets - {module} for module, targets in found.items()}


def loops(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other, directly or through others."""
    reachable = {module: _reachable(edges, module) for module in edges}
    found = {
        tuple(sorted(other for other in reachable[module] if module in reachable[other]))
        for module in edges
        if module in reachable[module]
    }
    return [list(members) for members in sorted(found)]


def _reachable(edges: Mapping[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = [*edges[start]]
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += edges[module]
    return found
