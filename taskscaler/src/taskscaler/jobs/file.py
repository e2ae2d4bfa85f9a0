"""The jobs file: read, checked, and expanded into the runs of its jobs.

Everything that can be wrong is said at once and before anything is started:
keys, values, names, and what a job wants to upload or read.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from fleeting import Problem, examine, read_toml
from fleeting.errors import ConfigError
from fleeting.types import Duration, Severity
from taskscaler.config import AutoscalerConfig, config_error, conflicts_of, out_of_range
from taskscaler.jobs.files import find_uploads, readable, unsafe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ("Download", "Job", "JobRun", "JobsFile", "check_job", "expand", "read_jobs_file")

# A folder is named like the run, and file systems take names of 255 bytes.
NAME_LENGTH = 200
# Each run takes a few hundred bytes from its beginning to the report.
RUNS_LIMIT = 1_000_000
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Download(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to bring back, and where to.

    Attributes:
        source: a path or a glob below the job's working directory; `from` in the file.
        to: a folder here, relative to the jobs file.
    """

    source: str = msgspec.field(name="from")
    to: str


class Job(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[jobs]]`: a script to run on an instance, and what belongs to it.

    Attributes:
        name: unique in its file.
        script: lines of one shell script, which stops at the first failing one.
        env: variables of its environment, besides those of the instance.
        timeout: how long uploads and script may take together.
        count: how often to run it.
        retries: how many further attempts a run has after the infrastructure failed.
        upload: paths and globs here, to be copied into the working directory.
        download: paths and globs in the working directory, to be copied here afterwards.
        stdin: a file here that the script reads as its standard input.
    """

    name: str
    script: list[str]
    env: dict[str, str] = {}
    timeout: Duration | None = None
    count: int = 1
    retries: int = 0
    upload: list[str] = []
    download: list[str | Download] = []
    stdin: str | None = None


class JobsFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A jobs file.

    Attributes:
        autoscaler: where the jobs run.
        jobs: in the order in which they are started.
    """

    autoscaler: AutoscalerConfig = AutoscalerConfig()
    jobs: list[Job] = []


@dataclass(frozen=True, slots=True)
class JobRun:
    """One run of a job, ready to be started.

    Attributes:
        name: the job's, with `#` and a number if there are several runs.
        job: what to do.
        folder: what the job's paths are relative to.
        uploads: the files and folders to copy, relative to `folder`.
    """

    name: str
    job: Job
    folder: Path
    uploads: tuple[str, ...] = field(default=())


def read_jobs_file(path: Path, *, autoscaler: bool = True) -> tuple[AutoscalerConfig, list[JobRun]]:
    """Read a jobs file, check all of it, and expand it into runs.

    Args:
        path: of the file.
        autoscaler: whether it may say where the jobs run.

    Raises:
        ConfigError: with a sentence for each thing that is wrong.
    """
    data = read_toml(path)
    if "autoscaler" in data and not autoscaler:
        raise ConfigError(
            f"{path}: autoscaler: the file that --config names says already where the jobs run; "
            "remove this table, or leave --config out"
        )
    file, problems = examine(data, JobsFile)
    if file is not None:
        problems += out_of_range(file.autoscaler, "autoscaler")
        problems += conflicts_of(file.autoscaler, "autoscaler")
    if file is not None and not any(problem.path.startswith("jobs") for problem in problems):
        problems += _wrong_jobs(file.jobs)
    errors = [problem for problem in problems if problem.severity is Severity.ERROR]
    if file is None or errors:
        raise config_error(path, errors)
    return file.autoscaler, expand(file.jobs, path.parent, where=str(path))


def expand(jobs: Sequence[Job], folder: Path, *, where: str) -> list[JobRun]:
    """Turn jobs into their runs, in order, and find the files that they want.

    Args:
        jobs: checked by `check_job`.
        folder: what their paths are relative to.
        where: names the source of the jobs in messages.

    Raises:
        ConfigError: a file that a job wants is missing, or there are more than `RUNS_LIMIT` runs.
    """
    total = sum(job.count for job in jobs)
    if total > RUNS_LIMIT:
        raise ConfigError(
            f"{where}: {total} runs of jobs are more than the {RUNS_LIMIT} that one run of the "
            "command can have; lower the count"
        )
    runs: list[JobRun] = []
    problems: list[Problem] = []
    for index, job in enumerate(jobs):
        uploads, missing = find_uploads(folder, job.upload)
        problems += [Problem(f"jobs[{index}].upload", problem) for problem in missing]
        if job.stdin is not None and (problem := readable(folder / job.stdin)):
            problems.append(Problem(f"jobs[{index}].stdin", problem))
        names = [job.name] if job.count == 1 else [f"{job.name}#{n + 1}" for n in range(job.count)]
        runs += [JobRun(name, job, folder, uploads) for name in names]
    if problems:
        raise config_error(where, problems)
    return runs


def check_job(job: Job) -> Iterator[str]:
    """Find what is wrong with a job by itself; each problem names the key in front."""
    yield from _wrong_name(job.name)
    if not any(line.strip() for line in job.script):
        yield 'script: there is nothing to run; write for instance script = ["make test"]'
    if any("\0" in line for line in job.script):
        yield "script: a NUL character cannot be passed to a shell; remove it"
    for variable, value in job.env.items():
        if "\0" in value:
            yield f"env: the value of {variable!r} has a NUL character, which cannot be; remove it"
        if not _VARIABLE.fullmatch(variable):
            yield (
                f"env: {variable!r} is no name for a variable; use letters, digits and '_', "
                "and no digit in front"
            )
    if job.timeout is not None and job.timeout <= Duration(0):
        yield f'timeout: {str(job.timeout)!r} is too short; write for instance "10m"'
    if job.count < 1:
        yield f"count: {job.count} is not 1 or more; leave the job out if it is not to run"
    if job.retries < 0:
        yield f"retries: {job.retries} is not 0 or more; 0 means that the first attempt is the last"
    yield from _wrong_paths(job)


def _wrong_name(name: str) -> Iterator[str]:
    if not _NAME.fullmatch(name) or not name.strip("."):
        yield (
            f"name: {name!r} is no name for a job; use letters, digits, '.', '_' and '-', "
            "and not dots alone"
        )
    elif len(name) > NAME_LENGTH:
        yield f"name: it has {len(name)} characters; use at most {NAME_LENGTH}"


def _wrong_paths(job: Job) -> Iterator[str]:
    uploads = [("upload", pattern) for pattern in job.upload]
    downloads = [
        ("download", entry if isinstance(entry, str) else entry.source) for entry in job.download
    ]
    for key, pattern in uploads + downloads:
        if problem := unsafe(pattern):
            yield f"{key}: {problem}"
    for entry in job.download:
        if isinstance(entry, Download) and "\0" in entry.to:
            yield f"download: {entry.to!r} cannot be the name of a folder; write another"


def _wrong_jobs(jobs: Sequence[Job]) -> Iterator[Problem]:
    if not jobs:
        text = "there are no jobs in it; write at least one [[jobs]] table with a name and a script"
        yield Problem("", text)
    for index, job in enumerate(jobs):
        for problem in check_job(job):
            yield Problem("", f"jobs[{index}].{problem}")
    for name, times in Counter(job.name for job in jobs).items():
        if times > 1:
            yield Problem("jobs", f"{times} jobs are named {name!r}; give each a name of its own")
