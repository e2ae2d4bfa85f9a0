"""The report of one call of `taskscaler run`, and its exit code.

The report is one JSON object with `jobs`, `instances` and `summary`.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fleeting import plain
from fleeting.errors import ConfigError
from taskscaler.jobs.result import JobState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from taskscaler._summaries import InstanceSummary
    from taskscaler.jobs.result import JobResult

__all__ = ("RunReport", "check_report_path", "exit_code", "write_report")


def exit_code(
    states: Sequence[JobState], *, interrupted: bool, wrong_input: bool, infrastructure: bool
) -> int:
    """Return the exit code of the command.

    If several codes apply, the first of 130 (interrupted), 2 (wrong input), 3 (failure of the
    infrastructure), 1 (a job did not succeed) is returned.
    """
    if interrupted:
        return 130
    if wrong_input:
        return 2
    if infrastructure or JobState.SYSTEM_FAILURE in states:
        return 3
    return 0 if all(state is JobState.SUCCESS for state in states) else 1


@dataclass(frozen=True, slots=True)
class RunReport:
    """The jobs, the instances and the totals of one call of the command.

    Attributes:
        results: of all runs, in order.
        instances: every instance that the scaler knew.
        started_at: when the command started.
        finished_at: when the scaler was closed.
        exit_code: of the command.
        seconds: how long it took, by a clock that only goes forward.
        error: why the command failed as a whole; None if it did not.
        group_names: the names of the groups in the file, by id.
    """

    results: Sequence[JobResult]
    instances: Sequence[InstanceSummary]
    started_at: datetime
    finished_at: datetime
    exit_code: int
    seconds: float
    error: str | None = None
    group_names: Mapping[str, str] = field(default_factory=dict[str, str])

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values, ready for JSON."""
        states = Counter(result.state for result in self.results)
        finals = [state for state in JobState if state.is_final]
        return {
            "jobs": [_job(result, self.group_names) for result in self.results],
            "instances": [_instance(record, self.group_names) for record in self.instances],
            "summary": {
                "total": len(self.results),
                **{state.value: states[state] for state in finals},
                "instances": len(self.instances),
                "exit_code": self.exit_code,
                "error": self.error and plain(self.error),
                "started_at": self.started_at,
                "finished_at": self.finished_at,
                "seconds": self.seconds,
            },
        }


def _job(result: JobResult, group_names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": result.name,
        "state": result.state.value,
        "reason": result.reason,
        "exit_code": result.exit_code,
        "signal": result.signal,
        "attempts": result.attempts,
        "earlier": result.earlier,
        "group": result.group,
        "group_name": group_names.get(result.group or ""),
        "instance": result.instance,
        "slot": result.slot,
        "queued_at": result.queued_at,
        "started_at": result.started_at,
        "finished_at": result.finished_at,
        "wait_seconds": result.wait_seconds,
        "run_seconds": result.run_seconds,
        "warnings": result.warnings,
    }


def _instance(record: InstanceSummary, group_names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": record.id,
        "group": record.group,
        "group_name": group_names.get(record.group),
        "created_at": record.created_at,
        "ready_at": record.ready_at,
        "removed_at": record.removed_at,
        "removal_reason": record.removal_reason,
        "tasks_run": record.tasks,
    }


def check_report_path(path: Path) -> Path:
    """Check before anything is started that the report can be written.

    Returns:
        The path without symbolic links: one that a job downloads later must not lead the
        report elsewhere.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        reason = _not_replaceable(path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
    if reason is not None:
        raise ConfigError(
            f"--report {path}: cannot write the report ({reason}); name a file in a directory "
            "that you can write to"
        )
    return path.resolve()


def _not_replaceable(path: Path) -> str | None:
    if path.is_dir():
        return "it is a directory"
    if path.exists() and not path.is_file():
        # The report replaces the file; replacing `/dev/null` would break other programs.
        return "it is a pipe or a device"
    try:
        folder = path.resolve().parent
    except RuntimeError:
        return "it is a symbolic link to itself"
    with tempfile.TemporaryFile(dir=folder):
        return None


def write_report(path: Path, report: RunReport) -> None:
    """Write a report atomically: a reader sees the old file or the complete new one.

    If the path is a symbolic link, the link is replaced; see `check_report_path`.

    Raises:
        OSError: the report cannot be written; an older file is unchanged.
    """
    text = _json(report.as_dict())
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text + b"\n")
            os.fchmod(file.fileno(), 0o666 & ~_umask())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _json(report: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.format(msgspec.json.encode(report), indent=2)
    except UnicodeEncodeError:
        # A plugin has reported text that is not UTF-8; the standard library escapes it.
        return json.dumps(msgspec.to_builtins(report), indent=2).encode()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
