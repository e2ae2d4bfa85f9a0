"""All text reaches the terminal by one door, which escapes what is not ours and hides secrets."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Module

# Calls that write to a standard stream, or log a traceback, which shows values of the program.
WRITES = frozenset({"click.echo", "click.secho", "click.echo_via_pager", "traceback.print_exc"})
# Of the library rich; it prints, unless it is given a file.
CONSOLES = frozenset({"RichConsole"})
METHODS = frozenset({"exception", "print_exception"})
STREAMS = frozenset({"sys.stdout", "sys.stderr", "sys.__stdout__", "sys.__stderr__"})
# The door itself, and `main`, which has to report a Ctrl-C before the door is imported.
ALLOWED = frozenset({"fleeting._text", "fleeting.cli", "taskscaler.cli"})


def writes(tree: ast.Module) -> Iterator[str]:
    """Yield the line of each call that passes by the door."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "exc_info":
            yield f"line {node.value.lineno}: exc_info"
        if isinstance(node, ast.ImportFrom) and node.module == "rich.console":
            yield from (
                f"line {node.lineno}: import Console as RichConsole"
                for alias in node.names
                if alias.name == "Console" and alias.asname != "RichConsole"
            )
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        above, _, method = name.rpartition(".")
        files = [keyword.arg for keyword in node.keywords]
        if (
            name in WRITES | {"print"}
            or (name in CONSOLES and "file" not in files)
            or (above in STREAMS and method.startswith("write"))
            or (above in {"logger", "_log", "logging"} and method in METHODS)
        ):
            yield f"line {node.lineno}: {name}"


def is_ours(name: str) -> bool:
    """Return whether a module belongs to a command or to what runs inside of it."""
    return name not in ALLOWED and not name.startswith("fleeting.testing")


def test_all_text_passes_the_door(modules: list[Module]) -> None:
    """No module writes to a standard stream except by `say`, `say_json` and `show`."""
    found = [
        f"{module.name}: {where}"
        for module in modules
        if is_ours(module.name)
        for where in writes(module.tree)
    ]
    assert not found, "use `say`, `say_json` or `show`; log `describe_bug(error, where=True)`"


@pytest.mark.parametrize(
    "code",
    [
        "click.echo(text)",
        "print(text)",
        "sys.stderr.write(text)",
        "RichConsole(width=80)",
        "from rich.console import Console",
        "logger.exception('lost')",
        "logger.error('lost', exc_info=True)",
    ],
)
def test_a_way_around_the_door_is_found(code: str) -> None:
    """Each of the usual ways to print is seen."""
    assert [*writes(ast.parse(code))]
    assert not [*writes(ast.parse("say(text)\nlogger.error('%s', text)\nwriter.print(table)"))]
