"""A job: a script with its files and limits; its checks, and its expansion into runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import msgspec

from fleeting import Problem
from fleeting.errors import ConfigError
from fleeting.types import Duration
from taskscaler.config import config_error
from taskscaler.jobs.paths import check_pattern, check_readable, find_uploads, resolve_target

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ("Download", "Job", "JobRun", "check_job", "expand", "run_names")

# The run names a directory, and file systems limit names to 255 bytes.
NAME_LENGTH = 200
# Each run takes a few hundred bytes of memory until the report is written.
RUNS_LIMIT = 1_000_000
# An instance can send files without end.
MAX_DOWNLOAD_BYTES = 10 * 1024**3
MAX_DOWNLOAD_FILES = 100_000
# An operator who cancels a run waits for it.
MAX_GRACE_PERIOD = Duration(minutes=5)
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Download(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Files to download, and where to put them.

    Attributes:
        source: a path or a glob relative to the job's working directory; `from` in the file.
        to: a local directory, relative to the jobs file.
    """

    source: str = msgspec.field(name="from")
    to: str


class Job(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[jobs]]`: a script to run on an instance, with its files and limits.

    Attributes:
        name: unique in its file.
        script: lines of one shell script, which stops at the first line that fails.
        env: environment variables, added to those of the instance.
        timeout: how long uploads and script may take together; None is unlimited.
        grace_period: how long a script that is timed out or cancelled may take to end.
        count: how often to run it.
        retries: how many more attempts a run gets after a failure of the infrastructure.
        upload: local paths and globs, copied into the working directory.
        follow_links: whether uploads may follow symbolic links out of the directory.
        download: paths and globs in the working directory, copied back afterwards.
        max_download_bytes: how many bytes a run may download in total.
        max_download_files: how many files, directories and links a run may download.
        max_download_file_bytes: how large one of these files may be; None is the total.
        stdin: a local file for the script's standard input; None is empty input.
    """

    name: str
    script: list[str]
    env: dict[str, str] = {}
    timeout: Duration | None = None
    grace_period: Duration = Duration(seconds=10)
    count: Annotated[int, msgspec.Meta(ge=1)] = 1
    retries: Annotated[int, msgspec.Meta(ge=0)] = 0
    upload: list[str] = []
    follow_links: bool = False
    download: list[str | Download] = []
    max_download_bytes: Annotated[int, msgspec.Meta(ge=0)] = MAX_DOWNLOAD_BYTES
    max_download_files: Annotated[int, msgspec.Meta(ge=0)] = MAX_DOWNLOAD_FILES
    max_download_file_bytes: Annotated[int, msgspec.Meta(ge=0)] | None = None
    stdin: str | None = None


@dataclass(frozen=True, slots=True)
class JobRun:
    """One run of a job, ready to start.

    Attributes:
        name: the job's name, followed by `#` and a number if its `count` is more than 1.
        job: the job to run.
        folder: the directory that the job's local paths are relative to.
        uploads: the files and directories to upload, relative to `folder`.
        targets: the local directory of each entry of `download`, as it was before any job
            started; no symbolic link in it is followed any more.
    """

    name: str
    job: Job
    folder: Path
    uploads: tuple[str, ...] = ()
    targets: tuple[Path, ...] = ()


def expand(jobs: Sequence[Job], folder: Path, *, where: str) -> list[JobRun]:
    """Return the runs of all jobs, in order, with the files to upload.

    Args:
        jobs: checked by `check_job`.
        folder: the directory that their local paths are relative to.
        where: the source of the jobs, for messages.

    Raises:
        ConfigError: a local file is missing, or there are more than `RUNS_LIMIT` runs.
    """
    total = sum(job.count for job in jobs)
    if total > RUNS_LIMIT:
        raise ConfigError(
            f"{where}: the jobs must have at most {RUNS_LIMIT} runs in total, got {total}; lower "
            "their count"
        )
    runs: list[JobRun] = []
    problems: list[Problem] = []
    for index, job in enumerate(jobs):
        uploads, missing = find_uploads(folder, job.upload, follow_links=job.follow_links)
        problems += [Problem(f"jobs[{index}].upload", problem) for problem in missing]
        if job.stdin is not None and (problem := check_readable(folder / job.stdin)):
            problems.append(Problem(f"jobs[{index}].stdin", problem))
        targets, wrong = _targets(job, folder)
        problems += [Problem(f"jobs[{index}].download", problem) for problem in wrong]
        runs += [
            JobRun(name, job, folder, uploads, tuple(_own(job, name, targets)))
            for name in run_names(job.name, job.count)
        ]
    if problems:
        raise config_error(where, problems)
    return runs


def run_names(name: str, count: int) -> Iterator[str]:
    """Yield the names of the runs of a job."""
    if count == 1:
        yield name
    else:
        yield from (f"{name}#{number}" for number in range(1, count + 1))


def _targets(job: Job, folder: Path) -> tuple[list[Path], list[str]]:
    """Return the local directory of each entry of `download`, and what is wrong with them."""
    targets: list[Path] = []
    problems: list[str] = []
    for entry in job.download:
        try:
            targets.append(resolve_target(folder if isinstance(entry, str) else folder / entry.to))
        except OSError as error:
            problems.append(f"{error}; name another directory")
    return targets, problems


def _own(job: Job, name: str, targets: Sequence[Path]) -> Iterator[Path]:
    """Yield the directories of one run: the runs of a job must not overwrite each other's files."""
    for entry, target in zip(job.download, targets, strict=False):
        yield target / name if isinstance(entry, str) or job.count > 1 else target


def check_job(job: Job) -> Iterator[str]:
    """Yield what is wrong with a job; each problem starts with the name of the key."""
    yield from _check_name(job.name)
    if not any(line.strip() for line in job.script):
        yield 'script: must not be empty; for example: script = ["make test"]'
    if any("\0" in line for line in job.script):
        yield "script: must not contain a NUL character; remove it"
    for variable, value in job.env.items():
        if "\0" in value:
            yield f"env: the value of {variable!r} must not contain a NUL character; remove it"
        if not _VARIABLE.fullmatch(variable):
            yield (
                f"env: {variable!r} is not a valid variable name; use letters, digits and '_', "
                "and do not start with a digit"
            )
    if job.timeout is not None and job.timeout <= Duration(0):
        yield f'timeout: must be more than 0s, got "{job.timeout}"; write for example "10m"'
    if not Duration(0) <= job.grace_period <= MAX_GRACE_PERIOD:
        yield (
            f'grace_period: must be between 0s and {MAX_GRACE_PERIOD}, got "{job.grace_period}"; '
            'write for example "10s"'
        )
    yield from _check_paths(job)


def _check_name(name: str) -> Iterator[str]:
    if not _NAME.fullmatch(name) or not name.strip("."):
        yield (
            f"name: {name!r} is not a valid job name; use letters, digits, '.', '_' and '-', "
            "and not only dots"
        )
    elif len(name) > NAME_LENGTH:
        yield f"name: must have at most {NAME_LENGTH} characters, got {len(name)}; shorten it"


def _check_paths(job: Job) -> Iterator[str]:
    uploads = [("upload", pattern) for pattern in job.upload]
    downloads = [
        ("download", entry if isinstance(entry, str) else entry.source) for entry in job.download
    ]
    for key, pattern in uploads + downloads:
        if problem := check_pattern(pattern):
            yield f"{key}: {problem}"
    for entry in job.download:
        if isinstance(entry, Download) and "\0" in entry.to:
            yield f"download: 'to' must not contain a NUL character, got {entry.to!r}; remove it"
