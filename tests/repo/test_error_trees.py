"""The tree of errors in a docstring is the tree of the classes."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import pytest

import fleeting.errors
import taskscaler._errors

if TYPE_CHECKING:
    from types import ModuleType

    from .conftest import Module

TREES = (fleeting.errors, taskscaler._errors)
STROKES = ("├", "└", "│")


def own_errors(module: ModuleType) -> list[type[BaseException]]:
    """Return the exceptions that a module defines, in the order in which it does."""
    return [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, BaseException)
        and value.__module__ == module.__name__
    ]


def draw(errors: list[type[BaseException]]) -> list[str]:
    """Return the lines of the drawing of these classes."""

    def below(parent: type[BaseException], indent: str) -> list[str]:
        children = [error for error in errors if parent in error.__bases__]
        lines: list[str] = []
        for child in children:
            is_last = child is children[-1]
            lines.append(f"{indent}{'└' if is_last else '├'}── {child.__name__}")
            lines += below(child, indent + ("    " if is_last else "│   "))
        return lines

    roots = [error for error in errors if not set(error.__bases__) & set(errors)]
    return [line for root in roots for line in (root.__name__, *below(root, ""))]


def drawn(docstring: str) -> list[str]:
    """Return the lines of the drawings in a docstring: a root, and the tree below it."""
    lines = docstring.splitlines()
    is_drawn = [line.lstrip().startswith(STROKES) for line in lines]
    follows = [*is_drawn[1:], False]
    return [
        line
        for line, own, next_ in zip(lines, is_drawn, follows, strict=True)
        if own or (next_ and line)
    ]


@pytest.mark.parametrize("module", TREES, ids=lambda module: module.__name__)
def test_drawing_equals_classes(module: ModuleType) -> None:
    """The drawing has the classes' names, nesting and order."""
    assert drawn(module.__doc__ or "") == draw(own_errors(module))


def test_every_public_error_is_in_a_drawing(modules: list[Module]) -> None:
    """Public exceptions are only defined in modules that draw their tree."""
    strays = [
        f"{module.name}.{error.__name__}"
        for module in modules
        if module.is_public and module.name not in {tree.__name__ for tree in TREES}
        for error in own_errors(module.load())
        if not error.__name__.startswith("_")
    ]
    assert strays == []


def test_wrong_drawings_are_noticed() -> None:
    """A missing class, another order and another nesting all differ from the drawing."""

    class Root(Exception):
        pass

    class First(Root):
        pass

    class Second(First):
        pass

    class Third(Root):
        pass

    class Fourth(Third):
        pass

    good = ["Root", "├── First", "│   └── Second", "└── Third", "    └── Fourth"]
    assert drawn("\n".join(["Errors.", "", *good, "", "Prose."])) == good
    assert draw([Root, First, Second, Third, Fourth]) == good
    assert draw([Root, First, Second, Third]) != good
    assert draw([Root, Third, Fourth, First, Second]) != good
    assert drawn("Root\n├── First\n├── Second\n└── Third\n    └── Fourth\n") != good
