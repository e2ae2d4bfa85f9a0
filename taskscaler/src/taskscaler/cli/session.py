"""One run of `taskscaler run`, from the opening of the groups to the exit code.

Theory of operation. Some tasks run beside the jobs and end with them: one hears
signals, one waits for the run's time to be up, one draws the status line, one
says from time to time why nothing runs, one reads the operator's file again when
it has changed, one drains the scaler once no more jobs are to be started. They do
not touch the jobs themselves, but ask the runner to `stop` or `cancel`; before
the groups are open there is nothing to finish, so they cancel the opening.
Whatever happens, leaving the scaler removes the
instances (or, if the operator says so, leaves them to the next run), then the
report is written, then the exit code follows from the results.

A signal goes one step further each time: finish what runs, end it, and at last
wait no longer for the instances to go. The last step leaves everything as it is
and ends the process, because whatever still hangs then has had its chance.

With a state file, the jobs are journaled in it. A run that came to its end
clears its journal, but not before the report is written: a crash between the
two only means that the next call reports the same once more.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import anyio

from fleeting.errors import ConfigError, FleetingError
from fleeting.types import Duration
from taskscaler._errors import Fenced, ScalerClosed, StoreError, TaskscalerError
from taskscaler._scaler import Taskscaler
from taskscaler.cli.console import Console
from taskscaler.cli.opening import open_groups, open_store, with_limits
from taskscaler.cli.progress import Progress
from taskscaler.cli.reload import file_changes, reread
from taskscaler.jobs import (
    JobRunner,
    JobState,
    Journal,
    Report,
    clear_journal,
    output_factory,
    write_report,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fleeting.types import GroupInfo
    from taskscaler._summaries import InstanceSummary
    from taskscaler.cli.plan import Plan
    from taskscaler.cli.reload import Reread
    from taskscaler.storage import Store

__all__ = ("exit_code", "run_session")

_STATUS_SECONDS = 0.1
# After this time without a running job the reason is told; then after twice that, and so on.
_WHY_SECONDS = 15.0
# How long the last words may take before the process ends without them.
_LEAVE_SECONDS = 2.0
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
        self._groups: list[GroupInfo] = []
        self._scaler: Taskscaler | None = None
        self._opening = anyio.CancelScope()
        self._opened = anyio.Event()
        self._draining = anyio.Event()
        self._interrupted = False
        self._ending = False
        self._over = False
        self._wrong_input = False
        self._error: str | None = None

    async def run(self) -> int:
        for warning in self._plan.warnings:
            await self._console.say(f"warning: {warning}")
        async with AsyncExitStack() as stack:
            store = await self._open_store(stack)
            async with anyio.create_task_group() as beside:
                await beside.start(self._hear_signals)
                beside.start_soon(self._watch_time)
                beside.start_soon(self._draw_status)
                beside.start_soon(self._say_why)
                beside.start_soon(self._watch_file)
                beside.start_soon(self._drain)
                if store is not None:
                    await self._run_jobs(store)
                beside.cancel_scope.cancel()
            code = await self._conclude()
            if store is not None and self._over and self._plan.state is not None:
                code = await self._clear_journal(store, code)
            return code

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
                    groups = await open_groups(stack, plan)
                    self._groups = [group.info for group in groups]
                    await self._tell_groups()
                    self._plan = plan = with_limits(plan, self._groups)
                    pairs = zip(self._groups, plan.groups, strict=True)
                    connectors = {group.id: one.connector for group, one in pairs}
                    scaler = Taskscaler(groups, plan.settings, store=store, connector=connectors)
                    self._scaler = await stack.enter_async_context(scaler)
                    self._opened.set()
                    if plan.state is not None:
                        await self._runner.resume(Journal(scaler.commit, scaler.restored))
                    await self._runner.run(
                        scaler,
                        workers=self._workers(),
                        acquire_timeout=self._plan.acquire_timeout,
                    )
                    self._over = not self._interrupted
        except ConfigError as error:
            self._wrong_input, self._error = True, "; ".join(error.problems)
        except Fenced as error:
            self._error = str(error)  # The instances are another scaler's now.
        except StoreError as error:
            self._error = f"{error}{self._and_left()}"
        except (FleetingError, TaskscalerError) as error:
            self._error = str(error)

    async def _tell_groups(self) -> None:
        """Say which ids the groups have that the operator knows by names."""
        if len(self._groups) > 1:
            known = ", ".join(f"{name} is {id}" for id, name in self._group_names().items())
            await self._console.say(f"groups of instances, the preferred first: {known}")

    def _group_names(self) -> dict[str, str]:
        """Return the operator's names of the groups that are open, by their ids."""
        pairs = zip(self._groups, self._plan.groups, strict=False)
        return {group.id: one.name for group, one in pairs}

    def _workers(self) -> int:
        """Return how many jobs can run at once, or how many runs there are."""
        settings = self._plan.settings
        sizes = [
            min((size for size in (group.max_size, plan.max_instances or None) if size), default=0)
            for group, plan in zip(self._groups, self._plan.groups, strict=True)
        ]
        limits = [settings.max_instances, sum(sizes) if all(sizes) else 0]
        slots = min((limit for limit in limits if limit), default=0)
        known = [slots * settings.capacity_per_instance, self._plan.most_jobs]
        return min((limit for limit in known if limit), default=len(self._plan.runs))

    # What runs beside the jobs.

    async def _hear_signals(
        self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        if sys.platform == "win32":
            task_status.started()  # There are no receivers; Ctrl-C raises KeyboardInterrupt.
            return
        with anyio.open_signal_receiver(*_SIGNALS) as received:
            task_status.started()
            # Each in a task of its own: to say something may take for ever, if nobody reads it,
            # and must not keep the next one from being heard.
            async with anyio.create_task_group() as heard:
                async for number in received:
                    again, self._interrupted = self._interrupted, True
                    heard.start_soon(self._interrupt, number, again)

    async def _interrupt(self, number: signal.Signals, again: bool) -> None:  # noqa: FBT001 - a task is started without keywords
        self._give_up_opening()
        running = self._runner.counts[JobState.RUNNING]
        reason = f"interrupted by {number.name}"
        if self._ending:
            # A terminal that goes away may say so more than once.
            if number is not signal.SIGHUP:
                await self._leave(number)
        elif number is signal.SIGINT and not again and running:
            self._runner.stop(reason)
            self._draining.set()
            await self._console.say(
                f"interrupted: no more jobs are started; waiting for {running} that run "
                "(Ctrl-C again cancels them)"
            )
        else:
            self._ending = True
            self._runner.cancel(JobState.CANCELED, reason)
            what = "the jobs are cancelled and the instances" if running else "the instances"
            does = "removed" if self._plan.settings.delete_instances_on_shutdown else "kept"
            await self._console.say(
                f"{reason}: {what} are {does}, please wait (Ctrl-C again does not)"
            )

    async def _drain(self) -> None:
        """Once no more jobs are started, let the scaler make nothing ready for them either."""
        await self._draining.wait()
        if self._scaler is not None:
            with suppress(ScalerClosed):
                await self._scaler.drain()

    async def _leave(self, number: signal.Signals) -> None:
        """Wait for nothing any more: tell what is left, write the report, and be gone."""
        self._error = f"interrupted by {number.name} again, without waiting for the end"
        self._error += self._and_left()
        code = 130
        with anyio.move_on_after(_LEAVE_SECONDS):
            code = await self._conclude()
        # Some call hangs, and the interpreter would wait for its thread.
        os._exit(code)

    def _left(self) -> list[InstanceSummary]:
        instances = self._scaler.instances() if self._scaler is not None else ()
        return [one for one in instances if one.removed_at is None]

    def _and_left(self) -> str:
        left = [f"{one.group}/{one.id}" for one in self._left()]
        return f"; instances are left that may cost money: {', '.join(left)}" if left else ""

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

    async def _watch_file(self) -> None:
        if self._plan.options is None or self._plan.options.config is None:
            return
        path = self._plan.options.config
        # What changes until then is found by the first look.
        await self._opened.wait()
        async for _ in file_changes(path):
            try:
                found = await reread(self._plan)
            except ConfigError as error:
                await self._console.say(
                    f"{path} was changed and is wrong; the old settings stay in force"
                )
                for problem in error.problems:
                    await self._console.say(f"error: {problem}")
            else:
                if found is not None:
                    await self._take_over(path, found)

    async def _take_over(self, path: Path, found: Reread) -> None:
        """Put what a changed file says in force."""
        self._plan = with_limits(found.plan, self._groups)
        if self._scaler is not None:
            try:
                self._scaler.reconfigure(self._plan.settings)
            except ScalerClosed:
                return  # It is too late for any setting.
        self._runner.acquire_timeout = self._plan.acquire_timeout
        self._runner.resize(self._workers())
        what = "; ".join(found.changes) or "nothing changes for this run"
        await self._console.say(f"{path} was read again: {what}")
        for warning in found.warnings:
            await self._console.say(f"warning: {warning}")
        if found.kept:
            await self._console.say(
                f"warning: {path}: this takes effect only when the command is started anew, and "
                f"stays as it was: {', '.join(found.kept)}"
            )

    # How it ends.

    async def _clear_journal(self, store: Store, code: int) -> int:
        try:
            await clear_journal(store, self._plan.runs)
        except TaskscalerError as error:
            await self._console.say(f"error: the journal of the jobs is not cleared: {error}")
            return code or 3
        return code

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
            group_names=self._group_names(),
        )
        code = await self._write(report)
        if not self._wrong_input:
            await self._progress.summary(report)
        await self._tell_kept()
        return code

    async def _tell_kept(self) -> None:
        """Say what goes on without us, because the operator wants it so."""
        left = [one for one in self._left() if one.removal_reason is None]
        if not left or self._error is not None or self._plan.settings.delete_instances_on_shutdown:
            return
        state = self._plan.state
        finds = f"finds them through {state.path}" if state else "does not know them: add --state"
        stay = "1 instance stays" if len(left) == 1 else f"{len(left)} instances stay"
        await self._console.say(f"{stay}, as the file says; the next run {finds}")

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
