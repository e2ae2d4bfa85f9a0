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
"""

from __future__ import annotations

import secrets
from collections import Counter, deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import anyio

from fleeting.errors import FleetingError
from taskscaler.errors import (
    AcquireTimeout,
    AcquisitionLost,
    OutputFailed,
    ScalerClosed,
    WorkspaceFailed,
)
from taskscaler.jobs.executor import Executor, Outcome
from taskscaler.jobs.result import JobResult, JobState, describe_exit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import timedelta

    from taskscaler import Acquisition, Taskscaler
    from taskscaler.jobs.file import JobRun
    from taskscaler.jobs.output import JobOutput

__all__ = ("JobRunner", "Observer")

# How long the rest of the output of an attempt that was cut short may take to be written.
OUTPUT_SECONDS = 5.0


class Observer(Protocol):
    """Is told what happens, as it happens."""

    async def started(self, result: JobResult, /) -> None:
        """Hear that a run got a slot."""

    async def retried(self, result: JobResult, reason: str, /) -> None:
        """Hear that an attempt was spoilt and that there will be another."""

    async def finished(self, result: JobResult, /) -> None:
        """Hear that the state of a run is final."""


class JobRunner:
    """Runs jobs on the instances of a scaler.

    Attributes:
        results: one for each run, in order.
        stopping: whether no more runs are started.
    """

    def __init__(
        self,
        runs: Sequence[JobRun],
        output: Callable[[str], JobOutput],
        observer: Observer,
        *,
        keep_going: bool = True,
    ) -> None:
        self.results = [JobResult(run.name) for run in runs]
        self.stopping = False
        self._queue = deque(zip(runs, self.results, strict=True))
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

    async def run(
        self, scaler: Taskscaler, *, workers: int, acquire_timeout: timedelta | None
    ) -> None:
        """Run everything; afterwards every result is final. Failures are results, not exceptions.

        Args:
            scaler: gives the slots.
            workers: how many slots there can be.
            acquire_timeout: how long nothing may come of waiting for a slot.
        """
        async with anyio.create_task_group() as group:
            for _ in range(min(workers, len(self._queue))):
                group.start_soon(self._work, scaler, acquire_timeout)
        await self.abandon(JobState.CANCELED, "it was not started")

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
        """Make the state of every run final that has not begun."""
        self.stopping = True
        while self._queue:
            _, result = self._queue.popleft()
            await self._finish(result, *self._verdicts.get(result.name, (state, reason)))

    def _end(self, having: JobState, state: JobState, reason: str) -> None:
        if having is JobState.WAITING:
            for _, result in self._queue:
                self._verdicts.setdefault(result.name, (state, reason))
        for result, scope in self._scopes.values():
            if result.state is having:
                self._verdicts.setdefault(result.name, (state, reason))
                scope.cancel()

    async def _work(self, scaler: Taskscaler, acquire_timeout: timedelta | None) -> None:
        while self._queue and not self.stopping:
            run, result = self._queue.popleft()
            with anyio.CancelScope() as scope:
                self._scopes[run.name] = (result, scope)
                try:
                    await self._attempt(scaler, run, result, acquire_timeout)
                except AcquireTimeout as error:
                    await self._no_slot(run, result, str(error))
                except ScalerClosed as error:
                    await self._finish(result, JobState.CANCELED, str(error))
                except (AcquisitionLost, FleetingError, OutputFailed, WorkspaceFailed) as error:
                    await self._spoilt(run, result, str(error))
            del self._scopes[run.name]
            if scope.cancelled_caught and not result.state.is_final:
                await self._finish(result, *self._verdicts[run.name])

    async def _attempt(
        self,
        scaler: Taskscaler,
        run: JobRun,
        result: JobResult,
        acquire_timeout: timedelta | None,
    ) -> None:
        # A key is never used twice, so that no attempt can be taken for another.
        key = f"{run.name}/{result.attempts + 1}/{secrets.token_hex(4)}"
        async with scaler.acquire(key, timeout=acquire_timeout) as acquisition:
            self._begin(result, acquisition)
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
            await self._conclude(run, result, outcome)

    def _begin(self, result: JobResult, acquisition: Acquisition) -> None:
        self._move(result, JobState.RUNNING)
        result.attempts += 1
        result.instance, result.slot = acquisition.instance, acquisition.slot
        result.started_at = datetime.now(UTC)

    async def _conclude(self, run: JobRun, result: JobResult, outcome: Outcome) -> None:
        completed = outcome.completed
        result.exit_code, result.signal = completed.status, completed.signal
        result.warnings += outcome.warnings
        if completed.succeeded and outcome.lost_files:
            await self._spoilt(run, result, outcome.lost_files)
            return
        if outcome.lost_files:
            result.warnings.append(outcome.lost_files)
        if completed.timed_out:
            await self._finish(
                result, JobState.TIMED_OUT, f"its timeout of {run.job.timeout} is over"
            )
        elif completed.succeeded:
            await self._finish(result, JobState.SUCCESS)
        else:
            reason = describe_exit(completed.status, completed.signal)
            await self._finish(result, JobState.FAILED, reason)

    async def _no_slot(self, run: JobRun, result: JobResult, reason: str) -> None:
        if self._counts[JobState.RUNNING] and not self.stopping:
            # Others of ours have the slots and get on; patience is not over while they do.
            self._queue.appendleft((run, result))
        else:
            await self._finish(result, JobState.SYSTEM_FAILURE, reason)

    async def _spoilt(self, run: JobRun, result: JobResult, reason: str) -> None:
        """The infrastructure failed: try again if the job may, else say so."""
        if result.state.is_final:
            return
        if result.attempts <= run.job.retries and not self.stopping:
            result.exit_code = result.signal = None
            self._move(result, JobState.WAITING)
            self._queue.appendleft((run, result))
            await self._observer.retried(result, reason)
        else:
            await self._finish(result, JobState.SYSTEM_FAILURE, reason)

    async def _finish(self, result: JobResult, state: JobState, reason: str | None = None) -> None:
        self._move(result, state)
        result.finish(state, reason)
        await self._observer.finished(result)
        if state is not JobState.SUCCESS and not self._keep_going and not self.stopping:
            self.cancel(
                JobState.CANCELED, f"{result.name} did not succeed, and --fail-fast is given"
            )

    def _move(self, result: JobResult, state: JobState) -> None:
        self._counts[result.state] -= 1
        self._counts[state] += 1
        result.state = state
