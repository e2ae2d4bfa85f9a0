"""Every key and option that a user can set is described in the documentation."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import inspect
import re
import sys
from typing import TYPE_CHECKING, Any

import click
import msgspec
import pytest

from fleeting import json_schema
from taskscaler.config import FileConfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from types import ModuleType

    from .conftest import Module

FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
EXAMPLE = re.compile(r"^```toml\n.*?^```", re.MULTILINE | re.DOTALL)
# A key before its `=`, in a table in braces too, or the last part of a table's own name.
SHOWN = re.compile(r"(?:^|[{,])[ ]*(\w+)[ ]*=|^\[+(?:\w+\.)*(\w+)\]", re.MULTILINE)
COMMANDS = importlib.metadata.entry_points(group="console_scripts")
OURS = [command for command in COMMANDS if command.name in {"fleeting", "taskscaler"}]


def spans(texts: Iterable[str]) -> set[str]:
    """Return the code spans of running text; blocks are examples, not descriptions."""
    return {span for text in texts for span in SPAN.findall(FENCE.sub("", text))}


def keys(module: ModuleType) -> Iterator[str]:
    """Yield the keys of the strict structs of a module, which decode files that users write."""
    for value in vars(module).values():
        if (
            inspect.isclass(value)
            and issubclass(value, msgspec.Struct)
            and value.__module__ == module.__name__
            and value.__struct_config__.forbid_unknown_fields
        ):
            yield from value.__struct_encode_fields__


def options(command: click.Command, path: str) -> Iterator[tuple[str, str]]:
    """Yield each option of a command and of those below it, with the command's name."""
    context = click.Context(command, info_name=path)
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            yield from ((path, name) for name in (*parameter.opts, *parameter.secondary_opts))
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from options(below, f"{path} {name}")


def undescribed(names: Iterable[str], described: set[str]) -> list[str]:
    """Return the names that are not a code span, nor the beginning of one."""
    known = {re.split(r"[ =,]", span, maxsplit=1)[0] for span in described} | described
    return sorted(set(names) - known)


def main_command(loaded: Any) -> click.Command:
    """Return the click command behind the function of an entry point.

    The function is in the module of the command, or imports it from `_commands` when it runs.
    """
    if isinstance(loaded, click.Command):
        return loaded
    home = loaded.__module__
    if importlib.util.find_spec(f"{home}._commands") is not None:
        home = importlib.import_module(f"{home}._commands").__name__
    commands = [
        value for value in vars(sys.modules[home]).values() if isinstance(value, click.Group)
    ]
    # The module also imports groups of further commands, which are below the main one.
    below = {id(command) for group in commands for command in group.commands.values()}
    main = [command for command in commands if id(command) not in below]
    assert len(main) == 1, f"{home} should have one main click group: {main}"
    return main[0]


@pytest.fixture(scope="session")
def described(files: list[Path], root: Path) -> set[str]:
    """Return the code spans of the documentation: `docs/`, and each plugin's own page."""
    pages = [
        path
        for path in files
        if path.suffix == ".md" and path.relative_to(root).parts[0] in {"docs", "plugins"}
    ]
    return spans(page.read_text() for page in pages)


def test_every_key_is_described(modules: list[Module], described: set[str]) -> None:
    """Each key of a configuration or jobs file is in the documentation as code."""
    # A provider for tests has no entry point, so its keys are not in any file.
    read = [module for module in modules if "testing" not in module.name.split(".")]
    missing = {module.name: undescribed(keys(module.load()), described) for module in read}
    assert {name: wanting for name, wanting in missing.items() if wanting} == {}


@pytest.mark.parametrize("entry", OURS, ids=lambda entry: entry.name)
def test_every_option_is_described(
    entry: importlib.metadata.EntryPoint, described: set[str]
) -> None:
    """Each option of each command is in the documentation as code."""
    found = dict(options(main_command(entry.load()), entry.name))
    assert found, f"{entry.name} has no options at all"
    names = [name for _, name in options(main_command(entry.load()), entry.name)]
    assert undescribed(names, described) == []


def test_every_key_of_the_operators_file_has_an_example(root: Path) -> None:
    """Each key of the operator's file is in an example."""
    page = (root / "docs" / "operators" / "config.md").read_text()
    examples = "\n".join(EXAMPLE.findall(page))
    shown = {key for found in SHOWN.findall(examples) for key in found}
    definitions = json_schema(FileConfig)["$defs"].values()
    wanted = {key for one in definitions for key in one.get("properties", {})}
    assert len(wanted) > 60
    assert sorted(wanted - shown) == []


def test_undescribed_names_are_noticed() -> None:
    """A key or an option that is only in prose or in a block is not described."""
    page = "Set `idle_count`, or `--max N`.\nOnly idle_time.\n```toml\ngone = `x`\n```\n`other`"
    described = spans([page])
    names = ["idle_count", "--max", "idle_time", "gone", "other", "x"]
    assert undescribed(names, described) == ["gone", "idle_time", "x"]


def test_keys_and_options_are_found() -> None:
    """The fields of strict structs and the options of nested commands are found."""

    class Strict(msgspec.Struct, forbid_unknown_fields=True, rename={"from_": "from"}):
        from_: str

    class Lenient(msgspec.Struct):
        ignored: str

    @click.group
    @click.option("--above/--no-above")
    def group() -> None:
        pass

    @group.command
    @click.option("-b", "--below")
    def inner() -> None:
        pass

    module = type(sys)(__name__)
    module.__dict__.update({"Strict": Strict, "Lenient": Lenient})
    assert list(keys(module)) == ["from"]
    assert list(options(group, "x")) == [
        ("x", "--above"),
        ("x", "--no-above"),
        ("x inner", "-b"),
        ("x inner", "--below"),
    ]
