"""The journal of jobs: the state of each run, kept in the scaler's store over a restart.

A run is recorded as `running` before its script starts, and as ended before the
end is reported. So a run that is recorded as ended is complete and is not run
again. A run that is recorded as running was lost together with its manager; how
far it got is unknown. A run without a record was never started.

The journal belongs to a set of jobs, not to one call of the command: the call
that completes the set clears it. A run is identified by its name and a digest of
its job, so a changed job is a different job. The records of other sets of jobs in
the same store are not changed.

For operators who ask why a run waits, the journal also records the set itself, and
how many of its runs may start at a time. This is one record, however many runs there
are: those that wait are those without a record of their own.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Protocol

import anyio
import msgspec

from taskscaler._errors import ScalerClosed, StoreError
from taskscaler.core import JobRecord, QueueRecord
from taskscaler.jobs.result import JobState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from taskscaler.core import Record
    from taskscaler.jobs.job import Job, JobRun
    from taskscaler.jobs.result import JobResult
    from taskscaler.storage import Store

__all__ = ("Commit", "Journal", "clear_journal")

# How long a write may take when the run is being cancelled.
WRITE_SECONDS = 10.0
# Each takes about a hundred bytes of the record of the set, and a hash.
JOBS = 1000


class Commit(Protocol):
    """Writes records durably; implemented by the scaler."""

    async def __call__(
        self, put: Sequence[Record], drop: Sequence[tuple[str, str, str]] = ()
    ) -> None:
        """Return when all changes are in the store."""


class Journal:
    """The journal of a set of jobs.

    Args:
        commit: writes to the store.
        restored: the records that the store held when it was opened; only those of jobs are used.
    """

    def __init__(self, commit: Commit, restored: Iterable[Record]) -> None:
        self._commit = commit
        self._records = {one.name: one for one in restored if isinstance(one, JobRecord)}
        self._digests: dict[int, str] = {}
        self._announced: QueueRecord | None = None

    def find(self, run: JobRun) -> JobRecord | None:
        """Return the record of an earlier call; None if the run is new or its job has changed."""
        record = self._records.get(run.name)
        return record if record is not None and record.digest == self._digest(run) else None

    def changed(self, run: JobRun) -> bool:
        """Return whether an earlier call was running a different job under this name."""
        record = self._records.get(run.name)
        return (
            record is not None
            and record.digest != self._digest(run)
            and record.state == JobState.RUNNING.value
        )

    async def write(self, runs: Sequence[tuple[JobRun, JobResult]]) -> None:
        """Record the current state of these runs in one transaction.

        A cancellation takes effect only after `WRITE_SECONDS`: a state that was reached must
        be recorded.

        Raises:
            TaskscalerError: the store cannot be written.
        """
        if runs:
            await self._write([self._record(run, result) for run, result in runs], ())

    async def forget(self, run: JobRun) -> None:
        """Delete the record of a run, so that the next call starts it again; see `write`."""
        await self._write((), [_key(run)])

    async def announce(self, runs: Sequence[JobRun], workers: int, why: str) -> None:
        """Record which runs there are and how many may start at a time; see `write`.

        Args:
            runs: all runs of the set; always the same ones.
            workers: how many hold or ask for a slot at a time; 0 if no more start.
            why: what limits them, human-readable; empty without a limit.
        """
        if self._announced is None:
            self._announced = QueueRecord(*self._jobs(runs), workers, why)
        self._announced = msgspec.structs.replace(self._announced, workers=workers, why=why)
        await self._write([self._announced], ())

    def _jobs(self, runs: Sequence[JobRun]) -> tuple[tuple[tuple[str, int, str], ...], int]:
        """Return the first jobs of a set, and how many runs the others have."""
        jobs: list[tuple[str, int, str]] = []
        place = 0
        # The runs of a job follow one another, and there may be a million.
        while place < len(runs) and len(jobs) < JOBS:
            run = runs[place]
            jobs.append((run.job.name, run.job.count, self._digest(run)))
            place += run.job.count
        return tuple(jobs), len(runs) - place

    async def _write(self, put: Sequence[Record], drop: Sequence[tuple[str, str, str]]) -> None:
        try:
            with anyio.move_on_after(WRITE_SECONDS, shield=True) as scope:
                await self._commit(put, drop)
        except ScalerClosed as error:
            raise StoreError(f"cannot write the job journal: {error}") from error
        if scope.cancelled_caught:
            raise StoreError(
                f"cannot write the job journal: no answer within {WRITE_SECONDS:g}s; check the "
                "disk of the state file"
            )

    def _record(self, run: JobRun, result: JobResult) -> JobRecord:
        return JobRecord(
            run.name,
            self._digest(run),
            result.state.value,
            result.attempts,
            status=result.exit_code,
            signal=result.signal,
            reason=result.reason or "",
            group=result.group or "",
            instance=result.instance or "",
            slot=result.slot,
            started_at=result.started_at,
            finished_at=result.finished_at,
            warnings=tuple(result.warnings),
            ran_seconds=result.run_seconds,
        )

    def _digest(self, run: JobRun) -> str:
        # A job may have a million runs. They keep it alive, so its id is unique.
        key = id(run.job)
        if key not in self._digests:
            self._digests[key] = _digest(run.job, str(run.folder.resolve()))
        return self._digests[key]


async def clear_journal(store: Store, runs: Iterable[JobRun]) -> None:
    """Delete the records of a completed set of jobs, so that the next call starts it again.

    Args:
        store: of a scaler that is closed.
        runs: all runs of the set.

    Raises:
        StoreError: the store cannot be written.
    """
    loaded = await store.load()
    await store.commit(loaded.epoch, (), [QUEUE, *(_key(run) for run in runs)])


QUEUE = QueueRecord((), 0, 0, "").key


def _key(run: JobRun) -> tuple[str, str, str]:
    return JobRecord(run.name, "", "", 0).key


def _digest(job: Job, folder: str) -> str:
    """Return a hash of everything that a job does; it reveals none of the job's secrets."""
    # `json.dumps` escapes what is not UTF-8, which an argument or a path can contain.
    plain = msgspec.to_builtins(job, enc_hook=str)
    text = json.dumps([folder, plain], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
