"""Reading a `config.toml`, with every problem reported at once.

The file belongs to GitLab Runner as much as to us. Every key below
`[runners.autoscaler]` is checked. Elsewhere the keys that matter for scaling are
read, and the other keys are listed as ignored.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from fleeting import Problem, as_gitlab_reads, examine, key_path, read_toml
from fleeting.errors import ConfigError
from fleeting.types import Severity
from taskscaler.config.combinations import conflicts
from taskscaler.config.elsewhere import ignored_keys, unknown_elsewhere, with_right_table
from taskscaler.config.plugins import named_plugins, plugin_settings
from taskscaler.config.purpose import nothing_to_scale
from taskscaler.config.ranges import out_of_range
from taskscaler.config.runners import FileConfig
from taskscaler.config.templates import left_templates, with_environment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from taskscaler.config.runners import RunnerConfig

__all__ = (
    "RunnerFile",
    "check_config",
    "config_error",
    "examine_config",
    "read_config",
    "read_tables",
)

# More problems would scroll the first ones away, and one mistake often causes many.
PROBLEMS_SHOWN = 20
_PLACE = re.compile(r"runners\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class RunnerFile:
    """The contents of a `config.toml` that matter for scaling.

    Attributes:
        path: the file.
        concurrent: the most jobs at once over all runners; 0 means no limit.
        runners: all runners, in the order of the file.
        warnings: likely mistakes; one sentence each with file, key path, mistake and fix.
        ignored: the paths of keys that have no effect here.
    """

    path: Path
    concurrent: int
    runners: tuple[RunnerConfig, ...]
    warnings: tuple[str, ...]
    ignored: tuple[str, ...]

    def runner(self, name: str | None) -> RunnerConfig:
        """Return the runner with this name, or the only runner that has an autoscaler.

        Raises:
            ConfigError: no runner, or more than one runner, matches.
        """
        scaled = [runner for runner in self.runners if runner.autoscaler is not None]
        found = [runner for runner in scaled if name is None or runner.name == name]
        if len(found) == 1:
            return found[0]
        names = ", ".join(repr(runner.name) for runner in scaled)
        if not scaled:
            raise ConfigError(f"{self.path}: no runner has a table [runners.autoscaler]; add one")
        if name is None:
            raise ConfigError(
                f"{self.path}: {len(scaled)} runners have an autoscaler; choose one: {names}"
            )
        if found:
            raise ConfigError(
                f"{self.path}: {len(found)} runners are named {name!r}; give each a different name"
            )
        raise ConfigError(
            f"{self.path}: no runner with an autoscaler is named {name!r}; the file has: {names}"
        )


def read_config(path: Path) -> RunnerFile:
    """Read and check a whole `config.toml`.

    Raises:
        ConfigError: with one sentence for each mistake.
    """
    file, problems = examine_config(path)
    if any(problem.severity is Severity.ERROR for problem in problems):
        raise config_error(path, problems)
    return file


def examine_config(path: Path) -> tuple[RunnerFile, list[Problem]]:
    """Read the valid part of a `config.toml`, and report the mistakes in the rest.

    Returns:
        The contents, with the default for each wrong value: do not use them if a problem is
        an error. And all problems in the order of the file, warnings and notes included.

    Raises:
        ConfigError: the file cannot be read, or is not TOML.
    """
    data, problems = read_tables(path)
    config, wrong = examine(data, FileConfig)
    problems += [with_right_table(problem) for problem in wrong]
    config = config or FileConfig()
    for index, runner in enumerate(config.runners):
        if runner.autoscaler is not None:
            table = f"runners[{index}].autoscaler"
            problems += out_of_range(runner.autoscaler, table)
            problems += named_plugins(runner.autoscaler, table)
    problems += conflicts(config, path, [problem.path for problem in problems])
    problems += nothing_to_scale(data, config)
    problems += unknown_elsewhere(data)
    problems = _with_templates(problems, data)
    problems = [_named(problem, config.runners) for problem in _in_order(problems, data)]
    warnings = [problem for problem in problems if problem.severity is Severity.WARNING]
    file = RunnerFile(
        path=path,
        concurrent=config.concurrent or 0,
        runners=tuple(config.runners),
        warnings=tuple(f"{path}: {problem}" for problem in warnings),
        ignored=tuple(ignored_keys(data)),
    )
    return file, problems


def read_tables(path: Path) -> tuple[dict[str, Any], list[Problem]]:
    """Read the tables of a `config.toml` as GitLab Runner reads them.

    Returns:
        The tables, with the start of each token only, and the problems of this step.

    Raises:
        ConfigError: the file cannot be read, or is not TOML.
    """
    data, problems = as_gitlab_reads(read_toml(path), FileConfig)
    data, unset = with_environment(data)
    return data, problems + unset


def check_config(path: Path) -> tuple[RunnerFile, list[Problem], list[str]]:
    """Check a whole `config.toml`, and the settings of the plugins that are installed.

    Returns:
        The contents and the problems as in `examine_config`, and the paths of the settings whose
        plugin is not installed.

    Raises:
        ConfigError: the file cannot be read, or is not TOML.
    """
    file, problems = examine_config(path)
    wrong, unchecked = plugin_settings(file.runners, problems)
    data, _ = read_tables(path)
    problems += [_named(problem, file.runners) for problem in wrong]
    return file, _in_order(problems, data), unchecked


def _in_order(problems: Iterable[Problem], data: Mapping[str, Any]) -> list[Problem]:
    """Sort problems by the order of their keys in the file.

    Args:
        problems: to sort; the path of each may be of a key that is missing in the file.
        data: the tables of the file.
    """
    places = {path: number for number, path in enumerate(_paths(data, ""))}

    def place(problem: Problem) -> tuple[int, bool]:
        path = problem.path
        while path and path not in places:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return places.get(path, -1), path != problem.path

    return sorted(problems, key=place)


def _paths(value: Any, path: str) -> Iterator[str]:
    if path:
        yield path
    if isinstance(value, dict):
        for key, below in cast("dict[str, Any]", value).items():
            yield from _paths(below, key_path(key, path))
    elif isinstance(value, list):
        for index, item in enumerate(cast("list[Any]", value)):
            yield from _paths(item, f"{path}[{index}]")


def _with_templates(problems: Sequence[Problem], data: Mapping[str, Any]) -> list[Problem]:
    """Say that a value is a template, in place of the problems that this causes."""
    found = dict(left_templates(data))
    wrong = {problem.path: problem.severity for problem in problems}
    kept = [problem for problem in problems if problem.path not in found]
    return kept + [
        Problem(path, text, wrong.get(path, Severity.WARNING)) for path, text in found.items()
    ]


def _named(problem: Problem, runners: Sequence[RunnerConfig]) -> Problem:
    """Add the name of the runner, which operators know better than its number."""
    place = _PLACE.match(problem.path)
    name = runners[int(place[1])].name if place and int(place[1]) < len(runners) else ""
    return replace(problem, text=f"(runner {name[:100]!r}) {problem.text}") if name else problem


def config_error(where: object, problems: Sequence[Problem]) -> ConfigError:
    """Return the exception for some problems; it contains the errors only.

    Args:
        where: names the file in each sentence.
        problems: at least one of them is an error.
    """
    errors = [f"{where}: {p}" for p in problems if p.severity is Severity.ERROR]
    more = len(errors) - PROBLEMS_SHOWN
    if more > 0:
        errors[PROBLEMS_SHOWN:] = [f"and {more} more errors"]
    return ConfigError(*errors)
