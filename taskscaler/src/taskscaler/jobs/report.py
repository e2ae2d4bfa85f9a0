"""The report of a run: one JSON object with `jobs`, `instances` and `summary`."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fleeting.errors import ConfigError
from taskscaler.jobs.result import JobState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from taskscaler import InstanceSummary
    from taskscaler.jobs.result import JobResult

__all__ = ("Report", "check_writable", "write_report")


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that a run leaves behind in numbers.

    Attributes:
        results: of all runs of jobs.
        instances: every instance that there was.
        started_at: when the run began.
        finished_at: when it was over and the instances were removed.
        exit_code: of the command.
        error: why the run as a whole failed; None if it did not.
        group_names: the operator's names of groups, by their ids.
    """

    results: Sequence[JobResult]
    instances: Sequence[InstanceSummary]
    started_at: datetime
    finished_at: datetime
    exit_code: int
    error: str | None = None
    group_names: Mapping[str, str] = field(default_factory=dict[str, str])

    def as_dict(self) -> dict[str, Any]:
        """Return what is written, as plain values."""
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
                "error": self.error,
                "started_at": self.started_at,
                "finished_at": self.finished_at,
                "seconds": (self.finished_at - self.started_at).total_seconds(),
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


def check_writable(path: Path) -> None:
    """Find out, before anything is started, whether a report can be written there.

    Raises:
        ConfigError: it cannot.
    """
    try:
        reason = _not_replaceable(path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
    if reason is not None:
        raise ConfigError(
            f"--report {path}: it cannot be written ({reason}); name a file in a folder of yours"
        )


def _not_replaceable(path: Path) -> str | None:
    if path.is_dir():
        return "it is a folder"
    if path.exists() and not path.is_file():
        # Replaced by a file, `/dev/null` would be one for everybody.
        return "it is a pipe or a device"
    try:
        folder = path.resolve().parent
    except RuntimeError:
        return "it is a link to itself"
    with tempfile.TemporaryFile(dir=folder):
        return None


def write_report(path: Path, report: Report) -> None:
    """Write a report so that whoever looks sees the old file or the whole new one.

    If the path is a link, what it leads to is replaced, and not the link.

    Raises:
        OSError: it cannot be written; an older report stays.
    """
    path = path.resolve()
    text = msgspec.json.format(msgspec.json.encode(report.as_dict()), indent=2)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text + b"\n")
            os.fchmod(file.fileno(), 0o666 & ~_umask())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
