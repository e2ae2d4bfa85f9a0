"""Runs all jobs: one queue of runs, and one worker for each possible slot.

The queue holds the runs in order. Each worker takes the first run, waits for a
slot, executes the run there, and takes the next one. There are never more workers
than slots, so a run waits for its turn in the queue, and in the scaler only for an
instance. After a failure of the infrastructure a run goes back to the front of the
queue while it has retries left; the scaler chooses another instance. An instance that
could not store or start a script gets no further task. A bug that ends an attempt is
the end of this attempt only, like any failure of the infrastructure.

Each attempt has a cancel scope, kept in `_scopes` while it waits or runs. `stop`
cancels the attempts that wait, `cancel` all of them. The reason is put into
`_cancellations` before a scope is cancelled, and the worker reads it there. All of
this happens on one event loop, and no decision spans an await.

With a journal, an attempt is recorded before its script starts, and its end before
the observer is told. The slot is held during the write: if all jobs of an instance
released their slots first, the instance would be idle for a moment and could be
removed although runs wait in the queue. `resume` restores the journal of an earlier
call before anything runs.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter, deque
from typing import TYPE_CHECKING, Protocol

import anyio

from fleeting import describe_bug, plain
from fleeting.errors import FleetingError
from taskscaler._errors import (
    AcquireTimeout,
    AcquisitionLost,
    OutputFailed,
    ScalerClosed,
    TaskscalerError,
    WorkspaceFailed,
)
from taskscaler.jobs.executor import Executor
from taskscaler.jobs.queue import describe_queue
from taskscaler.jobs.result import JobResult, JobState, describe_exit, restore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import timedelta

    from taskscaler._acquisition import Acquisition
    from taskscaler._scaler import Taskscaler
    from taskscaler.jobs.executor import Execution
    from taskscaler.jobs.job import JobRun
    from taskscaler.jobs.journal import Journal
    from taskscaler.jobs.output import JobOutput

__all__ = ("JobObserver", "JobRunner")

logger = logging.getLogger("taskscaler")

# How long the rest of the output of a cancelled attempt may take to be written.
OUTPUT_SECONDS = 5.0
_CHANGED = "a different job with this name was running when taskscaler stopped unexpectedly"


class JobObserver(Protocol):
    """Is told about each change of a run as it happens."""

    async def started(self, result: JobResult, /) -> None:
        """A run got a slot."""

    async def retried(self, result: JobResult, reason: str, /) -> None:
        """An attempt failed because of the infrastructure; the run will be retried."""

    async def finished(self, result: JobResult, /) -> None:
        """The state of a run is final."""

    async def resumed(self, results: Sequence[JobResult], /) -> None:
        """These runs ended in an earlier call and are not run again."""


class JobRunner:
    """Runs jobs on the instances of a scaler.

    Attributes:
        results: one for each run, in order.
        stopping: whether the runner starts no more runs.
        acquire_timeout: how long a run waits for a slot; None is forever. It may be changed
            at any time; a change applies to runs that start to wait afterwards.
    """

    def __init__(
        self,
        runs: Sequence[JobRun],
        output: Callable[[str], JobOutput],
        observer: JobObserver,
        *,
        keep_going: bool = True,
    ) -> None:
        self.acquire_timeout: timedelta | None = None
        self.results = [JobResult(run.name) for run in runs]
        self.stopping = False
        self._runs = runs
        self._queue: deque[tuple[JobRun, JobResult]] = deque(zip(runs, self.results, strict=True))
        self._journal: Journal | None = None
        self._workers = self._worker_limit = 0
        # The limit of the workers in words, or the reason why no more runs start.
        self._why = ""
        self._start_worker: Callable[[], object] | None = None
        self._output = output
        self._observer = observer
        self._keep_going = keep_going
        self._executor = Executor()
        self._scopes: dict[str, tuple[JobResult, anyio.CancelScope]] = {}
        self._cancellations: dict[str, tuple[JobState, str]] = {}
        self._counts = Counter({JobState.WAITING: len(self.results)})

    @property
    def counts(self) -> Mapping[JobState, int]:
        """Return the number of runs in each state."""
        return self._counts

    async def resume(self, journal: Journal) -> None:
        """Restore the journal of an earlier call, and record all changes in it from now on.

        Runs that ended are final. Runs that were running are lost: they are retried if they
        have retries left, and are a system failure otherwise. Must be called before `run`.

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
                self._set_state(result, JobState(record.state))
                restore(result, record)
            if result.state is JobState.RUNNING:
                lost.append((run, result, _lost_reason(result)))
            elif result.state.is_final:
                result.earlier = True
                ended.append(result)
                continue
            elif journal.changed(run):
                result.warnings.append(_CHANGED)
            self._queue.append((run, result))
        if ended:
            await self._observer.resumed(ended)
        await self._settle_lost(lost)
        if not self._keep_going and any(one.state is not JobState.SUCCESS for one in ended):
            reason = "--fail-fast: a job did not succeed in an earlier call"
            self.cancel(JobState.CANCELED, reason)

    async def _settle_lost(self, lost: Sequence[tuple[JobRun, JobResult, str]]) -> None:
        """Retry or fail the lost runs; record each loss before it is reported."""
        for run, result, reason in lost:
            if result.attempts <= run.job.retries:
                self._set_state(result, JobState.WAITING)
            else:
                self._close(result, JobState.SYSTEM_FAILURE, reason)
                result.earlier = True
                result.finished_at = None  # It is unknown.
        if self._journal is not None:
            await self._journal.write([(run, result) for run, result, _ in lost])
        self._queue = deque(pair for pair in self._queue if not pair[1].state.is_final)
        for _, result, reason in lost:
            if result.state.is_final:
                await self._report_end(result)
            else:
                await self._observer.retried(result, reason)

    async def run(
        self,
        scaler: Taskscaler,
        *,
        workers: int,
        acquire_timeout: timedelta | None,
        why: str = "",
    ) -> None:
        """Run all jobs; then every result is final. A job that fails is a result, not an exception.

        Args:
            scaler: provides the slots.
            workers: the highest possible number of slots; see `resize`.
            acquire_timeout: how long a run waits for a slot; None is forever.
            why: what limits the number of workers, human-readable.

        Raises:
            TaskscalerError: the journal cannot be written, or the scaler has failed.
        """
        self.acquire_timeout = acquire_timeout
        # Before anything runs, so that there is always an answer to why a run waits.
        await self.resize(workers, why)
        try:
            async with anyio.create_task_group() as group:
                self._start_worker = lambda: group.start_soon(self._work, scaler)
                self._start_workers()
        except ExceptionGroup as errors:
            # All workers fail for the same reason; raise it once, with its cause.
            error = errors.exceptions[0]
            raise error from error.__cause__
        finally:
            self._start_worker = None
        await self.abandon(JobState.CANCELED, "not started")

    @property
    def held_back(self) -> str:
        """Return how many runs wait for their turn, and why; empty if none does."""
        return describe_queue(len(self._queue), self._why, stopping=self.stopping)

    async def resize(self, workers: int, why: str = "") -> None:
        """Change the number of workers; running jobs are not interrupted. Idempotent.

        Args:
            workers: the highest possible number of slots.
            why: what limits it, human-readable.

        Raises:
            TaskscalerError: the journal cannot be written.
        """
        self._worker_limit = max(1, workers)
        if not self.stopping:
            self._why = why
        self._start_workers()
        await self.announce()

    async def announce(self) -> None:
        """Record which runs there are, and how many may start; without a journal, do nothing.

        Raises:
            TaskscalerError: the journal cannot be written.
        """
        if self._journal is not None:
            workers = 0 if self.stopping else self._worker_limit
            await self._journal.announce(self._runs, workers, self._why)

    def _start_workers(self) -> None:
        if self._start_worker is None:
            return
        for _ in range(min(self._worker_limit - self._workers, len(self._queue))):
            self._workers += 1
            self._start_worker()

    def stop(self, reason: str) -> None:
        """Start no more runs; running ones finish. Idempotent."""
        self.stopping = True
        self._why = reason
        self._cancel(JobState.WAITING, JobState.CANCELED, reason)

    def cancel(
        self, state: JobState, reason: str, waiting: tuple[JobState, str] | None = None
    ) -> None:
        """Cancel all runs now. May be called at any time, and again.

        Args:
            state: the final state of the runs that have a slot.
            reason: why they are cancelled.
            waiting: the state and the reason of runs without a slot; canceled by default.
        """
        self.stopping = True
        self._why = reason
        self._cancel(JobState.WAITING, *(waiting or (JobState.CANCELED, reason)))
        self._cancel(JobState.RUNNING, state, reason)

    async def abandon(self, state: JobState, reason: str) -> None:
        """Give every run that is not final this state; to be called when no worker is left."""
        self.stopping = True
        while self._queue:
            _, result = self._queue.popleft()
            self._close(result, *self._cancellations.get(result.name, (state, reason)))
            await self._report_end(result)
        for result in self.results:
            if not result.state.is_final:
                self._close(result, state, f"the run ended before the job did: {reason}")
                await self._report_end(result)

    def _cancel(self, having: JobState, state: JobState, reason: str) -> None:
        if having is JobState.WAITING:
            for _, result in self._queue:
                self._cancellations.setdefault(result.name, (state, reason))
        for result, scope in self._scopes.values():
            if result.state is having:
                self._cancellations.setdefault(result.name, (state, reason))
                scope.cancel()

    async def _work(self, scaler: Taskscaler) -> None:
        while self._queue and not self.stopping and self._workers <= self._worker_limit:
            run, result = self._queue.popleft()
            with anyio.CancelScope() as scope:
                self._scopes[run.name] = (result, scope)
                try:
                    failure = await self._attempt(scaler, run, result)
                    if failure is not None:
                        await self._retry_or_fail(run, result, failure)
                except AcquireTimeout as error:
                    await self._acquire_timed_out(run, result, str(error))
                except ScalerClosed as error:
                    await self._scaler_closed(result, str(error))
                except (AcquisitionLost, FleetingError, OutputFailed, WorkspaceFailed) as error:
                    await self._retry_or_fail(run, result, str(error))
                except TaskscalerError:
                    raise  # The store or the scaler failed, which concerns all runs.
                except Exception as error:  # noqa: BLE001 -- an attempt ends nothing but itself
                    # Without its traceback, which shows values that may be secrets.
                    logger.error("%s: %s", run.name, describe_bug(error, where=True))  # noqa: TRY400 - as above
                    await self._retry_or_fail(run, result, describe_bug(error))
            del self._scopes[run.name]
            if scope.cancelled_caught and not result.state.is_final:
                await self._finish(run, result, *self._cancellations[run.name])
        self._workers -= 1

    async def _attempt(self, scaler: Taskscaler, run: JobRun, result: JobResult) -> str | None:
        """Execute a run once; return None, or why the infrastructure failed."""
        # Each attempt has a unique key, so that it cannot be confused with another one.
        key = f"{run.name}/{result.attempts + 1}/{secrets.token_hex(4)}"
        async with scaler.acquire(key, timeout=self.acquire_timeout) as acquisition:
            self._begin(result, acquisition)
            if self._journal is not None:
                await self._journal.write([(run, result)])
            await self._observer.started(result)
            output = self._output(run.name)
            try:
                async with acquisition.connect() as connection:
                    execution = await self._executor.execute(
                        connection, acquisition.instance, run, output, user=acquisition.user
                    )
            except BaseException as error:
                if isinstance(error, WorkspaceFailed):
                    # While the slot is held, so that no other job gets it.
                    acquisition.report_broken(str(error))
                with anyio.move_on_after(OUTPUT_SECONDS, shield=True):
                    await output.close()
                raise
            await output.close()
            failure = self._evaluate(run, result, execution)
            if failure is None:
                await self._write_end(run, result)
                await self._report_end(result)
        return failure

    def _begin(self, result: JobResult, acquisition: Acquisition) -> None:
        self._set_state(result, JobState.RUNNING)
        result.attempts += 1
        result.group = acquisition.group
        result.instance, result.slot = acquisition.instance, acquisition.slot
        result.start()

    def _evaluate(self, run: JobRun, result: JobResult, execution: Execution) -> str | None:
        """Set the final state; or return why the infrastructure failed, and leave the state."""
        completed = execution.completed
        result.exit_code, result.signal = completed.status, completed.signal
        result.warnings += map(plain, execution.warnings)
        if completed.succeeded and execution.download_error:
            return execution.download_error
        if execution.download_error:
            result.warnings.append(plain(execution.download_error))
        if completed.timed_out:
            self._close(result, JobState.TIMED_OUT, f"exceeded its timeout of {run.job.timeout}")
        elif completed.succeeded:
            self._close(result, JobState.SUCCESS)
        else:
            reason = describe_exit(completed.status, completed.signal)
            self._close(result, JobState.FAILED, reason)
        return None

    async def _acquire_timed_out(self, run: JobRun, result: JobResult, reason: str) -> None:
        if self._counts[JobState.RUNNING] and not self.stopping:
            # Other runs of this command use the slots and make progress, so keep waiting.
            self._queue.appendleft((run, result))
        else:
            await self._finish(run, result, JobState.SYSTEM_FAILURE, reason)

    async def _scaler_closed(self, result: JobResult, reason: str) -> None:
        """End a run without a record: the journal is closed together with the scaler."""
        state = JobState.CANCELED if self.stopping else JobState.SYSTEM_FAILURE
        self._close(result, state, reason)
        await self._report_end(result)

    async def _retry_or_fail(self, run: JobRun, result: JobResult, reason: str) -> None:
        """After a failure of the infrastructure, queue the run again if it has retries left."""
        if result.state.is_final:
            return  # The instance was lost after the run had ended.
        if result.attempts <= run.job.retries and not self.stopping:
            result.exit_code = result.signal = None
            self._set_state(result, JobState.WAITING)
            if self._journal is not None:
                await self._journal.write([(run, result)])
            await self._observer.retried(result, plain(reason))
            # Last: until here a cancellation must not find the run in the queue.
            self._queue.appendleft((run, result))
        else:
            await self._finish(run, result, JobState.SYSTEM_FAILURE, reason)

    async def _finish(
        self, run: JobRun, result: JobResult, state: JobState, reason: str | None = None
    ) -> None:
        """Set a final state, record it, and only then report it."""
        self._close(result, state, reason)
        await self._write_end(run, result)
        await self._report_end(result)

    async def _write_end(self, run: JobRun, result: JobResult) -> None:
        if self._journal is None:
            return
        try:
            if result.state is not JobState.CANCELED:
                await self._journal.write([(run, result)])
            elif result.attempts:
                # It was cancelled on purpose, so the next call may start it again.
                await self._journal.forget(run)
        except TaskscalerError:
            # The next call will see it as lost, so this call must not report an end.
            self._set_state(result, JobState.RUNNING)
            raise

    def _close(self, result: JobResult, state: JobState, reason: str | None = None) -> None:
        self._set_state(result, state)
        # A reason may name a file of the instance. It has to be printed and stored.
        result.finish(state, plain(reason) if reason else reason)

    async def _report_end(self, result: JobResult) -> None:
        await self._observer.finished(result)
        if result.state is JobState.SUCCESS or self._keep_going or self.stopping:
            return
        reason = f"--fail-fast: {result.name} did not succeed"
        self.cancel(JobState.CANCELED, reason)

    def _set_state(self, result: JobResult, state: JobState) -> None:
        self._counts[result.state] -= 1
        self._counts[state] += 1
        result.state = state


def _lost_reason(result: JobResult) -> str:
    started = f", started at {result.started_at:%Y-%m-%d %H:%M:%S} UTC" if result.started_at else ""
    return (
        f"lost: taskscaler stopped unexpectedly while the job ran on {result.instance}{started}; "
        "how far it got is unknown"
    )
