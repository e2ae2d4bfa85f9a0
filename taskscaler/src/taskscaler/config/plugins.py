"""Checks of the plugins that a `config.toml` names, and of their settings."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fleeting import Problem, Registry, examine_settings, parse_reference, use_provider
from fleeting.errors import ConfigError, PluginError, PluginNotFound, ProviderError
from fleeting.types import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fleeting import GroupConfigEntry
    from taskscaler.config.autoscaler import AutoscalerConfig
    from taskscaler.config.runners import RunnerConfig

_MISSING = re.compile(r"the key '(.+)' is missing; add it")

__all__ = ("missing_plugins", "named_plugins", "plugin_settings")


def named_plugins(config: AutoscalerConfig, path: str) -> Iterator[Problem]:
    """Find names of plugins that are malformed, or that are names of GitLab's programs.

    Args:
        config: the table of an autoscaler.
        path: the path of the table.
    """
    written = [(f"{path}.plugin", config.plugin)]
    written += [
        (f"{path}.extensions.group[{index}].plugin", entry.plugin)
        for index, entry in enumerate(config.extensions.group)
    ]
    for place, text in written:
        try:
            note = parse_reference(text).note if text else ""
        except ConfigError as error:
            yield Problem(place, str(error))
        else:
            if note:
                yield Problem(place, note, Severity.INFO)


def plugin_settings(
    runners: Sequence[RunnerConfig], wrong: Sequence[Problem]
) -> tuple[list[Problem], list[str]]:
    """Check the settings of each installed plugin and of its connector; this imports plugins.

    Args:
        runners: all runners of a file.
        wrong: the problems that are known already.

    Returns:
        The problems, and the paths of the settings that were not checked, because their plugin is
        not installed.
    """
    problems: list[Problem] = []
    unchecked: list[str] = []
    registry = Registry()
    known = {problem.path for problem in wrong if problem.severity is Severity.ERROR}
    for path, group in _groups(runners):
        settings = f"{path}.plugin_config"
        if not group.plugin or settings in known:
            continue  # It has been reported already.
        try:
            registry.check_connector(group.connector)
        except ConfigError as error:
            key, _, text = str(error).partition(": ")
            problems.append(Problem(f"{path}.{key}", text))
        try:
            shape = use_provider(registry, group.plugin).config_type
            _, found = examine_settings(group.plugin_config, shape)
        except PluginNotFound:
            unchecked.append(settings)
        except ConfigError:
            continue  # `named_plugins` reports it.
        except (PluginError, ProviderError) as error:
            problems.append(Problem(f"{path}.plugin", str(error)))
        else:
            problems += [
                Problem(f"{settings}.{p.path}".rstrip("."), p.text)
                for p in found
                if not _is_misplaced(p, known)
            ]
    return problems, unchecked


def _is_misplaced(problem: Problem, known: set[str]) -> bool:
    """Return whether a missing key stands in the table above, which is reported already."""
    missing = _MISSING.fullmatch(problem.text)
    return missing is not None and any(path.endswith(f".autoscaler.{missing[1]}") for path in known)


def missing_plugins(runners: Sequence[RunnerConfig]) -> list[str]:
    """Return the names of the plugins that are not installed, each once."""
    installed = {one.name for one in Registry().providers()}
    names = {
        parse_reference(group.plugin).name: None for _, group in _groups(runners) if group.plugin
    }
    return [name for name in names if name not in installed]


def _groups(runners: Sequence[RunnerConfig]) -> Iterator[tuple[str, GroupConfigEntry]]:
    """Yield each group with the path of the table that has its plugin."""
    for index, runner in enumerate(runners):
        if runner.autoscaler is not None:
            above = f"runners[{index}].autoscaler"
            several = bool(runner.autoscaler.extensions.group)
            for number, group in enumerate(runner.autoscaler.groups()):
                yield f"{above}.extensions.group[{number}]" if several else above, group
