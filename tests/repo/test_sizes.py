"""Files and functions are short enough to be read in one go."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

FILE_LINES = 500
FUNCTION_LINES = 50


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function without its decorators and its docstring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    match function.body[0]:
        case ast.Expr(value=ast.Constant(value=str())) as docstring:
            return lines - ((docstring.end_lineno or 0) - docstring.lineno + 1)
        case _:
            return lines


def long_functions(tree: ast.Module) -> list[str]:
    """Return a complaint for each function that is too long."""
    return [
        f"{node.name} (line {node.lineno}) has {length(node)} lines"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and length(node) > FUNCTION_LINES
    ]


def too_long(text: str) -> bool:
    """Return whether a file has too many lines."""
    return len(text.splitlines()) > FILE_LINES


def test_files_are_short(files: list[Path]) -> None:
    """No Python file and no script has more than 500 lines."""
    scripts = [path for path in files if path.suffix == ".py" or ".ci" in path.parts]
    assert [str(path) for path in scripts if too_long(path.read_text())] == []


def test_functions_are_short(sources: dict[Path, ast.Module]) -> None:
    """No function has more than 50 lines, its docstring not counted."""
    complaints = {str(path): long_functions(tree) for path, tree in sources.items()}
    assert {path: found for path, found in complaints.items() if found} == {}


def test_long_files_are_noticed() -> None:
    """A file of 501 lines is too long, one of 500 is not."""
    assert too_long("x\n" * 501)
    assert not too_long("x\n" * 500)


def test_long_functions_are_noticed() -> None:
    """A body of 50 lines under its signature is too much; a docstring does not count."""
    docstring = '    """Say.\n\n    More.\n    """\n'
    long = "async def f():\n" + docstring + "    x = 1\n" * 50
    short = "class A:\n  def f(self):\n" + docstring + "    x = 1\n" * 48
    assert long_functions(ast.parse(long)) == ["f (line 1) has 51 lines"]
    assert long_functions(ast.parse(short)) == []
