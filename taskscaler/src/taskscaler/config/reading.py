"""Reading a `config.toml`, with every problem reported at once.

The file belongs to GitLab Runner as much as to us. Every key below
`[runners.autoscaler]` is checked. Elsewhere the keys that matter for scaling are
read, and the other keys are listed as ignored.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fleeting import Problem, examine, read_toml
from fleeting.errors import ConfigError
from fleeting.types import Severity
from taskscaler.config.combinations import conflicts
from taskscaler.config.elsewhere import ignored_keys, unknown_elsewhere
from taskscaler.config.ranges import out_of_range
from taskscaler.config.runners import FileConfig

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from taskscaler.config.runners import RunnerConfig

__all__ = ("RunnerFile", "config_error", "examine_config", "read_config")

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
        an error. And all problems, warnings included.

    Raises:
        ConfigError: the file cannot be read, or is not TOML.
    """
    data = read_toml(path)
    config, problems = examine(data, FileConfig)
    config = config or FileConfig()
    for index, runner in enumerate(config.runners):
        if runner.autoscaler is not None:
            problems += out_of_range(runner.autoscaler, f"runners[{index}].autoscaler")
    problems += conflicts(config, [problem.path for problem in problems])
    problems += unknown_elsewhere(data)
    problems = [_named(problem, config.runners) for problem in problems]
    warnings = [problem for problem in problems if problem.severity is Severity.WARNING]
    file = RunnerFile(
        path=path,
        concurrent=config.concurrent,
        runners=tuple(config.runners),
        warnings=tuple(f"{path}: {problem}" for problem in warnings),
        ignored=tuple(ignored_keys(data)),
    )
    return file, problems


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
