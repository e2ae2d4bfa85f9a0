"""Reads the jobs file and checks it completely before anything is started."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from fleeting import Problem, examine, read_toml
from fleeting.errors import ConfigError
from fleeting.types import Severity
from taskscaler.config import AutoscalerConfig, config_error, conflicts_of, out_of_range
from taskscaler.jobs.job import Job, check_job, expand

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from taskscaler.jobs.job import JobRun

__all__ = ("JobsFile", "read_jobs_file")


class JobsFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A jobs file.

    Attributes:
        autoscaler: where the jobs run.
        jobs: in the order in which they are started.
    """

    autoscaler: AutoscalerConfig = AutoscalerConfig()
    jobs: list[Job] = []


def read_jobs_file(path: Path, *, autoscaler: bool = True) -> tuple[AutoscalerConfig, list[JobRun]]:
    """Read a jobs file, check all of it, and expand it into runs.

    Args:
        path: of the file.
        autoscaler: whether the file may contain the table `autoscaler`.

    Raises:
        ConfigError: the file is invalid; it has one sentence for each problem.
    """
    data = read_toml(path)
    if "autoscaler" in data and not autoscaler:
        raise ConfigError(
            f"{path}: autoscaler: not allowed together with --config, which already says where "
            "the jobs run; remove this table, or leave --config out"
        )
    file, problems = examine(data, JobsFile)
    if file is not None:
        problems += out_of_range(file.autoscaler, "autoscaler")
        problems += conflicts_of(file.autoscaler, "autoscaler")
    if file is not None and not any(problem.path.startswith("jobs") for problem in problems):
        problems += _check_jobs(file.jobs)
    errors = [problem for problem in problems if problem.severity is Severity.ERROR]
    if file is None or errors:
        raise config_error(path, errors)
    return file.autoscaler, expand(file.jobs, path.parent, where=str(path))


def _check_jobs(jobs: Sequence[Job]) -> Iterator[Problem]:
    if not jobs:
        yield Problem("", "no jobs are defined; add a [[jobs]] table with a name and a script")
    for index, job in enumerate(jobs):
        for problem in check_job(job):
            yield Problem("", f"jobs[{index}].{problem}")
    for name, times in Counter(job.name for job in jobs).items():
        if times > 1:
            yield Problem("jobs", f"{times} jobs are named {name!r}; give each one a unique name")
