"""The core has layers: the machine applies rules, rules read and change the model."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from tests.repo.imports import has_private_part, home, imports, is_within

if TYPE_CHECKING:
    from .conftest import Module

CORE = "taskscaler.core"
MODEL, RULES, MACHINE = f"{CORE}.model", f"{CORE}.rules", f"{CORE}.machine"


def forbidden(importer: str, imported: str, modules: set[str]) -> str | None:
    """Return why a module may not import a name of the core, or None if it may."""
    target = home(imported, modules) or ""
    if not is_within(target, CORE):
        reason = None
    elif not is_within(importer, CORE):
        reason = None if target == CORE else f"import it from {CORE}, the door of the core"
    elif target == CORE and importer != CORE:
        reason = "a module of the core imports the module that defines a name, not the door"
    elif is_within(importer, MODEL) and not is_within(target, MODEL):
        reason = "the model knows neither rules nor the machine"
    elif is_within(importer, RULES) and is_within(target, MACHINE):
        reason = "a rule does not know the machine that applies it"
    elif is_within(target, RULES) and has_private_part(imported):
        reason = "this name is private to its rule"
    else:
        reason = None
    return reason


def complaints(
    name: str, tree: ast.Module, modules: set[str], *, is_package: bool = False
) -> list[str]:
    """Return a complaint for each import of a module that crosses a layer."""
    return [
        f"{name} imports {imported}: {reason}"
        for imported in imports(tree, name, is_package=is_package)
        if (reason := forbidden(name, imported, modules))
    ]


def test_layers_of_the_core(modules: list[Module]) -> None:
    """The model imports no rule, no rule imports the machine, and others use the door."""
    names = {module.name for module in modules}
    assert {MODEL, RULES, MACHINE} <= names
    found = [
        complaint
        for module in modules
        for complaint in complaints(
            module.name, module.tree, names, is_package=module.path.stem == "__init__"
        )
    ]
    assert not found, "\n".join(found)


def test_crossed_layers_are_noticed() -> None:
    """Each forbidden import gives a complaint, also one for typing only."""
    wrong = {
        f"{MODEL}.group": f"if TYPE_CHECKING:\n    from {RULES}.growth import grow",
        f"{MODEL}.slots": f"from {MACHINE} import ScalerState",
        f"{RULES}.growth": f"from {MACHINE} import ScalerState",
        f"{RULES}.health": f"from {RULES}.growth import _step",
        f"{RULES}.removal": f"from {CORE} import Settings",
        "taskscaler.runtime.driver": f"from {MODEL}.group import Group",
    }
    right = {
        f"{RULES}.growth": f"from {MODEL}.group import Group\nfrom {RULES} import placing",
        MACHINE: f"from {RULES}.growth import grow",
        CORE: f"from {MACHINE} import ScalerState",
        "taskscaler.runtime.driver": f"from {CORE} import ScalerState, effects",
    }
    modules = {*wrong, *right, f"{RULES}.placing", RULES, MODEL}
    assert [n for n, text in wrong.items() if not complaints(n, ast.parse(text), modules)] == []
    assert [c for n, text in right.items() for c in complaints(n, ast.parse(text), modules)] == []
