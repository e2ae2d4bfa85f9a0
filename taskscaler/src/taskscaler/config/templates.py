"""Values of a `config.toml` that something else fills in: variables and templates.

GitLab Runner expands variables of its environment in `url` and `token`. A template that is left in
another value names a group, a plugin or a file that does not exist.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, cast

from fleeting import Problem, key_path, template_in
from fleeting.types import Severity
from taskscaler.config.runners import short_token

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ("left_templates", "with_environment")

_VARIABLE = re.compile(r"\$(?:\{(?P<braced>[^}]*)\}|(?P<bare>\w+))")
_EXPANDED = ("url", "token")
_FOR_SCALING = ("limit", "name", "id", "autoscaler")
# A shell runs this one, and `${name}` is a variable to it.
_OF_A_SHELL = "instance_ready_command"


def with_environment(
    data: Mapping[str, Any], environment: Mapping[str, str] = os.environ
) -> tuple[dict[str, Any], list[Problem]]:
    """Return a file with the variables in the URL and the token of each runner expanded.

    Of each token, only the start is kept.

    Args:
        data: a whole `config.toml`, of any shape.
        environment: the values of the variables.

    Returns:
        The new tables, and a problem for each variable that is not set; it counts as empty.
    """
    problems: list[Problem] = []
    runners = data.get("runners")
    if not isinstance(runners, list):
        return dict(data), problems
    expanded = [
        _runner(cast("dict[str, Any]", runner), f"runners[{index}]", environment, problems)
        if isinstance(runner, dict)
        else runner
        for index, runner in enumerate(cast("list[object]", runners))
    ]
    return {**data, "runners": expanded}, problems


def _runner(
    runner: dict[str, Any], path: str, environment: Mapping[str, str], problems: list[Problem]
) -> dict[str, Any]:
    changed = dict(runner)
    for key in _EXPANDED:
        text = runner.get(key)
        if not isinstance(text, str):
            continue
        names = [match["braced"] or match["bare"] or "" for match in _VARIABLE.finditer(text)]
        problems += [
            Problem(
                f"{path}.{key}",
                f"the environment variable {name[:100]!r} is not set, and counts as empty",
                Severity.WARNING,
            )
            for name in names
            if name not in environment
        ]
        filled = _VARIABLE.sub(
            lambda match: environment.get(match["braced"] or match["bare"] or "", ""), text
        )
        if key == "token":
            filled = short_token(filled)
        changed[key] = filled
    return changed


def left_templates(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Find the values for scaling that still contain a template.

    Args:
        data: a whole `config.toml`, of any shape.

    Yields:
        The path of each value, and words about its template.
    """
    runners = data.get("runners")
    for index, runner in enumerate(cast("list[Any]", runners) if isinstance(runners, list) else ()):
        if isinstance(runner, dict):
            path = f"runners[{index}]"
            table = cast("dict[str, Any]", runner)
            scaling = {key: table[key] for key in _FOR_SCALING if key in table}
            yield from _templates(scaling, path)
    yield from _templates(data.get("concurrent"), "concurrent")


def _templates(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, below in cast("dict[str, Any]", value).items():
            if key != _OF_A_SHELL:
                yield from _templates(below, key_path(key, path))
    elif isinstance(value, list):
        for index, item in enumerate(cast("list[Any]", value)):
            yield from _templates(item, f"{path}[{index}]")
    elif isinstance(value, str) and (found := template_in(value)):
        yield path, f"{found}; render the file first"
