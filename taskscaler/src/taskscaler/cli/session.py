"""One run of `taskscaler run`, from the opening of the group to the exit code.

Theory of operation. Four tasks run beside the jobs and end with them: one hears
signals, one waits for the run's time to be up, one draws the status line, one
says from time to time why nothing runs.
They do not touch the jobs themselves, but ask the runner to `stop` or `cancel`;
before the group is open there is nothing to finish, so they cancel the opening.
Whatever happens, leaving the scaler removes the instances, then the report is
written, then the exit code follows from the results.
"""

from __future__ import annotations

import errno
import signal
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import anyio

from fleeting.errors import ConfigError, FleetingError
from fleeting.types import Duration, GroupSettings
from taskscaler.cli.console import Console
from taskscaler.cli.progress import Progress
from taskscaler.errors import TaskscalerError
from taskscaler.jobs import JobRunner, JobState, Report, output_factory, write_report
from taskscaler.scaler import Taskscaler

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fleeting.types import GroupInfo
    from taskscaler.cli.plan import Plan

__all__ = ("exit_code", "run_session")

_STATUS_SECONDS = 0.1
# After this time without a running job the reason is told; then after twice that, and so on.
_WHY_SECONDS = 15.0
# SIGHUP is unknown on Windows, where the command shall be able to say what it lacks.
_SIGNALS = tuple(one for one in signal.Signals if one.name in {"SIGINT", "SIGTERM", "SIGHUP"})
# A pipe's reader has closed it; a terminal has been closed.
_READER_GONE = (errno.EPIPE, errno.EIO)


def run_session(plan: Plan) -> int:
    """Carry a plan out, and return the exit code of the command."""
    return anyio.run(_run, plan)


async def _run(plan: Plan) -> int:
    return await _Session(plan).run()


def exit_code(
    states: Sequence[JobState], *, interrupted: bool, wrong_input: bool, infrastructure: bool
) -> int:
    """Return the exit code; where several hold, 130, then 2, 3, 1."""
    if interrupted:
        return 130
    if wrong_input:
        return 2
    if infrastructure or JobState.SYSTEM_FAILURE in states:
        return 3
    return 0 if all(state is JobState.SUCCESS for state in states) else 1


class _Session:
    """What the tasks of one run share."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._console = Console(on_closed=self._output_closed)
        self._progress = Progress(self._console)
        self._runner = JobRunner(
            plan.runs,
            output_factory(plan.output, self._console, several=len(plan.runs) > 1),
            self._progress,
            keep_going=plan.keep_going,
        )
        self._started_at = datetime.now(UTC)
        self._scaler: Taskscaler | None = None
        self._opening = anyio.CancelScope()
        self._interrupted = False
        self._wrong_input = False
        self._error: str | None = None

    async def run(self) -> int:
        async with anyio.create_task_group() as beside:
            await beside.start(self._hear_signals)
            beside.start_soon(self._watch_time)
            beside.start_soon(self._draw_status)
            beside.start_soon(self._say_why)
            await self._run_jobs()
            beside.cancel_scope.cancel()
        return await self._conclude()

    async def _run_jobs(self) -> None:
        plan = self._plan
        settings = GroupSettings(
            maximum=plan.settings.max_instances or None, connector=plan.connector
        )
        try:
            with self._opening:
                async with (
                    plan.provider.open(plan.plugin_config, settings) as group,
                    Taskscaler([group], plan.settings, connector=plan.connector) as self._scaler,
                ):
                    await self._runner.run(
                        self._scaler,
                        workers=self._workers(group.info),
                        acquire_timeout=plan.acquire_timeout,
                    )
        except ConfigError as error:
            self._wrong_input, self._error = True, "; ".join(error.problems)
        except (FleetingError, TaskscalerError) as error:
            self._error = str(error)

    def _workers(self, group: GroupInfo) -> int:
        """Return how many slots there can be at once, or how many runs there are."""
        limits = [self._plan.settings.max_instances or None, group.max_size]
        known = [limit for limit in limits if limit is not None]
        if not known:
            return len(self._plan.runs)
        return max(1, min(known) * self._plan.settings.capacity_per_instance)

    # What runs beside the jobs.

    async def _hear_signals(
        self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        if sys.platform == "win32":
            task_status.started()  # There are no receivers; Ctrl-C raises KeyboardInterrupt.
            return
        with anyio.open_signal_receiver(*_SIGNALS) as received:
            task_status.started()
            async for number in received:
                again, self._interrupted = self._interrupted, True
                await self._interrupt(number, again=again)

    async def _interrupt(self, number: signal.Signals, *, again: bool) -> None:
        self._give_up_opening()
        running = self._runner.counts[JobState.RUNNING]
        reason = f"interrupted by {number.name}"
        if number is signal.SIGINT and not again and running:
            self._runner.stop(reason)
            await self._console.say(
                f"interrupted: no more jobs are started; waiting for {running} that run "
                "(Ctrl-C again cancels them)"
            )
        elif running:
            self._runner.cancel(JobState.CANCELED, reason)
            await self._console.say(f"{reason}: the jobs are cancelled and the instances removed")
        else:
            self._runner.cancel(JobState.CANCELED, reason)
            await self._console.say(f"{reason}: the instances are removed, please wait")

    def _give_up_opening(self) -> None:
        if self._scaler is None:
            self._opening.cancel()

    def _output_closed(self, error: OSError) -> None:
        """Nobody reads on, as after `| head`, or nothing more can be written: do not go on."""
        reason = "the reader of the output has gone away"
        if error.errno in _READER_GONE:
            self._interrupted = True
        else:
            why = (error.strerror or str(error)).lower()
            reason = self._error = f"standard output cannot be written: {why}"
        self._runner.cancel(JobState.CANCELED, reason)

    async def _watch_time(self) -> None:
        if self._plan.timeout is None:
            return
        await anyio.sleep(self._plan.timeout.total_seconds())
        reason = f"the run's time of {Duration(seconds=self._plan.timeout.total_seconds())} was up"
        if self._scaler is None:
            self._error = f"{reason} before the group of instances was open"
        self._give_up_opening()
        waiting = (JobState.CANCELED, f"{reason} before it got a slot")
        if self._scaler is not None and not self._runner.counts[JobState.RUNNING]:
            # Nothing runs, so it is not for the other jobs that these had to wait.
            waiting = (JobState.SYSTEM_FAILURE, f"{reason}: {self._scaler.explain()}")
        self._runner.cancel(JobState.TIMED_OUT, reason, waiting)

    async def _draw_status(self) -> None:
        while self._console.is_terminal:
            if self._scaler is not None:
                await self._progress.draw(self._scaler.capacity(), self._runner.counts)
            await anyio.sleep(_STATUS_SECONDS)

    async def _say_why(self) -> None:
        pause = _WHY_SECONDS
        while True:
            await anyio.sleep(pause)
            counts = self._runner.counts
            idle = counts[JobState.WAITING] and not counts[JobState.RUNNING]
            if self._scaler is not None and idle and not self._runner.stopping:
                await self._console.say(f"still waiting: {self._scaler.explain()}")
                pause *= 2

    # How it ends.

    async def _conclude(self) -> int:
        await self._console.clear_status()
        if self._error is not None:
            await self._console.say(f"error: {self._error}")
        state = JobState.CANCELED if self._interrupted or self._wrong_input else None
        state = state or JobState.SYSTEM_FAILURE
        reason = self._error or "the run ended before it got a slot"
        if self._error is not None:
            self._progress.has_said(state, reason)
        await self._runner.abandon(state, reason)
        instances = self._scaler.instances() if self._scaler is not None else ()
        code = exit_code(
            [result.state for result in self._runner.results],
            interrupted=self._interrupted,
            wrong_input=self._wrong_input,
            infrastructure=self._error is not None,
        )
        report = Report(
            results=self._runner.results,
            instances=instances,
            started_at=self._started_at,
            finished_at=datetime.now(UTC),
            exit_code=code,
            error=self._error,
        )
        code = await self._write(report)
        if not self._wrong_input:
            await self._progress.summary(report)
        return code

    async def _write(self, report: Report) -> int:
        path = self._plan.report
        if path is None:
            return report.exit_code
        try:
            write_report(path, report)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            await self._console.say(f"error: --report {path}: it cannot be written ({why})")
            # What was true before the run is so no more: not the fault of the input.
            return report.exit_code if report.exit_code in (2, 130) else 3
        return report.exit_code
