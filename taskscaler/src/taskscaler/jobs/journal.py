"""What is known of the runs of jobs, kept in the scaler's store over a restart.

A run is written down as `running` before its script starts, and as ended before
anybody is told. So whatever the journal says has ended has been done, and needs
no second time; what it says is running was cut off together with its manager,
and nobody knows how far it came. What it does not know was never begun.

The journal belongs to a set of jobs, not to one call of the command: the call
that carries the set to its end clears it. A run is known by its name and by a
digest of its job, so that a job which was changed is another one. Runs of other
sets in the same store are left alone.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol

import anyio
import msgspec

from taskscaler._errors import ScalerClosed, StoreError
from taskscaler.core import JobRecord
from taskscaler.jobs.result import JobState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from taskscaler.core import Record
    from taskscaler.jobs.file import Job, JobRun
    from taskscaler.jobs.result import JobResult
    from taskscaler.storage import Store

__all__ = ("Commit", "Journal", "clear_journal")

# How long the end of a run may take to be written once everything else is given up.
WRITE_SECONDS = 10.0


class Commit(Protocol):
    """Makes records durable; the scaler's."""

    async def __call__(
        self, put: Sequence[Record], drop: Sequence[tuple[str, str, str]] = ()
    ) -> None:
        """Return when all of it is in the store."""


class Journal:
    """The journal of a set of jobs.

    Args:
        commit: writes to the store.
        restored: what the store held when this life began; what is not of a job is ignored.
    """

    def __init__(self, commit: Commit, restored: Iterable[Record]) -> None:
        self._commit = commit
        self._records = {one.name: one for one in restored if isinstance(one, JobRecord)}
        self._digests: dict[int, str] = {}

    def find(self, run: JobRun) -> JobRecord | None:
        """Return what an earlier call knew of a run; None if it was not begun, or has changed."""
        record = self._records.get(run.name)
        return record if record is not None and record.digest == self._digest(run) else None

    def changed(self, run: JobRun) -> bool:
        """Return whether an earlier call left a run of this name running, with another job."""
        record = self._records.get(run.name)
        return (
            record is not None
            and record.digest != self._digest(run)
            and record.state == JobState.RUNNING.value
        )

    async def write(self, runs: Sequence[tuple[JobRun, JobResult]]) -> None:
        """Write down how runs stand, all in one.

        It is not cut short by a cancellation, for a while: what has happened has happened.

        Raises:
            TaskscalerError: the store cannot be written.
        """
        if runs:
            await self._write([self._record(run, result) for run, result in runs], ())

    async def forget(self, run: JobRun) -> None:
        """Know nothing more of a run, so that the next call begins it anew; see `write`."""
        await self._write((), [_key(run)])

    async def _write(self, put: Sequence[Record], drop: Sequence[tuple[str, str, str]]) -> None:
        try:
            with anyio.move_on_after(WRITE_SECONDS, shield=True) as scope:
                await self._commit(put, drop)
        except ScalerClosed as error:
            raise StoreError(f"the journal of the jobs could not be written: {error}") from error
        if scope.cancelled_caught:
            raise StoreError(
                f"the journal of the jobs could not be written within {WRITE_SECONDS:g}s; look at "
                "the disk of the state file"
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
        )

    def _digest(self, run: JobRun) -> str:
        # A job may have a million runs; it lives as long as they do, so its id is its own.
        key = id(run.job)
        if key not in self._digests:
            self._digests[key] = _digest(run.job, str(run.folder.resolve()))
        return self._digests[key]


async def clear_journal(store: Store, runs: Iterable[JobRun]) -> None:
    """Forget a set of jobs that came to its end, so that the next call begins it anew.

    Args:
        store: that of a scaler which is closed; nobody holds it now.
        runs: those of the set.

    Raises:
        StoreError: the store cannot be written.
    """
    loaded = await store.load()
    await store.commit(loaded.epoch, (), [_key(run) for run in runs])


def _key(run: JobRun) -> tuple[str, str, str]:
    return JobRecord(run.name, "", "", 0).key


def _digest(job: Job, folder: str) -> str:
    """Return what tells a job from one that does something else, and none of its secrets."""
    text = msgspec.json.encode([folder, job], order="deterministic")
    return hashlib.sha256(text).hexdigest()
