"""One call of `taskscaler run`, from opening the groups to the exit code.

Background tasks run together with the jobs and end with them: they handle signals,
enforce `--timeout`, draw the status line, explain from time to time why nothing
runs, reload config.toml, and drain the scaler when no more jobs will start. They do
not touch the jobs, but call `stop` or `cancel` of the runner. Before the groups are
open there are no jobs, so they cancel the opening instead.

In every case, closing the scaler removes the instances (or keeps them for the next
run, if configured so), then the report is written, and the exit code follows from
the results.

Each signal goes one step further: let running jobs finish, cancel them, and finally
exit without waiting for the removal of instances. The last step ends the process at
once, because a call that still hangs by then may never return. SIGQUIT takes the first
step only, however often it comes.

With a state file, the jobs are recorded in a journal. A completed run clears it, but
only after the report is written: after a crash between the two, the next call reports
the same results again.
"""

from __future__ import annotations

import errno
import gc
import signal
import sys
import time
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import anyio

from fleeting import describe_bug, exit_at_once, guard_logs
from fleeting.errors import ConfigError, FleetingError
from fleeting.types import Duration
from taskscaler._errors import Fenced, ScalerClosed, StoreError, TaskscalerError
from taskscaler._scaler import Taskscaler
from taskscaler.cli.console import Console
from taskscaler.cli.left import kept_lines
from taskscaler.cli.opening import (
    open_groups,
    open_store,
    raise_open_files,
    with_limits,
    worker_limit,
)
from taskscaler.cli.progress import Progress
from taskscaler.cli.reload import file_changes, reload_plan
from taskscaler.cli.troubles import Troubles, no_group_left
from taskscaler.core import counted
from taskscaler.jobs.journal import Journal, clear_journal
from taskscaler.jobs.output import output_factory
from taskscaler.jobs.report import RunReport, exit_code, write_report
from taskscaler.jobs.result import JobState
from taskscaler.jobs.runner import JobRunner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from fleeting.types import GroupInfo
    from taskscaler._summaries import InstanceSummary
    from taskscaler.cli.plan import Plan
    from taskscaler.cli.reload import ReloadedPlan
    from taskscaler.storage import Store

__all__ = ("run_session",)

_STATUS_SECONDS = 0.1
# How often to look for failures that are to be told.
_TROUBLE_SECONDS = 0.5
# When no job has run for this time, say why; then again after twice this time, and so on.
_EXPLAIN_SECONDS = 15.0
# How long the final messages and the report may take when the process exits immediately.
_EXIT_SECONDS = 2.0
# Windows has no SIGHUP, but the module must be importable there to report what is missing.
_SIGNALS = tuple(
    one for one in signal.Signals if one.name in {"SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"}
)
# These let running jobs finish.
_GENTLE = ("SIGINT", "SIGQUIT")
# Repeating these changes nothing: a terminal that goes away may send SIGHUP more than once, and
# SIGQUIT never cancels a job.
_REPEATABLE = ("SIGHUP", "SIGQUIT")
# The reader has closed the pipe; the terminal is gone.
_READER_GONE = (errno.EPIPE, errno.EIO)


def run_session(plan: Plan) -> int:
    """Run a plan, and return the exit code of the command."""
    guard_logs()
    raise_open_files()
    return anyio.run(_run, plan)


async def _run(plan: Plan) -> int:
    return await _Session(plan).run()


class _Session:
    """The state that the tasks of one call share."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._console = Console(on_closed=self._output_closed)
        self._progress = Progress(self._console)
        self._runner = JobRunner(
            plan.runs,
            output_factory(
                plan.output,
                self._console,
                several=len(plan.runs) > 1,
                terminals=self._console.terminals,
            ),
            self._progress,
            keep_going=plan.keep_going,
        )
        self._started_at, self._began = datetime.now(UTC), time.monotonic()
        self._groups: list[GroupInfo] = []
        self._scaler: Taskscaler | None = None
        self._opening = anyio.CancelScope()
        self._opened = anyio.Event()
        self._draining = anyio.Event()
        self._interrupted = False
        self._cancelling = False
        self._completed = False
        # From when on the result is fixed, and until when it is reported.
        self._concluding = False
        self._concluded = anyio.Event()
        self._wrong_input = False
        self._error: str | None = None
        self._troubles = Troubles()
        # The last failure to open a group.
        self._trouble = ""

    async def run(self) -> int:
        code = 3
        for warning in self._plan.warnings:
            await self._console.say(f"warning: {warning}")
        async with AsyncExitStack() as stack:
            store = await self._open_store(stack)
            # Signals are received until the last message is written.
            async with anyio.create_task_group() as receiver:
                await receiver.start(self._handle_signals)
                if store is not None:
                    await self._run_with_background(store)
                self._concluding = True
                code = await self._conclude()
                if store is not None and self._completed and self._plan.state is not None:
                    code = await self._clear_journal(store, code)
                self._concluded.set()
                receiver.cancel_scope.cancel()
            return code

    async def _run_with_background(self, store: Store) -> None:
        async with anyio.create_task_group() as background:
            for task in (
                self._enforce_timeout,
                self._draw_status,
                self._explain_waiting,
                self._tell_troubles,
                self._reload_config,
                self._drain,
            ):
                background.start_soon(self._guard, task)
            await self._run_jobs(store)
            background.cancel_scope.cancel()

    async def _open_store(self, stack: AsyncExitStack) -> Store | None:
        try:
            return await stack.enter_async_context(open_store(self._plan.state))
        except TaskscalerError as error:
            self._error = str(error)
            return None

    async def _run_jobs(self, store: Store) -> None:
        plan = self._plan
        try:
            with self._opening:
                async with AsyncExitStack() as stack:
                    groups = await open_groups(stack, plan, self._say_trouble)
                    self._groups = [group.info for group in groups]
                    await self._show_groups()
                    self._plan = plan = with_limits(plan, self._groups)
                    pairs = zip(self._groups, plan.groups, strict=True)
                    connectors = {group.id: one.connector for group, one in pairs}
                    scaler = Taskscaler(
                        groups,
                        plan.settings,
                        store=store,
                        connector=connectors,
                        purpose="taskscaler run",
                    )
                    self._scaler = await stack.enter_async_context(scaler)
                    self._opened.set()
                    # All that is loaded now stays until the end, so no full collection looks at it.
                    gc.freeze()
                    if plan.state is not None:
                        await self._runner.resume(Journal(scaler.commit, scaler.restored))
                    # The plan may have been reloaded during `resume`.
                    limit = worker_limit(self._plan, self._groups)
                    await self._runner.run(
                        scaler,
                        workers=limit.count,
                        acquire_timeout=self._plan.acquire_timeout,
                        why=limit.why,
                    )
                    self._completed = not self._interrupted
        except ConfigError as error:
            self._wrong_input, self._error = True, "; ".join(error.problems)
        except Fenced as error:
            self._error = str(error)  # Another scaler owns the instances now.
        except StoreError as error:
            self._error = f"{error}{self._leftover_text()}"
        except (FleetingError, TaskscalerError) as error:
            self._error = str(error)
        except (Exception, SystemExit) as error:  # noqa: BLE001 -- the report is written in every case
            self._error = f"{describe_bug(error, where=True)}{self._leftover_text()}"

    async def _say_trouble(self, message: str) -> None:
        self._trouble = message
        await self._console.say(f"warning: {message}")

    async def _show_groups(self) -> None:
        """Show the ids of the groups, which the file knows by name."""
        if len(self._groups) > 1:
            known = ", ".join(f"{name} is {id}" for id, name in self._group_names().items())
            await self._console.say(f"instance groups, in order of preference: {known}")

    def _group_names(self) -> dict[str, str]:
        """Return the names in the file of the open groups, by id."""
        pairs = zip(self._groups, self._plan.groups, strict=False)
        return {group.id: one.name for group, one in pairs}

    # The background tasks.

    async def _guard(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run a background task; a bug in it is told, and ends neither the jobs nor the report."""
        try:
            await task()
        except Exception as error:  # noqa: BLE001 -- as above
            await self._console.say(f"error: {describe_bug(error, where=True)}")

    async def _handle_signals(
        self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        if sys.platform == "win32":
            task_status.started()  # Signals cannot be received; Ctrl-C raises KeyboardInterrupt.
            return
        with anyio.open_signal_receiver(*_SIGNALS) as received:
            task_status.started()
            # Each signal is handled in its own task: writing a message blocks while the output is
            # not read, and must not delay the handling of the next signal.
            async with anyio.create_task_group() as handlers:
                async for number in received:
                    again, self._interrupted = self._interrupted, True
                    handlers.start_soon(self._interrupt, number, again)

    async def _interrupt(self, number: signal.Signals, again: bool) -> None:  # noqa: FBT001 - a task is started without keywords
        if again and number.name == "SIGQUIT":
            return
        self._give_up_opening()
        running = self._runner.counts[JobState.RUNNING]
        reason = f"interrupted by {number.name}"
        if self._concluding:
            # The jobs have ended and the instances are removed; the report comes first.
            if again and number.name not in _REPEATABLE:
                await self._leave()
        elif self._cancelling:
            if number.name not in _REPEATABLE:
                await self._exit_now(number)
        elif number.name in _GENTLE and not again and running:
            self._runner.stop(reason)
            self._draining.set()
            await self._console.say(
                "interrupted: no more jobs will start; waiting for "
                f"{counted(running, 'running job')} to finish (press Ctrl-C again to cancel)"
            )
        else:
            self._cancelling = True
            self._runner.cancel(JobState.CANCELED, reason)
            what = "removing instances" if self._removes_instances else "keeping instances"
            what = f"cancelling jobs and {what}" if running else what
            await self._console.say(f"{reason}: {what} (press Ctrl-C again to exit immediately)")

    async def _drain(self) -> None:
        """When no more jobs will start, let the scaler create no more instances for them."""
        await self._draining.wait()
        if self._scaler is not None:
            # A store that fails ends the scaler, which tells the reason.
            with suppress(ScalerClosed, StoreError):
                await self._runner.announce()
                await self._scaler.drain()

    async def _exit_now(self, number: signal.Signals) -> None:
        """Name the instances that are left, write the report, and end the process."""
        self._error = f"interrupted again by {number.name}: exited before the cleanup was complete"
        self._error += self._leftover_text()
        code = 130
        with anyio.move_on_after(_EXIT_SECONDS):
            code = await self._conclude()
        if self._scaler is not None:
            self._scaler.abandon()
        # A call may hang in a thread, and the interpreter would wait for it.
        exit_at_once(code)

    async def _leave(self) -> None:
        """End the process although the end of the run is not reported completely."""
        with anyio.move_on_after(_EXIT_SECONDS):
            await self._concluded.wait()
        exit_at_once(130)

    @property
    def _removes_instances(self) -> bool:
        # The instances of a temporary group end with it, whatever the file says.
        ending = all(group.temporary for group in self._groups)
        return ending or self._plan.settings.delete_instances_on_shutdown

    def _remaining(self) -> list[InstanceSummary]:
        instances = self._scaler.instances() if self._scaler is not None else ()
        return [one for one in instances if one.removed_at is None]

    def _leftover_text(self) -> str:
        left = ", ".join(f"{one.group}/{one.id}" for one in self._remaining())
        return f"; these instances were not removed and may cost money: {left}" if left else ""

    def _give_up_opening(self) -> None:
        if self._scaler is None:
            self._opening.cancel()

    def _output_closed(self, error: OSError) -> None:
        """Cancel the jobs: `| head` has closed the output, or the disk is full."""
        reason = "the reader of standard output closed it"
        if error.errno in _READER_GONE:
            self._interrupted = True
        else:
            why = (error.strerror or str(error)).lower()
            reason = self._error = f"cannot write to standard output: {why}"
        self._runner.cancel(JobState.CANCELED, reason)

    async def _enforce_timeout(self) -> None:
        if self._plan.timeout is None:
            return
        await anyio.sleep(self._plan.timeout.total_seconds())
        reason = f"--timeout of {Duration(seconds=self._plan.timeout.total_seconds())} expired"
        if self._scaler is None:
            self._error = f"{reason} before the instance groups were open"
            if self._trouble:
                self._error += f": {self._trouble}"
        self._give_up_opening()
        waiting = (JobState.CANCELED, f"{reason} before the job got a slot")
        if self._scaler is not None and not self._runner.counts[JobState.RUNNING]:
            # No other job used the slots, so the infrastructure is the reason for the wait.
            waiting = (JobState.SYSTEM_FAILURE, f"{reason}: {self._scaler.explain()}")
        self._runner.cancel(JobState.TIMED_OUT, reason, waiting)

    async def _draw_status(self) -> None:
        while self._console.is_terminal:
            if self._scaler is not None:
                await self._progress.draw(self._scaler.capacity(), self._runner.counts)
            await anyio.sleep(_STATUS_SECONDS)

    async def _explain_waiting(self) -> None:
        pause = _EXPLAIN_SECONDS
        while True:
            await anyio.sleep(pause)
            counts = self._runner.counts
            idle = counts[JobState.WAITING] and not counts[JobState.RUNNING]
            if self._scaler is not None and idle and not self._runner.stopping:
                self._troubles.skip(self._scaler.standing(), anyio.current_time())
                why = filter(None, (self._scaler.explain(), self._runner.held_back))
                await self._console.say(f"still waiting: {'; '.join(why)}")
                pause *= 2

    async def _tell_troubles(self) -> None:
        """Tell failures at once, and end the run if all groups are gone."""
        await self._opened.wait()
        while self._scaler is not None:
            standing, counts = self._scaler.standing(), self._runner.counts
            unfinished = counts[JobState.WAITING] or counts[JobState.RUNNING]
            if unfinished and (reason := no_group_left(standing, len(self._groups))):
                self._error = reason
                ended = (JobState.SYSTEM_FAILURE, reason)
                self._runner.cancel(*ended, ended)
                return
            for line in self._troubles.due(standing, anyio.current_time()):
                await self._console.say(f"warning: {line}")
            await anyio.sleep(_TROUBLE_SECONDS)

    async def _reload_config(self) -> None:
        if self._plan.options is None or self._plan.options.config is None:
            return
        path = self._plan.options.config
        # The first check finds changes that were made before.
        await self._opened.wait()
        async for _ in file_changes(path):
            try:
                found = await reload_plan(self._plan)
            except ConfigError as error:
                await self._console.say(
                    f"{path} has changed but is invalid; the previous settings stay in effect"
                )
                for problem in error.problems:
                    await self._console.say(f"error: {problem}")
            else:
                if found is not None:
                    await self._apply(path, found)

    async def _apply(self, path: Path, found: ReloadedPlan) -> None:
        """Apply a changed config.toml."""
        self._plan = with_limits(found.plan, self._groups)
        if self._scaler is not None:
            try:
                self._scaler.reconfigure(self._plan.settings)
            except ScalerClosed:
                return  # The scaler is closing; settings have no effect.
        self._runner.acquire_timeout = self._plan.acquire_timeout
        limit = worker_limit(self._plan, self._groups)
        with suppress(StoreError):  # As in `_drain`.
            await self._runner.resize(limit.count, limit.why)
        changes = "; ".join(found.changes) or "no setting of this run has changed"
        await self._console.say(f"{path} was reloaded: {changes}")
        for warning in found.warnings:
            await self._console.say(f"warning: {warning}")
        if found.kept:
            await self._console.say(
                f"warning: {path}: restart the command to apply the new value of: "
                f"{', '.join(found.kept)}"
            )

    # The end of the run.

    async def _clear_journal(self, store: Store, code: int) -> int:
        try:
            await clear_journal(store, self._plan.runs)
        except TaskscalerError as error:
            await self._console.say(f"error: cannot clear the job journal: {error}")
            return code or 3
        return code

    async def _conclude(self) -> int:
        await self._console.clear_status()
        if self._error is not None:
            await self._console.say(f"error: {self._error}")
        state = JobState.CANCELED if self._interrupted or self._wrong_input else None
        state = state or JobState.SYSTEM_FAILURE
        reason = self._error or "the run ended before the job got a slot"
        if self._error is not None:
            self._progress.skip(state, reason)
        await self._runner.abandon(state, reason)
        instances = self._scaler.instances() if self._scaler is not None else ()
        code = exit_code(
            [result.state for result in self._runner.results],
            interrupted=self._interrupted,
            wrong_input=self._wrong_input,
            infrastructure=self._error is not None,
        )
        report = RunReport(
            results=self._runner.results,
            instances=instances,
            started_at=self._started_at,
            finished_at=datetime.now(UTC),
            exit_code=code,
            seconds=time.monotonic() - self._began,
            error=self._error,
            group_names=self._group_names(),
        )
        code = await self._write(report)
        if not self._wrong_input:
            await self._progress.summary(report)
        await self._show_left()
        return code

    async def _show_left(self) -> None:
        """Show which instances are kept, as configured, for the next run."""
        if self._error is not None or self._removes_instances:
            return
        path = self._plan.state.path if self._plan.state is not None else None
        for line in kept_lines(self._remaining(), self._groups, path):
            await self._console.say(line)

    async def _write(self, report: RunReport) -> int:
        path = self._plan.report
        if path is None:
            return report.exit_code
        try:
            write_report(path, report)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            await self._console.say(f"error: --report {path}: cannot write the report ({why})")
            # The path was checked before the run, so this is not an error of the input.
            return report.exit_code if report.exit_code in (2, 130) else 3
        return report.exit_code
