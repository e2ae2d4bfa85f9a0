"""Files that have nothing to scale, and the reason why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from fleeting import Problem
from fleeting.types import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from taskscaler.config.runners import FileConfig

__all__ = ("nothing_to_scale",)

_MACHINE = "docker+machine"
_TABLE = "[runners.autoscaler]"


def nothing_to_scale(data: Mapping[str, Any], config: FileConfig) -> Iterator[Problem]:
    """Find out why no runner of a file is scaled, and which runners need to be migrated.

    Args:
        data: a whole `config.toml`, of any shape.
        config: the valid part of it.
    """
    scaled = any(runner.autoscaler is not None for runner in config.runners)
    severity = Severity.WARNING if scaled else Severity.ERROR
    explained = scaled
    for key in data:
        if key.lower() == "runner":
            yield Problem(key, "this table is ignored; write [[runners]]", severity)
            explained = True
        elif key.lower() == "jobs":
            text = (
                "jobs belong in a file of their own; run them with "
                "`taskscaler run --config CONFIG.toml JOBS.toml`"
            )
            yield Problem(key, text, severity)
            explained = True
    tables = data.get("runners", [])
    explained = explained or not isinstance(tables, list)  # The wrong type is reported.
    for index, table in enumerate(cast("list[Any]", tables) if isinstance(tables, list) else ()):
        if not isinstance(table, dict):
            continue
        runner = cast("dict[str, Any]", table)
        path = f"runners[{index}]"
        if isinstance(runner.get("autoscaler"), dict):
            explained = True  # Something else is wrong with it.
        elif "autoscaling" in runner:
            yield Problem(f"{path}.autoscaling", f"this table is ignored; write {_TABLE}", severity)
            explained = True
        elif runner.get("executor") == _MACHINE or "machine" in runner:
            text = (
                f"{_MACHINE} has another autoscaler, which GitLab Runner is about to remove; "
                "describe the instances in a table [runners.autoscaler] instead (see "
                '"From docker+machine" in docs/operators/config.md)'
            )
            yield Problem(f"{path}.executor", text, severity)
            explained = True
    if not explained:
        executors = sorted({runner.executor for runner in config.runners if runner.executor})
        used = f" (the runners use the executor {', '.join(executors)})" if executors else ""
        yield Problem(
            "runners", f"no runner has a table {_TABLE}, so nothing is scaled{used}; add one"
        )
