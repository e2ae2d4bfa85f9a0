"""Shows the progress of a run: messages, a live status line, and a summary at the end."""

from __future__ import annotations

import io
import time
from collections import Counter
from typing import TYPE_CHECKING

from fleeting import plain, wrapped
from fleeting.types import Duration
from taskscaler.core import counted
from taskscaler.jobs.result import JobState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taskscaler._summaries import Capacity
    from taskscaler.cli.console import Console
    from taskscaler.jobs.report import RunReport
    from taskscaler.jobs.result import JobResult

__all__ = ("Progress",)

# The report has all jobs; a longer table is not readable.
_ROWS_SHOWN = 50
# A narrower terminal gets only the most important columns.
_FULL_COLUMNS = 72
# A table on a still narrower one would show parts of words.
_TABLE_COLUMNS = 40
_STYLES = {JobState.SUCCESS: "green", JobState.CANCELED: "yellow"}


class Progress:
    """Reports the progress of jobs on the console.

    On a terminal, the status line shows the progress, and only problems get a message.
    Without a terminal, each start and end of a job gets a message.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._reported: set[tuple[JobState, str | None]] = set()

    def skip(self, state: JobState, reason: str) -> None:
        """Report no runs that end with this state and reason: the user knows it already."""
        self._reported.add((state, reason))

    async def started(self, result: JobResult) -> None:
        """Report that a run got a slot."""
        if not self._console.is_terminal:
            place = f"{result.instance} slot {result.slot}"
            await self._console.say(f"{result.name}: started on {place}")

    async def retried(self, result: JobResult, reason: str) -> None:
        """Report that an attempt failed and will be retried."""
        await self._console.say(
            f"{result.name}: attempt {result.attempts} failed and will be retried: {reason}"
        )

    async def finished(self, result: JobResult) -> None:
        """Report the end of a run."""
        if not result.attempts:
            # Thousands of runs may end for one reason: report it once; the summary counts them.
            end = (result.state, result.reason)
            if end in self._reported:
                return
            self._reported.add(end)
        if result.state is not JobState.SUCCESS or not self._console.is_terminal:
            await self._console.say(f"{result.name}: {_describe_end(result)}")
        for warning in result.warnings:
            await self._console.say(f"{result.name}: warning: {warning}")

    async def resumed(self, results: Sequence[JobResult]) -> None:
        """Report the runs that ended in an earlier call."""
        states = Counter(result.state for result in results)
        counts = ", ".join(f"{states[state]} {state.value}" for state in JobState if states[state])
        await self._console.say(
            f"{counted(len(results), 'job')} ended in an earlier call and will not run again: "
            f"{counts}"
        )

    async def draw(self, capacity: Capacity, counts: Mapping[JobState, int]) -> None:
        """Draw the status line."""
        states = ", ".join(
            f"{count} {state}" for state, count in capacity.instances.items() if count
        )
        done = sum(count for state, count in counts.items() if state.is_final)
        waiting, running = counts.get(JobState.WAITING, 0), counts.get(JobState.RUNNING, 0)
        jobs = (
            f"jobs: {waiting} waiting, {running} running, {done} done | "
            f"{_seconds(time.monotonic() - self._began)}"
        )
        slots = f"slots: {capacity.slots_used}/{capacity.slots_total}"
        text = f"instances: {states or 'none'} | {slots} | {jobs}"
        # If the line is too long, show only the most important part.
        await self._console.show_status(text if len(text) < self._console.width else jobs)

    async def summary(self, report: RunReport) -> None:
        """Write the totals in one line, after a table of the jobs if there is a terminal."""
        if self._console.is_terminal:
            table = _table(report.results, self._console.width)
            if table:
                await self._console.show(table)
        totals = report.as_dict()["summary"]
        states = [
            f"{totals[state.value]} {state.value}" for state in JobState if totals.get(state.value)
        ]
        earlier = sum(result.earlier for result in report.results)
        before = f" ({earlier} of them in an earlier call)" if earlier else ""
        await self._console.say(
            f"{counted(len(report.results), 'job')}: {', '.join(states)}{before}; "
            f"{counted(len(report.instances), 'instance')}; {_seconds(totals['seconds'])}"
        )


def _describe_end(result: JobResult) -> str:
    seconds = result.run_seconds
    text = result.state.value + (f" in {_seconds(seconds)}" if seconds is not None else "")
    return f"{text}: {result.reason}" if result.reason else text


def _table(results: Sequence[JobResult], width: int) -> str:
    """Return a table of the runs; of too many, only those that did not succeed."""
    from rich.console import Console as RichConsole
    from rich.table import Table

    shown = list(results)
    if len(shown) > _ROWS_SHOWN:
        shown = [result for result in results if result.state is not JobState.SUCCESS][:_ROWS_SHOWN]
    if not shown:
        return ""
    if width < _TABLE_COLUMNS:
        lines = (f"{result.name}: {_describe_end(result)}" for result in shown)
        return "\n".join(wrapped(plain(line), width) for line in lines)
    details = ("instance/slot", "attempts", "waited", "ran") if width >= _FULL_COLUMNS else ()
    table = Table("job", "state", *details, "reason", box=None)
    for result in shown:
        cells = (
            plain(f"{result.instance}/{result.slot}") if result.instance else "-",
            str(result.attempts),
            _seconds(result.wait_seconds),
            _seconds(result.run_seconds),
        )
        table.add_row(
            plain(result.name),
            result.state.value,
            *(cells if details else ()),
            plain(result.reason or ""),
            style=_STYLES.get(result.state, "red"),
        )
    text = io.StringIO()
    writer = RichConsole(file=text, width=width, force_terminal=True)
    writer.print(table, markup=False, highlight=False)
    return text.getvalue().rstrip("\n")


def _seconds(seconds: float | None) -> str:
    return (
        "-" if seconds is None else str(Duration(seconds=round(seconds, 1 if seconds > 1 else 3)))
    )
