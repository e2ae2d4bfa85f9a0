"""Tells a person how a run goes: lines, a live status, and a summary at the end."""

from __future__ import annotations

import io
import time
from collections import Counter
from typing import TYPE_CHECKING

from fleeting.types import Duration
from taskscaler.jobs import JobState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taskscaler import Capacity
    from taskscaler.cli.console import Console
    from taskscaler.jobs import JobResult, Report

__all__ = ("Progress",)

# A longer table helps nobody; the report has everything.
_ROWS_SHOWN = 50
# On a narrower terminal, the table has only what matters most.
_FULL_COLUMNS = 72
_STYLES = {JobState.SUCCESS: "green", JobState.CANCELED: "yellow"}


class Progress:
    """The observer of the jobs, which writes to the console.

    With a terminal, the status line shows what goes on, and only what went wrong
    gets a line; without one, everything does.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._fates: set[tuple[JobState, str | None]] = set()

    def has_said(self, state: JobState, reason: str) -> None:
        """Say nothing more of runs with this fate: the user knows it already."""
        self._fates.add((state, reason))

    async def started(self, result: JobResult) -> None:
        """Hear that a run got a slot."""
        if not self._console.is_terminal:
            place = f"{result.instance} slot {result.slot}"
            await self._console.say(f"{result.name}: started on {place}")

    async def retried(self, result: JobResult, reason: str) -> None:
        """Hear that an attempt was spoilt and that there will be another."""
        await self._console.say(
            f"{result.name}: attempt {result.attempts} was spoilt and is repeated: {reason}"
        )

    async def finished(self, result: JobResult) -> None:
        """Hear that the state of a run is final."""
        if not result.attempts:
            # Thousands may share one fate: it is told once, and the summary counts them.
            fate = (result.state, result.reason)
            if fate in self._fates:
                return
            self._fates.add(fate)
        if result.state is not JobState.SUCCESS or not self._console.is_terminal:
            await self._console.say(f"{result.name}: {_outcome(result)}")
        for warning in result.warnings:
            await self._console.say(f"{result.name}: warning: {warning}")

    async def resumed(self, results: Sequence[JobResult]) -> None:
        """Hear of the runs that ended in an earlier life."""
        states = Counter(result.state for result in results)
        told = ", ".join(f"{states[state]} {state.value}" for state in JobState if states[state])
        verb = "is" if len(results) == 1 else "are"
        await self._console.say(
            f"{_plural(len(results), 'job')} ended in an earlier call and {verb} not run again: "
            f"{told}"
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
        # Where not all has room, what matters most is kept.
        await self._console.show_status(text if len(text) < self._console.width else jobs)

    async def summary(self, report: Report) -> None:
        """Write what became of everything: a table on a terminal, and always one line."""
        if self._console.is_terminal:
            table = _table(report.results, self._console.width)
            if table:
                await self._console.say(table)
        totals = report.as_dict()["summary"]
        states = [
            f"{totals[state.value]} {state.value}" for state in JobState if totals.get(state.value)
        ]
        earlier = sum(result.earlier for result in report.results)
        before = f" ({earlier} of them in an earlier call)" if earlier else ""
        await self._console.say(
            f"{_plural(len(report.results), 'job')}: {', '.join(states)}{before}; "
            f"{_plural(len(report.instances), 'instance')}; {_seconds(totals['seconds'])}"
        )


def _outcome(result: JobResult) -> str:
    seconds = result.run_seconds
    text = result.state.value + (f" in {_seconds(seconds)}" if seconds is not None else "")
    return f"{text}: {result.reason}" if result.reason else text


def _table(results: Sequence[JobResult], width: int) -> str:
    """Draw a table of the runs, those first that did not succeed if not all have room."""
    from rich.console import Console as RichConsole
    from rich.table import Table

    shown = list(results)
    if len(shown) > _ROWS_SHOWN:
        shown = [result for result in results if result.state is not JobState.SUCCESS][:_ROWS_SHOWN]
    if not shown:
        return ""
    details = ("instance/slot", "attempts", "waited", "ran") if width >= _FULL_COLUMNS else ()
    table = Table("job", "state", *details, "reason", box=None)
    for result in shown:
        cells = (
            f"{result.instance}/{result.slot}" if result.instance else "-",
            str(result.attempts),
            _seconds(result.wait_seconds),
            _seconds(result.run_seconds),
        )
        table.add_row(
            result.name,
            result.state.value,
            *(cells if details else ()),
            result.reason or "",
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


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
