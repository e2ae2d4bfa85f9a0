"""Runs one attempt of one job on a connection to an instance.

A job uses one channel, and a few more if files are copied; `script` describes
the other end. The directories of jobs are removed in batches: while one `rm` runs,
the jobs that end are collected, and the next `rm` removes all their directories.
Slots, retries and job states are the subject of `runner`.
"""

from __future__ import annotations

import itertools
import math
import os
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import anyio
import anyio.to_thread

from fleeting import foreign, open_regular
from fleeting.abc import CopyBudget
from fleeting.errors import ConnectionLost, TransferFailed
from fleeting.types import Completed, Duration
from taskscaler._errors import WorkspaceFailed
from taskscaler.jobs import script
from taskscaler.jobs.framing import Framing, new_token
from taskscaler.jobs.paths import check_reported, outermost
from taskscaler.jobs.result import describe_exit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import timedelta
    from pathlib import Path
    from typing import BinaryIO

    from anyio import AsyncFile

    from fleeting.abc import Connection
    from taskscaler.jobs.job import JobRun

__all__ = ("Execution", "Executor", "JobStreams")

# How much of what a login shell wrote is quoted.
_QUOTED_BYTES = 500
# How long a login shell may take until the script begins.
START_SECONDS = 120.0
_CHUNK_BYTES = 256 * 1024
# How long the removal of a directory may take after a cancellation.
REMOVAL_SECONDS = 10.0
# How long one `rm` may take otherwise; all jobs that end on its instance wait for it.
SHARED_REMOVAL_SECONDS = 60.0
# How long the files of one entry of `download` may take: the job's timeout, but at least the first
# value, because a timeout of a script does not depend on file sizes; without a timeout, the second.
LEAST_DOWNLOAD_SECONDS = 60.0
DOWNLOAD_SECONDS = 3600.0
# How many entries of directories may be looked at for each file that may be downloaded.
LISTED_PER_FILE = 10
# How long an ended job waits for other jobs on its instance to end, to share one `rm`.
COLLECT_SECONDS = 0.02


class JobStreams(Protocol):
    """Receives the output of one attempt; the script waits until a call returns."""

    async def stdout(self, data: bytes, /) -> None:
        """Receive a chunk of standard output."""

    async def stderr(self, data: bytes, /) -> None:
        """Receive a chunk of standard error."""


@dataclass(frozen=True, slots=True)
class Execution:
    """How one execution of a script ended.

    Attributes:
        completed: how the script ended.
        warnings: problems that do not change how it ended.
        download_error: why not all files could be downloaded; None if all were.
    """

    completed: Completed
    warnings: tuple[str, ...] = ()
    download_error: str | None = None


class Executor:
    """Runs scripts on instances, for one call of the command."""

    def __init__(self) -> None:
        self._run_id = secrets.token_hex(4)
        self._numbers = itertools.count(1)
        self._removals: dict[tuple[str, str], _Removal] = {}

    async def execute(
        self,
        connection: Connection,
        instance: str,
        run: JobRun,
        streams: JobStreams,
        *,
        user: str = "",
    ) -> Execution:
        """Run one attempt in a new directory, and remove the directory afterwards.

        A cancellation ends the script, within the job's `grace_period`, and the directory is
        still removed, within `REMOVAL_SECONDS`.

        Args:
            connection: to the instance; it stays open.
            instance: the id of the instance.
            run: the run to execute.
            streams: receives the output.
            user: the user of the connection, if the slot has it for itself: then every other
                process of this user ends with the attempt. Empty otherwise.

        Raises:
            ConnectionLost: the connection broke; how far the script got is unknown.
            TransferFailed: a local file cannot be read.
            WorkspaceFailed: the instance could not store the files, start the script or run it to
                its end.
        """
        directory = script.directory_name(self._run_id, next(self._numbers), run.name)
        removal = self._removals.setdefault((instance, user), _Removal(owns_user=bool(user)))
        removal.jobs += 1
        try:
            execution = await self._execute(connection, run, directory, streams)
            problem = await removal.remove(connection, directory)
        except ConnectionLost:
            raise  # The instance is replaced, and its directories with it.
        except BaseException:
            with anyio.move_on_after(REMOVAL_SECONDS, shield=True):
                await removal.remove(connection, directory)
            raise
        finally:
            removal.jobs -= 1
        return replace(execution, warnings=(*execution.warnings, problem)) if problem else execution

    async def _execute(
        self, connection: Connection, run: JobRun, directory: str, streams: JobStreams
    ) -> Execution:
        timeout = run.job.timeout
        completed = Completed(None, timed_out=True)
        with anyio.move_on_after(timeout.total_seconds() if timeout else None):
            if run.uploads:
                await _upload(connection, run, directory)
            completed = await self._run_script(connection, run, directory, streams)
        if not run.job.download:
            return Execution(completed)
        warnings, error = await _download(connection, run, script.working_directory(directory))
        return Execution(completed, tuple(warnings), error)

    async def _run_script(
        self, connection: Connection, run: JobRun, directory: str, streams: JobStreams
    ) -> Completed:
        attempt = _Attempt(streams, run.job.grace_period)
        command = script.bootstrap(directory, attempt.token, exists=bool(run.uploads))
        line = script.script_line(run.job.script, run.job.env)
        try:
            with attempt.starting:
                if run.job.stdin is None:
                    return await attempt.run(connection, command, line)
                async with await _open(run.folder / run.job.stdin) as file:
                    return await attempt.run(connection, command, attempt.chunks(line, file))
        finally:
            await attempt.framing.close()
        raise WorkspaceFailed(
            f"the script did not begin within {Duration(seconds=START_SECONDS)}: its login shell "
            f"does not run the command{attempt.quoted_noise()}"
        )


class _Attempt:
    """One script that runs, and the proof that it did.

    Attributes:
        token: of its marks.
        framing: finds them.
        starting: the time that it has to begin.
    """

    def __init__(self, streams: JobStreams, grace: timedelta) -> None:
        self._grace = grace
        self.token = new_token()
        self.framing = Framing(self.token, streams.stderr, self._on_begin)
        self.starting = anyio.move_on_after(START_SECONDS)
        self._streams = streams
        self._begun = anyio.Event()

    async def run(
        self, connection: Connection, command: str, stdin: bytes | AsyncIterator[bytes]
    ) -> Completed:
        """Run the script to its end; return how it ended, with its own status.

        Raises:
            WorkspaceFailed: it is not proved that the script began, or that it came to its end.
        """
        completed = await connection.run(
            command,
            stdin=stdin,
            stdout=self._stdout,
            stderr=self.framing.write,
            grace=self._grace,
        )
        framing = self.framing
        if framing.failed:
            reason = _quoted(framing.noise[-_QUOTED_BYTES:]) or "no reason given"
            raise WorkspaceFailed(f"could not start the script: {reason}")
        ending = describe_exit(completed.status, completed.signal)
        if not framing.begun:
            raise WorkspaceFailed(
                f"the script did not begin: its login shell ended with {ending} "
                f"instead of running the command{self.quoted_noise()}"
            )
        if framing.status is not None:
            return replace(completed, status=framing.status, signal=None)
        if completed.succeeded:
            raise WorkspaceFailed(
                f"the script did not come to its end, although the instance reports {ending}"
            )
        return completed

    async def chunks(self, line: bytes, file: AsyncFile[bytes]) -> AsyncIterator[bytes]:
        """Yield the input: the rest of it only when the script is there to read it."""
        yield line
        await self._begun.wait()
        while data := await file.read(_CHUNK_BYTES):
            yield data

    def quoted_noise(self) -> str:
        """Return what was written instead of the script's output, to end a sentence."""
        noise = _quoted(self.framing.noise[-_QUOTED_BYTES:])
        return f", and wrote: {noise}" if noise else ", and wrote nothing"

    def _on_begin(self) -> None:
        self.starting.deadline = math.inf
        self._begun.set()

    async def _stdout(self, data: bytes) -> None:
        self.framing.keep_noise(data)
        await self._streams.stdout(data)


class _Removal:
    """Removes the directories of one user of an instance in batches.

    The job that holds the lock removes all directories that were collected by then. A job
    that gets the lock later, and whose directory is gone, has nothing to do.
    """

    def __init__(self, *, owns_user: bool) -> None:
        self.jobs = 0
        self._owns_user = owns_user
        self._lock = anyio.Lock()
        self._waiting: set[str] = set()
        self._all_wait = anyio.Event()

    async def remove(self, connection: Connection, directory: str) -> str | None:
        """Remove a directory; return None, or a sentence why it could not be removed."""
        self._waiting.add(directory)
        if len(self._waiting) >= self.jobs:
            self._all_wait.set()
        async with self._lock:
            if directory not in self._waiting:
                return None
            await self._collect()
            batch, self._waiting = self._waiting, set()
            completed = None
            try:
                with anyio.move_on_after(SHARED_REMOVAL_SECONDS):
                    completed = await connection.run(
                        script.remove_directories(sorted(batch), owns_user=self._owns_user)
                    )
            except ConnectionLost:
                return None  # The instance is replaced, and its directories with it.
            except BaseException:
                self._waiting |= batch
                raise
        if completed is None:
            limit = Duration(seconds=SHARED_REMOVAL_SECONDS)
            return f"could not remove a working directory within {limit}"
        if completed.succeeded:
            return None
        reason = _quoted(completed.stderr)
        return f"could not remove a working directory: {reason}"

    async def _collect(self) -> None:
        """Wait a moment for other jobs to end, unless all have ended already."""
        if len(self._waiting) < self.jobs:
            self._all_wait = anyio.Event()
            with anyio.move_on_after(COLLECT_SECONDS):
                await self._all_wait.wait()


def _quoted(output: bytes) -> str:
    """Return the output of an instance as a part of a message."""
    return foreign(output.decode(errors="replace").strip().replace("\n", "; "))


async def _open(path: Path) -> AsyncFile[bytes]:
    """Open the file of a script's standard input; it existed when the command started."""
    try:
        return anyio.wrap_file(await anyio.to_thread.run_sync(_open_input, path))
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        text = f"stdin: {path} can no longer be read ({why})"
        raise TransferFailed(text, local=True) from None


def _open_input(path: Path) -> BinaryIO:
    return os.fdopen(open_regular(path), "rb")


async def _upload(connection: Connection, run: JobRun, directory: str) -> None:
    made = await connection.run(script.make_directory(directory))
    if not made.succeeded:
        reason = _quoted(made.stderr) or "no reason given"
        raise WorkspaceFailed(f"could not create a working directory: {reason}")
    work = script.working_directory(directory)
    for path in run.uploads:
        target = work if path == "." else f"{work}/{path}"
        try:
            await connection.put(run.folder / path, target)
        except TransferFailed as error:
            if error.local:
                raise
            raise WorkspaceFailed(f"could not upload {path}: {error}") from error


async def _download(connection: Connection, run: JobRun, work: str) -> tuple[list[str], str | None]:
    """Download all files; return the warnings, and the first error or None.

    A pattern that matches nothing is a warning; a file that cannot be copied is an error.
    """
    warnings: list[str] = []
    timeout = run.job.timeout
    seconds = max(timeout.total_seconds(), LEAST_DOWNLOAD_SECONDS) if timeout else DOWNLOAD_SECONDS
    limit = Duration(seconds=seconds)
    copied = CopyBudget(
        files=run.job.max_download_files,
        total_bytes=run.job.max_download_bytes,
        file_bytes=run.job.max_download_file_bytes,
    )
    for entry, destination in zip(run.job.download, run.targets, strict=True):
        pattern = entry if isinstance(entry, str) else entry.source
        error: str | None = f"took longer than {limit}"
        try:
            with anyio.move_on_after(limit.total_seconds()):
                matches, error = await _copy_back(connection, work, pattern, destination, copied)
                if not matches:
                    warnings.append(f"download {pattern!r}: no files match")
        except (TransferFailed, OSError) as failure:
            error = str(failure)
        if error is not None:
            return warnings, f"download {pattern!r}: {error}"
    return warnings, None


async def _copy_back(
    connection: Connection,
    work: str,
    pattern: str,
    destination: Path,
    budget: CopyBudget,
) -> tuple[int, str | None]:
    """Copy all matches.

    Returns:
        How many there are, and an error if the instance reports a path outside the destination.
    """
    # Looking for files is charged separately, because it reports the same ones.
    looking = CopyBudget(files=LISTED_PER_FILE * (budget.files + 1))
    paths = await connection.glob(f"{work}/{pattern}", budget=looking)
    names = {path.removeprefix(f"{work}/") for path in paths if path != work}
    for name in outermost(names):
        checked = check_reported(name)
        if checked is None:
            why = f"the instance reported the path {name!r}, which is outside {destination}"
            return len(names), why
        # Another job may have put a link into the directory in the meantime.
        target = destination / checked
        budget.charge_path(name)
        await connection.get(f"{work}/{name}", target, follow=False, budget=budget)
    return len(names), None
