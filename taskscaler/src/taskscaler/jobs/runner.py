"""Runs all jobs: a worker for each slot that there can be, one queue for all of them.

Theory of operation. The queue holds the runs in order. Each worker takes the
first, waits for a slot, runs it there, and takes the next; there are never
more workers than slots, so that a run waits in the queue for its turn, and at
the scaler only for an instance. An attempt that the infrastructure spoilt goes
back to the front of the queue, as long as the job has retries; the scaler by
itself gives it another instance.

Each attempt has a cancel scope, kept in `_scopes` while it waits or runs. The
two ways to end early cancel these scopes: `stop` those that wait, `cancel`
all. Why a scope was cancelled stands in `_verdicts` before it is cancelled, and
the worker reads it there. All of this happens on one event loop, and no state
changes across an await.

With a journal, an attempt is written down before its script starts, and an end
before the observer hears of it. To write takes a round trip to the store, which
is shared by all who write at the same time. The slot is held meanwhile: if all
who share an instance gave theirs back and wrote then, it would be idle for a
moment, and might be removed although runs wait in the queue. What an earlier
life has left in the journal is taken up by `resume`, before anything runs.
"""

from __future__ import annotations

import secrets
from collections import Counter, deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import anyio

from fleeting.errors import FleetingError
from taskscaler._errors import (
    AcquireTimeout,
    AcquisitionLost,
    OutputFailed,
    ScalerClosed,
    TaskscalerError,
    WorkspaceFailed,
)
from taskscaler.jobs.executor import Executor, Outcome
from taskscaler.jobs.result import JobResult, JobState, describe_exit, restored

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import timedelta

    from taskscaler import Acquisition, Taskscaler
    from taskscaler.jobs.file import JobRun
    from taskscaler.jobs.journal import Journal
    from taskscaler.jobs.output import JobOutput

__all__ = ("JobRunner", "Observer")

# How long the rest of the output of an attempt that was cut short may take to be written.
OUTPUT_SECONDS = 5.0
_CHANGED = "another job of this name was running when taskscaler itself ended; it was lost"


class Observer(Protocol):
    """Is told what happens, as it happens."""

    async def started(self, result: JobResult, /) -> None:
        """Hear that a run got a slot."""

    async def retried(self, result: JobResult, reason: str, /) -> None:
        """Hear that an attempt was spoilt and that there will be another."""

    async def finished(self, result: JobResult, /) -> None:
        """Hear that the state of a run is final."""

    async def resumed(self, results: Sequence[JobResult], /) -> None:
        """Hear of the runs that ended in an earlier life, and are not run again."""


class JobRunner:
    """Runs jobs on the instances of a scaler.

    Attributes:
        results: one for each run, in order.
        stopping: whether no more runs are started.
        acquire_timeout: how long nothing may come of waiting for a slot; None is for ever.
            It may be changed at any time, and counts for whoever begins to wait then.
    """

    def __init__(
        self,
        runs: Sequence[JobRun],
        output: Callable[[str], JobOutput],
        observer: Observer,
        *,
        keep_going: bool = True,
    ) -> None:
        self.acquire_timeout: timedelta | None = None
        self.results = [JobResult(run.name) for run in runs]
        self.stopping = False
        self._queue: deque[tuple[JobRun, JobResult]] = deque(zip(runs, self.results, strict=True))
        self._journal: Journal | None = None
        self._workers = self._most_workers = 0
        self._hire: Callable[[], object] | None = None
        self._output = output
        self._observer = observer
        self._keep_going = keep_going
        self._executor = Executor()
        self._scopes: dict[str, tuple[JobResult, anyio.CancelScope]] = {}
        self._verdicts: dict[str, tuple[JobState, str]] = {}
        self._counts = Counter({JobState.WAITING: len(self.results)})

    @property
    def counts(self) -> Mapping[JobState, int]:
        """Return how many runs are in each state."""
        return self._counts

    async def resume(self, journal: Journal) -> None:
        """Keep this journal from now on, and take up what an earlier life has left in it.

        What ended there is final here. What was running is lost: it is begun again if its
        job has retries left, and is a system failure otherwise. To be called before `run`.

        Raises:
            TaskscalerError: the journal cannot be written.
        """
        self._journal = journal
        queue, self._queue = self._queue, deque()
        ended: list[JobResult] = []
        lost: list[tuple[JobRun, JobResult, str]] = []
        for run, result in queue:
            record = journal.find(run)
            if record is not None:
                self._move(result, JobState(record.state))
                restored(result, record)
            if result.state is JobState.RUNNING:
                lost.append((run, result, _cut_off(result)))
            elif result.state.is_final:
                result.earlier = True
                ended.append(result)
                continue
            elif journal.changed(run):
                result.warnings.append(_CHANGED)
            self._queue.append((run, result))
        if ended:
            await self._observer.resumed(ended)
        await self._lose(lost)
        if not self._keep_going and any(one.state is not JobState.SUCCESS for one in ended):
            reason = "a job did not succeed earlier, and --fail-fast is given"
            self.cancel(JobState.CANCELED, reason)

    async def _lose(self, lost: Sequence[tuple[JobRun, JobResult, str]]) -> None:
        """Settle the runs that were cut off, and tell of each just once, whatever comes."""
        for run, result, reason in lost:
            if result.attempts <= run.job.retries:
                self._move(result, JobState.WAITING)
            else:
                self._close(result, JobState.SYSTEM_FAILURE, reason)
                result.earlier = True
                result.finished_at = None  # Nobody knows.
        if self._journal is not None:
            await self._journal.write([(run, result) for run, result, _ in lost])
        self._queue = deque(pair for pair in self._queue if not pair[1].state.is_final)
        for _, result, reason in lost:
            if result.state.is_final:
                await self._tell_end(result)
            else:
                await self._observer.retried(result, reason)

    async def run(
        self, scaler: Taskscaler, *, workers: int, acquire_timeout: timedelta | None
    ) -> None:
        """Run everything; afterwards every result is final. Failures are results, not exceptions.

        Args:
            scaler: gives the slots.
            workers: how many slots there can be; see `resize`.
            acquire_timeout: how long nothing may come of waiting for a slot.

        Raises:
            TaskscalerError: the journal cannot be written, or the scaler has failed.
        """
        self.acquire_timeout = acquire_timeout
        try:
            async with anyio.create_task_group() as group:
                self._hire = lambda: group.start_soon(self._work, scaler)
                self.resize(workers)
        except ExceptionGroup as errors:
            # Of many workers that fail for one reason, one tells it, and why.
            error = errors.exceptions[0]
            raise error from error.__cause__
        finally:
            self._hire = None
        await self.abandon(JobState.CANCELED, "it was not started")

    def resize(self, workers: int) -> None:
        """Change how many slots there can be; who has one keeps it. Idempotent."""
        self._most_workers = max(1, workers)
        if self._hire is None:
            return
        for _ in range(min(self._most_workers - self._workers, len(self._queue))):
            self._workers += 1
            self._hire()

    def stop(self, reason: str) -> None:
        """Start no more runs and let those finish that run now. Idempotent."""
        self.stopping = True
        self._end(JobState.WAITING, JobState.CANCELED, reason)

    def cancel(
        self, state: JobState, reason: str, waiting: tuple[JobState, str] | None = None
    ) -> None:
        """End everything now; safe to call at any time and repeatedly.

        Args:
            state: of the runs that are cut short.
            reason: why.
            waiting: the state and the reason of those that had no slot; canceled by default.
        """
        self.stopping = True
        self._end(JobState.WAITING, *(waiting or (JobState.CANCELED, reason)))
        self._end(JobState.RUNNING, state, reason)

    async def abandon(self, state: JobState, reason: str) -> None:
        """Make the state of every run final that nobody works on any more."""
        self.stopping = True
        while self._queue:
            _, result = self._queue.popleft()
            self._close(result, *self._verdicts.get(result.name, (state, reason)))
            await self._tell_end(result)
        for result in self.results:
            if not result.state.is_final:
                self._close(result, state, f"it was cut off: {reason}")
                await self._tell_end(result)

    def _end(self, having: JobState, state: JobState, reason: str) -> None:
        if having is JobState.WAITING:
            for _, result in self._queue:
                self._verdicts.setdefault(result.name, (state, reason))
        for result, scope in self._scopes.values():
            if result.state is having:
                self._verdicts.setdefault(result.name, (state, reason))
                scope.cancel()

    async def _work(self, scaler: Taskscaler) -> None:
        while self._queue and not self.stopping and self._workers <= self._most_workers:
            run, result = self._queue.popleft()
            with anyio.CancelScope() as scope:
                self._scopes[run.name] = (result, scope)
                try:
                    spoilt = await self._attempt(scaler, run, result)
                    if spoilt is not None:
                        await self._spoilt(run, result, spoilt)
                except AcquireTimeout as error:
                    await self._no_slot(run, result, str(error))
                except ScalerClosed as error:
                    await self._turned_away(result, str(error))
                except (AcquisitionLost, FleetingError, OutputFailed, WorkspaceFailed) as error:
                    await self._spoilt(run, result, str(error))
            del self._scopes[run.name]
            if scope.cancelled_caught and not result.state.is_final:
                await self._finish(run, result, *self._verdicts[run.name])
        self._workers -= 1

    async def _attempt(self, scaler: Taskscaler, run: JobRun, result: JobResult) -> str | None:
        """Run once; return why the attempt was spoilt, None if the run has come to its end."""
        # A key is never used twice, so that no attempt can be taken for another.
        key = f"{run.name}/{result.attempts + 1}/{secrets.token_hex(4)}"
        async with scaler.acquire(key, timeout=self.acquire_timeout) as acquisition:
            self._begin(result, acquisition)
            if self._journal is not None:
                await self._journal.write([(run, result)])
            await self._observer.started(result)
            output = self._output(run.name)
            try:
                async with acquisition.connect() as connection:
                    outcome = await self._executor.execute(
                        connection, acquisition.instance, run, output
                    )
            except BaseException:
                with anyio.move_on_after(OUTPUT_SECONDS, shield=True):
                    await output.close()
                raise
            await output.close()
            spoilt = self._judge(run, result, outcome)
            if spoilt is None:
                await self._write_end(run, result)
                await self._tell_end(result)
        return spoilt

    def _begin(self, result: JobResult, acquisition: Acquisition) -> None:
        self._move(result, JobState.RUNNING)
        result.attempts += 1
        result.group = acquisition.group
        result.instance, result.slot = acquisition.instance, acquisition.slot
        result.started_at = datetime.now(UTC)

    def _judge(self, run: JobRun, result: JobResult, outcome: Outcome) -> str | None:
        """Make the state final that follows from an outcome, unless the attempt was spoilt."""
        completed = outcome.completed
        result.exit_code, result.signal = completed.status, completed.signal
        result.warnings += outcome.warnings
        if completed.succeeded and outcome.lost_files:
            return outcome.lost_files
        if outcome.lost_files:
            result.warnings.append(outcome.lost_files)
        if completed.timed_out:
            self._close(result, JobState.TIMED_OUT, f"its timeout of {run.job.timeout} is over")
        elif completed.succeeded:
            self._close(result, JobState.SUCCESS)
        else:
            reason = describe_exit(completed.status, completed.signal)
            self._close(result, JobState.FAILED, reason)
        return None

    async def _no_slot(self, run: JobRun, result: JobResult, reason: str) -> None:
        if self._counts[JobState.RUNNING] and not self.stopping:
            # Others of ours have the slots and get on; patience is not over while they do.
            self._queue.appendleft((run, result))
        else:
            await self._finish(run, result, JobState.SYSTEM_FAILURE, reason)

    async def _turned_away(self, result: JobResult, reason: str) -> None:
        """Nobody gives a slot any more; nor does anybody write that down."""
        state = JobState.CANCELED if self.stopping else JobState.SYSTEM_FAILURE
        self._close(result, state, reason)
        await self._tell_end(result)

    async def _spoilt(self, run: JobRun, result: JobResult, reason: str) -> None:
        """The infrastructure failed: try again if the job may, else say so."""
        if result.state.is_final:
            return  # The instance was lost when all was done.
        if result.attempts <= run.job.retries and not self.stopping:
            result.exit_code = result.signal = None
            self._move(result, JobState.WAITING)
            if self._journal is not None:
                await self._journal.write([(run, result)])
            await self._observer.retried(result, reason)
            # Last, so that a cancellation until then finds it in no queue.
            self._queue.appendleft((run, result))
        else:
            await self._finish(run, result, JobState.SYSTEM_FAILURE, reason)

    async def _finish(
        self, run: JobRun, result: JobResult, state: JobState, reason: str | None = None
    ) -> None:
        """Make a state final, write it down, and only then tell of it."""
        self._close(result, state, reason)
        await self._write_end(run, result)
        await self._tell_end(result)

    async def _write_end(self, run: JobRun, result: JobResult) -> None:
        if self._journal is None:
            return
        try:
            if result.state is not JobState.CANCELED:
                await self._journal.write([(run, result)])
            elif result.attempts:
                # Nothing is known of how far it came, and whoever ended it knows that.
                await self._journal.forget(run)
        except TaskscalerError:
            # The next call takes it for lost, so this one must not report that it ended.
            self._move(result, JobState.RUNNING)
            raise

    def _close(self, result: JobResult, state: JobState, reason: str | None = None) -> None:
        self._move(result, state)
        result.finish(state, reason)

    async def _tell_end(self, result: JobResult) -> None:
        await self._observer.finished(result)
        if result.state is JobState.SUCCESS or self._keep_going or self.stopping:
            return
        reason = f"{result.name} did not succeed, and --fail-fast is given"
        self.cancel(JobState.CANCELED, reason)

    def _move(self, result: JobResult, state: JobState) -> None:
        self._counts[result.state] -= 1
        self._counts[state] += 1
        result.state = state


def _cut_off(result: JobResult) -> str:
    began = f"{result.started_at:%Y-%m-%d %H:%M:%S} UTC" if result.started_at else "some time"
    return (
        f"it was lost: taskscaler itself ended while it ran on {result.instance}, where it began "
        f"at {began}; how far it came is not known"
    )
