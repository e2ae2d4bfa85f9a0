"""A length of time has its unit in its type or in its name."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Module

TIMES = {"age", "deadline", "delay", "interval", "timeout"}
TYPES = {"Duration", "timedelta"}


def unitless(tree: ast.Module) -> list[str]:
    """Return the public parameters and fields that hold a time of an unknown unit."""
    return [
        f"{owner}: {name}"
        for owner, name, annotation in _named(tree)
        if TIMES & set(name.lower().split("_"))
        and not name.endswith("_seconds")
        and not _says_unit(name, annotation)
    ]


def _says_unit(name: str, annotation: ast.expr | None) -> bool:
    words = set[str]() if annotation is None else _words(annotation)
    # A deadline may also be a point in time, and a boolean is not a time.
    return bool(words & TYPES) or "bool" in words or ("deadline" in name and "datetime" in words)


def _words(annotation: ast.expr) -> set[str]:
    text = ast.unparse(annotation)
    return set("".join(c if c.isalnum() or c == "_" else " " for c in text).split())


def _named(tree: ast.Module) -> Iterator[tuple[str, str, ast.expr | None]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _parameters(node, node.name)
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for member in node.body:
                match member:
                    case ast.FunctionDef() | ast.AsyncFunctionDef():
                        yield from _parameters(member, f"{node.name}.{member.name}")
                    case ast.AnnAssign(target=ast.Name(id=name)) if not name.startswith("_"):
                        yield node.name, name, member.annotation
                    case _:
                        pass


def _parameters(
    function: ast.FunctionDef | ast.AsyncFunctionDef, owner: str
) -> Iterator[tuple[str, str, ast.expr | None]]:
    if function.name.startswith("_") and function.name != "__init__":
        return
    arguments = function.args
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        yield owner, argument.arg, argument.annotation


def test_times_have_a_unit(modules: list[Module]) -> None:
    """Every public time is a `timedelta` or a `Duration`, or its name ends in `_seconds`."""
    found = {module.name: unitless(module.tree) for module in modules if module.is_public}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_unitless_times_are_noticed() -> None:
    """A bare number gives a complaint in any place; types and names with units do not."""
    bad = """
def wait(timeout: float, *, poll_interval=1): ...
class Settings:
    max_age: int = 3
    def __init__(self, delay: float): ...
"""
    good = """
def wait(timeout: timedelta | None, delay_seconds: float, stage: int): ...
def _private(timeout: float): ...
class Notice:
    deadline: datetime | None
    _delay: float
    max_age: Duration = Duration(0)
"""
    assert unitless(ast.parse(bad)) == [
        "wait: timeout",
        "wait: poll_interval",
        "Settings: max_age",
        "Settings.__init__: delay",
    ]
    assert unitless(ast.parse(good)) == []
