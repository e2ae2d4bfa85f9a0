"""Runs one attempt of one job on a connection to an instance.

Per job there is one channel, and a few more if files travel; see `script` for
what happens at the other end. The removal of the directories is shared: while
one `rm` runs, the jobs that end meanwhile collect, and the next `rm` serves all
of them. Nothing here knows of slots, retries or states.
"""

from __future__ import annotations

import itertools
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import anyio

from fleeting.errors import ConnectionLost, TransferFailed
from fleeting.types import Completed, Duration
from taskscaler._errors import WorkspaceFailed
from taskscaler.jobs import script
from taskscaler.jobs.files import landing_place, outermost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from anyio import AsyncFile

    from fleeting.abc import Connection
    from taskscaler.jobs.file import Download, JobRun

__all__ = ("Executor", "JobStreams", "Outcome")

# What is left of standard error to recognise a failed start by, and to quote.
_TAIL_BYTES = 2048
_CHUNK_BYTES = 256 * 1024
# How long the removal of a directory may take once everything else has been given up.
REMOVAL_SECONDS = 10.0
# How long one `rm` may take otherwise; all who end on its instance wait for it meanwhile.
SHARED_REMOVAL_SECONDS = 60.0
# How long the files of one entry of `download` may take: as long as the job's timeout, but never
# less than the first, for that says nothing of their size; without one, the second.
LEAST_DOWNLOAD_SECONDS = 60.0
DOWNLOAD_SECONDS = 3600.0
# How long an ended job waits for others on its instance to end, so that one `rm` serves all.
COLLECT_SECONDS = 0.02


class JobStreams(Protocol):
    """Takes the output of one run; while it is busy, the script waits."""

    async def stdout(self, data: bytes, /) -> None:
        """Take some standard output."""

    async def stderr(self, data: bytes, /) -> None:
        """Take some standard error."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended.

    Attributes:
        completed: how the script ended.
        warnings: what else went wrong.
        lost_files: why what was to be downloaded is not all here; None if it is.
    """

    completed: Completed
    warnings: tuple[str, ...] = ()
    lost_files: str | None = None


class Executor:
    """Runs the jobs of one run of the command; knows which directories it made where."""

    def __init__(self) -> None:
        self._run_id = secrets.token_hex(4)
        self._marker = f"taskscaler-{secrets.token_hex(8)}"
        self._numbers = itertools.count(1)
        self._removals: dict[str, _Removal] = {}

    async def execute(
        self, connection: Connection, instance: str, run: JobRun, streams: JobStreams
    ) -> Outcome:
        """Run one attempt in a fresh directory, and remove that again.

        Cancelling ends the script and still removes the directory, within
        `REMOVAL_SECONDS`.

        Args:
            connection: to the instance; stays open.
            instance: its id.
            run: what to run.
            streams: where its output goes.

        Raises:
            ConnectionLost: what became of the script is not known.
            TransferFailed: an upload could not be copied.
            WorkspaceFailed: the script was not started.
        """
        directory = script.directory_name(self._run_id, next(self._numbers), run.name)
        removal = self._removals.setdefault(instance, _Removal())
        removal.jobs += 1
        try:
            outcome = await self._attempt(connection, run, directory, streams)
            problem = await removal.remove(connection, directory)
        except ConnectionLost:
            raise  # The instance is replaced, and its directories with it.
        except BaseException:
            with anyio.move_on_after(REMOVAL_SECONDS, shield=True):
                await removal.remove(connection, directory)
            raise
        finally:
            removal.jobs -= 1
        return replace(outcome, warnings=(*outcome.warnings, problem)) if problem else outcome

    async def _attempt(
        self, connection: Connection, run: JobRun, directory: str, streams: JobStreams
    ) -> Outcome:
        timeout = run.job.timeout
        completed = Completed(None, timed_out=True)
        with anyio.move_on_after(timeout.total_seconds() if timeout else None):
            if run.uploads:
                await _upload(connection, run, directory)
            completed = await self._run_script(connection, run, directory, streams)
        if not run.job.download:
            return Outcome(completed)
        warnings, lost = await _download(connection, run, script.working_directory(directory))
        return Outcome(completed, tuple(warnings), lost)

    async def _run_script(
        self, connection: Connection, run: JobRun, directory: str, streams: JobStreams
    ) -> Completed:
        command = script.bootstrap(directory, self._marker, exists=bool(run.uploads))
        line = script.script_line(run.job.script, run.job.env)
        errors = _Errors(streams, f"{self._marker}\n".encode())
        if run.job.stdin is None:
            completed = await connection.run(
                command, stdin=line, stdout=streams.stdout, stderr=errors
            )
        else:
            async with await _open(run.folder / run.job.stdin) as file:
                completed = await connection.run(
                    command, stdin=_chunks(line, file), stdout=streams.stdout, stderr=errors
                )
        if errors.marked and completed.status == script.BOOTSTRAP_STATUS:
            said = errors.tail.decode(errors="replace").strip().replace("\n", "; ")
            raise WorkspaceFailed(
                f"the script could not be started: {said or 'it is not said why'}"
            )
        return completed


class _Errors:
    """Passes standard error on, and notices the word that says that no script was started."""

    def __init__(self, streams: JobStreams, marker: bytes) -> None:
        self._streams = streams
        self._marker = marker
        self.marked = False
        self.tail = b""

    async def __call__(self, data: bytes) -> None:
        if self._marker in data:
            self.marked = True
            data = data.replace(self._marker, b"")
        self.tail = (self.tail + data)[-_TAIL_BYTES:]
        await self._streams.stderr(data)


class _Removal:
    """Removes the directories of one instance, many at a time.

    Whoever holds the lock removes what has collected by then, for everybody; who
    gets it later and finds its directory gone has nothing left to do.
    """

    def __init__(self) -> None:
        self.jobs = 0
        self._lock = anyio.Lock()
        self._waiting: set[str] = set()
        self._all_wait = anyio.Event()

    async def remove(self, connection: Connection, directory: str) -> str | None:
        """Return once the directory is gone, or a sentence saying why it is not."""
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
                    completed = await connection.run(script.remove_directories(sorted(batch)))
            except ConnectionLost:
                return None  # The instance is replaced, and its directories with it.
            except BaseException:
                self._waiting |= batch
                raise
        if completed is None:
            limit = Duration(seconds=SHARED_REMOVAL_SECONDS)
            return f"a working directory could not be removed within {limit}"
        if completed.succeeded:
            return None
        said = completed.stderr.decode(errors="replace").strip().replace("\n", "; ")
        return f"a working directory could not be removed: {said}"

    async def _collect(self) -> None:
        """Wait a moment for others, unless there is nobody to wait for."""
        if len(self._waiting) < self.jobs:
            self._all_wait = anyio.Event()
            with anyio.move_on_after(COLLECT_SECONDS):
                await self._all_wait.wait()


async def _open(path: Path) -> AsyncFile[bytes]:
    """Open a script's input, which was there when the run began."""
    try:
        return await anyio.open_file(path, "rb")
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise WorkspaceFailed(f"stdin: {path} cannot be read any more ({why})") from None


async def _chunks(line: bytes, file: AsyncFile[bytes]) -> AsyncIterator[bytes]:
    yield line
    while data := await file.read(_CHUNK_BYTES):
        yield data


async def _upload(connection: Connection, run: JobRun, directory: str) -> None:
    made = await connection.run(script.make_directory(directory))
    if not made.succeeded:
        said = made.stderr.decode(errors="replace").strip() or "it is not said why"
        raise WorkspaceFailed(f"no working directory could be made: {said}")
    work = script.working_directory(directory)
    for path in run.uploads:
        await connection.put(run.folder / path, work if path == "." else f"{work}/{path}")


async def _download(connection: Connection, run: JobRun, work: str) -> tuple[list[str], str | None]:
    """Bring back what there is; what there is not is a warning, what gets lost is not."""
    warnings: list[str] = []
    timeout = run.job.timeout
    seconds = max(timeout.total_seconds(), LEAST_DOWNLOAD_SECONDS) if timeout else DOWNLOAD_SECONDS
    limit = Duration(seconds=seconds)
    for entry in run.job.download:
        pattern, destination = _wanted(entry, run)
        lost: str | None = f"it took longer than {limit}"
        try:
            with anyio.move_on_after(limit.total_seconds()):
                lost = await _bring(connection, work, pattern, destination, warnings)
        except (TransferFailed, OSError) as error:
            lost = str(error)
        if lost is not None:
            return warnings, f"download {pattern!r}: {lost}"
    return warnings, None


async def _bring(
    connection: Connection, work: str, pattern: str, destination: Path, warnings: list[str]
) -> str | None:
    """Copy all that matches, and return what a lying instance would do with it, if it would."""
    paths = await connection.glob(f"{work}/{pattern}")
    names = {path.removeprefix(f"{work}/") for path in paths if path != work}
    if not names:
        warnings.append(f"download {pattern!r}: nothing matches it")
    for name in outermost(names):
        place = landing_place(destination, name)
        if place is None:
            return f"{name!r} leads out of {destination}"
        await connection.get(f"{work}/{name}", place)
    return None


def _wanted(entry: str | Download, run: JobRun) -> tuple[str, Path]:
    if isinstance(entry, str):
        return entry, run.folder / run.name
    # The runs of one job must not overwrite each other's files.
    destination = run.folder / entry.to
    return entry.source, destination / run.name if run.job.count > 1 else destination
