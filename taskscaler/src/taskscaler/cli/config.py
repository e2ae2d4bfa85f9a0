"""`taskscaler config`: check a config.toml, show its settings, print its JSON Schema."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleeting import say, say_json, show

if TYPE_CHECKING:
    from fleeting import Problem
    from taskscaler.config import RunnerFile
    from taskscaler.config.effective import EffectiveValue

__all__ = ("config",)

_FILE = click.argument("file", type=click.Path(path_type=Path))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


@click.group(short_help="Check or show a config.toml.")
def config() -> None:
    """Check or show a config.toml of GitLab Runner that has [runners.autoscaler] tables.

    \b
    Examples:
      taskscaler config check config.toml
      taskscaler config show --runner builders config.toml
      taskscaler config check --json config.toml | jq .problems
      taskscaler config schema > config.schema.json
    """  # noqa: D301 -- \b is click's mark for a paragraph to leave alone


@config.command("check", short_help="Report all problems of a file.")
@_FILE
@_JSON
def _check(file: Path, *, as_json: bool) -> int:
    """Report all errors and warnings of FILE; nothing is started.

    Exit code: 0 valid, 2 invalid. Errors and warnings go to standard error.
    """
    from fleeting import Problem
    from fleeting.errors import ConfigError
    from fleeting.types import Severity
    from taskscaler.config import check_config

    read: RunnerFile | None = None
    unchecked: list[str] = []
    try:
        read, problems, unchecked = check_config(file)
    except ConfigError as error:
        problems = [Problem("", text.removeprefix(f"{file}: ")) for text in error.problems]
    if as_json:
        _print_json(_as_json(file, read, problems) | {"unchecked": unchecked})
    else:
        _print_problems(file, problems)
    if any(problem.severity is Severity.ERROR for problem in problems):
        return 2
    if read is not None and not as_json:
        _summarize(read, unchecked)
    return 0


@config.command("show", short_help="Print the effective settings.")
@_FILE
@click.option("--runner", metavar="NAME", help="Show this runner only.  [default: all]")
@_JSON
def _show(file: Path, *, runner: str | None, as_json: bool) -> int:
    """Print the effective settings, and where each value comes from; secrets are masked.

    A warning names each plugin that is not installed. Exit code: 0, or 2 if FILE is invalid.
    """
    from dataclasses import asdict

    from fleeting.errors import ConfigError
    from fleeting.types import Severity
    from taskscaler.config import check_config
    from taskscaler.config.effective import effective_values, toml_lines
    from taskscaler.config.plugins import missing_plugins
    from taskscaler.config.reading import read_tables

    try:
        read, problems, _ = check_config(file)
        _print_problems(file, problems)
        if any(problem.severity is Severity.ERROR for problem in problems):
            return 2
        chosen = [r for r in read.runners if r.autoscaler is not None]
        if runner is not None:
            chosen = [read.runner(runner)]
        tables = read_tables(file)[0]["runners"]
    except ConfigError as error:
        return _print_errors(error)
    # Compare by identity: two runners may have equal settings.
    written = {id(r): table for r, table in zip(read.runners, tables, strict=True)}
    values = [effective_values(r, written[id(r)], file) for r in chosen]
    missing = missing_plugins(chosen)
    values = [[_with_installation(value, missing) for value in found] for found in values]
    if as_json:
        _print_json([[asdict(value) for value in found] for found in values])
        return 0
    # It has no secrets, and its strings are printable. A setting that happens to have the text of
    # a password, such as the name of a runner, is shown.
    show("\n\n".join("\n".join(toml_lines(found)) for found in values) + "\n")
    return 0


@config.command("schema", short_help="Print a JSON Schema, for editors.")
def _schema() -> int:
    """Print the JSON Schema of config.toml, for editors."""
    from fleeting import json_schema
    from taskscaler.config import FileConfig

    _print_json(json_schema(FileConfig))
    return 0


def _with_installation(value: EffectiveValue, missing: list[str]) -> EffectiveValue:
    """Say of a plugin that it is not installed."""
    from dataclasses import replace

    from fleeting import parse_reference

    if value.key != "plugin" or not isinstance(value.value, str) or not value.value:
        return value
    name = parse_reference(value.value).name
    hint = f"{value.source}; not installed, run `fleeting install {name}`"
    return replace(value, source=hint) if name in missing else value


def _print_errors(error: Any) -> int:
    for problem in error.problems:
        say(f"error: {problem}", err=True)
    return 2


def _print_problems(file: Path, problems: list[Problem]) -> None:
    for problem in problems:
        say(f"{problem.severity.value}: {file}: {problem}", err=True)


def _summarize(read: RunnerFile, unchecked: list[str]) -> None:
    from taskscaler.config.plugins import missing_plugins

    names = ", ".join(
        repr(runner.name) if runner.name else f"runners[{index}], which has no name"
        for index, runner in enumerate(read.runners)
        if runner.autoscaler is not None
    )
    say(f"{read.path}: valid; runners with an autoscaler: {names or 'none'}")
    for name in missing_plugins(read.runners):
        say(f"the plugin {name!r} is not installed; run `fleeting install {name}`")
    if unchecked:
        say(f"not checked (plugin not installed): {', '.join(unchecked)}")
    if read.ignored:
        say(f"ignored (not used for scaling): {', '.join(read.ignored)}")


def _as_json(file: Path, read: RunnerFile | None, problems: list[Problem]) -> dict[str, Any]:
    runners = read.runners if read is not None else ()
    return {
        "file": str(file),
        "problems": [
            {"severity": problem.severity.value, "path": problem.path, "text": problem.text}
            for problem in problems
        ],
        "ignored": list(read.ignored) if read is not None else [],
        "runners": [runner.name for runner in runners if runner.autoscaler is not None],
    }


def _print_json(value: Any) -> None:
    import json

    say_json(json.dumps(value, indent=2, ensure_ascii=False))
