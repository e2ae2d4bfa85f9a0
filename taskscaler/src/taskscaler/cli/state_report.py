"""Reports the state of a scaler from its state file, even while the scaler runs."""

from __future__ import annotations

import io
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from fleeting import is_terminal, plain, read_holder, say, say_json, show
from fleeting.errors import ConfigError
from fleeting.types import Duration
from taskscaler.config import read_config
from taskscaler.core import JobRecord, QueueRecord, counted, explain, queued
from taskscaler.jobs.queue import JobQueue, describe_queue, find_queue
from taskscaler.storage._sqlite import read_records, recall

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from taskscaler.core import Decision
    from taskscaler.storage import Picture, Remembered

__all__ = ("find_state_file", "print_state_report")

# Longer lists are only in the JSON.
_TASKS_SHOWN = 20
_FACTS_SHOWN = 100
# A job may have a million runs.
_NAMES = 10_000
_COLUMNS = 250


def find_state_file(state: Path | None, config: Path | None, runner: str | None) -> Path:
    """Return the state file that the options of the command name.

    Raises:
        ConfigError: the options name no state file, or the file does not exist.
    """
    if state is None and config is None:
        raise ConfigError("no state file is given; use --state FILE or --config FILE")
    if config is not None and state is None:
        state = read_config(config).runner(runner).state_path(config)
        if state is None:
            raise ConfigError(
                f"{config}: this runner keeps no state; remove `enabled = false` in "
                "[runners.autoscaler.state_storage], or use --state FILE"
            )
    if state is None or not state.exists():
        raise ConfigError(
            f"{state}: the file does not exist; check the path (a scaler creates it when it starts)"
        )
    if not state.is_file():
        raise ConfigError(f"{state} is not a regular file; name the state file")
    return state


@dataclass(frozen=True, slots=True)
class _StateReport:
    """The contents of a state file at one moment.

    Attributes:
        path: of the file.
        now: when it was read.
        running: whether a scaler uses it; None if unknown, for example on another host.
        remembered: the history, and the last recorded state.
        jobs: the records of the job journal, by name.
        queue: the runs that neither hold nor ask for a slot.
    """

    path: Path
    now: datetime
    running: bool | None
    remembered: Remembered
    jobs: dict[str, JobRecord]
    queue: JobQueue

    @property
    def picture(self) -> Picture | None:
        return self.remembered.picture

    @property
    def held_back(self) -> str:
        """Return how many jobs wait although the scaler does not know them, and why."""
        queue = self.queue
        if self.running is not False:
            count = len(queue.waiting)
            return describe_queue(count, queue.why, stopping=queue.stopping, more=queue.more)
        count = len(self.idle_jobs)
        if not count:
            return ""
        have, them = ("has", "it") if count == 1 else ("have", "them")
        return f"{counted(count, 'job')} {have} not run; call the same command again to run {them}"

    @property
    def idle_jobs(self) -> tuple[str, ...]:
        """Return the runs that wait for their turn, or those that a stopped scaler has not run."""
        queue = self.queue
        return queue.asking + queue.waiting if self.running is False else queue.waiting


def print_state_report(path: Path, key: str | None, *, decisions: int, as_json: bool) -> int:
    """Print the report of a state file, and return the exit code.

    Args:
        path: of the state file.
        key: of a task, or the name of a job, to report as well.
        decisions: how many of the newest decisions to print.
        as_json: whether to print JSON.

    Raises:
        StoreError: the file cannot be read.
    """
    report = _read(path)
    known = list(_facts(report, key)) if key is not None else []
    if as_json:
        found = _as_json(report, known if key is not None else None, decisions)
        say_json(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        for line in _text_lines(report, key, known):
            say(line)
        _print_decisions(report.remembered.decisions[-decisions:] if decisions else ())
    if key is not None and not known:
        say(f"error: {path}: no task or job {key!r}; check the spelling", err=True)
        return 1
    return 0


def _read(path: Path) -> _StateReport:
    running = _is_held(path)
    remembered, records = recall(path), read_records(path)
    jobs = {one.name: one for one in records if isinstance(one, JobRecord)}
    queue = next((one for one in records if isinstance(one, QueueRecord)), None)
    picture = remembered.picture
    keys: list[str] = []
    if picture is not None and running is not False:
        keys = [key for key, _ in picture.waiting] + [key for key, _, _ in picture.held]
    # The key of an attempt begins with the name of its run.
    known = {key.partition("/")[0] for key in keys}
    found = find_queue(queue, jobs, known)
    return _StateReport(path, datetime.now(UTC), running, remembered, jobs, found)


def _is_held(path: Path) -> bool | None:
    """Return whether the process that uses a state file is alive, without taking its lock."""
    holder = read_holder(path.resolve().with_name(f"{path.resolve().name}.lock"))
    # A process that ends cleanly leaves the lock file empty.
    return holder.is_alive if holder is not None else False


# The facts about one key.


def _facts(report: _StateReport, key: str) -> Iterator[dict[str, Any]]:
    """Yield all facts about a key as plain values, the newest last."""
    for entry in report.remembered.tasks:
        if _matches(key, entry.key):
            yield {"is": "ended", **msgspec.to_builtins(entry, builtin_types=(datetime,))}
    picture = report.picture
    for place, (waiting, since) in enumerate(picture.waiting if picture else (), 1):
        if _matches(key, waiting):
            yield {"is": "waiting", "key": waiting, "since": since, "place": place}
    for held, group, instance in picture.held if picture else ():
        if _matches(key, held):
            yield {"is": "running", "key": held, "group": group, "instance": instance}
    for job in report.jobs.values():
        if _matches(key, job.name):
            yield {"is": "job", **msgspec.to_builtins(job, builtin_types=(datetime,))}
    yield from _facts_of_queue(report, key)


def _facts_of_queue(report: _StateReport, key: str) -> Iterator[dict[str, Any]]:
    queue = report.queue
    if report.running is False:
        for name in report.idle_jobs:
            if _matches(key, name):
                yield {"is": "not started", "name": name}
        return
    for name in queue.asking:
        if _matches(key, name):
            yield {"is": "next", "name": name}
    for place, name in enumerate(queue.waiting, 1):
        if _matches(key, name):
            yield {"is": "held back", "name": name, "place": place, "why": queue.why}


def _matches(asked: str, key: str) -> bool:
    """Return whether a task is asked for: by its key, or by the name of its run or of its job."""
    return asked == key or key.startswith((f"{asked}/", f"{asked}#"))


def _sentence(report: _StateReport, fact: dict[str, Any]) -> str:
    match fact["is"]:
        case "waiting":
            picture = report.picture
            count = len(picture.waiting) if picture is not None else 0
            at = picture.at if picture is not None else report.now
            return queued(fact["key"], fact["place"], count, _seconds(at, fact["since"]))
        case "running":
            place = f"a slot on {fact['group']}/{fact['instance']}"
            if report.running is False:
                return f"{fact['key']} held {place} when the scaler stopped unexpectedly"
            return f"{fact['key']} holds {place}"
        case "job":
            return _job_sentence(report, fact)
        case "ended":
            return _ended_sentence(fact)
        case _:
            return _idle_sentence(report.queue, fact)


def _idle_sentence(queue: JobQueue, fact: dict[str, Any]) -> str:
    if fact["is"] == "next":
        return f"job {fact['name']} is next and asks for a slot"
    if fact["is"] == "not started":
        return f"job {fact['name']} has not run; call the same command again to run it"
    if queue.stopping:
        return f"job {fact['name']} does not start: {queue.why}"
    why = f": {queue.why}" if queue.why else ""
    place = f"number {fact['place']} of {len(queue.waiting)}"
    return f"job {fact['name']} waits{why}; it is {place} in the queue of jobs"


def _job_sentence(report: _StateReport, fact: dict[str, Any]) -> str:
    where = f" on {fact['group']}/{fact['instance']}" if fact["instance"] else ""
    if report.running is False and fact["state"] == "running":
        return (
            f"job {fact['name']}: attempt {fact['attempts']}{where} was lost: the scaler stopped "
            f"unexpectedly while it ran, started at {_clock(fact['started_at'])}; how far it got "
            "is unknown"
        )
    reason = f": {fact['reason']}" if fact["reason"] else ""
    status = f", exit code {fact['status']}" if fact["status"] is not None else ""
    tries = f"after {counted(fact['attempts'], 'attempt')}"
    if fact["state"] == "running":
        tries = f"in attempt {fact['attempts']}"
    return f"job {fact['name']}: {fact['state']} {tries}{where}{status}{reason}"


def _ended_sentence(fact: dict[str, Any]) -> str:
    asked, granted, ended = fact["asked_at"], fact["granted_at"], fact["ended_at"]
    reason = f": {fact['reason']}" if fact["reason"] else ""
    if asked is None:
        where = f"{fact['group']}/{fact['instance']}"
        return f"{fact['key']} held a slot on {where}, and was {fact['outcome']}{reason}"
    text = f"{fact['key']} requested a slot at {_clock(asked)}"
    if granted is None:
        return f"{text}, got none in {_length(ended, asked)}, and was {fact['outcome']}{reason}"
    return (
        f"{text}, got one on {fact['group']}/{fact['instance']} after "
        f"{_length(granted, asked)}, and was {fact['outcome']} {_length(ended, granted)} later"
        f"{reason}"
    )


# The report as text.


def _text_lines(
    report: _StateReport, key: str | None, known: Sequence[dict[str, Any]]
) -> Iterator[str]:
    picture = report.picture
    running = {True: "is running", False: "is not running", None: "may be running on another host"}
    scaler = f"{report.path}: the scaler {running[report.running]}"
    if picture is None:
        yield f"{scaler}; it has not recorded its state yet"
        if report.held_back:
            yield report.held_back
    else:
        ago = _length(report.now, picture.at)
        yield f"{scaler}; its state {ago} ago ({_clock(picture.at)}):"
        yield explain(picture.standing, held_back=report.held_back)
    for fact in known[:_FACTS_SHOWN]:
        yield _sentence(report, fact)
    yield from _more(len(known), _FACTS_SHOWN)
    if key is None:
        if picture is not None:
            yield from _lists(report, picture)
        yield from _jobs(report)


def _lists(report: _StateReport, picture: Picture) -> Iterator[str]:
    when = " when the scaler stopped unexpectedly" if report.running is False else ""
    if picture.waiting:
        yield f"waiting tasks{when}, next first:"
    for waiting, since in picture.waiting[:_TASKS_SHOWN]:
        yield f"  {waiting} for {_length(picture.at, since)}"
    yield from _more(len(picture.waiting))
    if picture.held:
        yield f"tasks with a slot{when}:"
    for held, group, instance in picture.held[:_TASKS_SHOWN]:
        yield f"  {held} on {group}/{instance}"
    yield from _more(len(picture.held))


def _jobs(report: _StateReport) -> Iterator[str]:
    names = report.idle_jobs
    if names:
        if report.running is False:
            yield "jobs that have not run:"
        elif report.queue.stopping:
            yield "jobs that do not start:"
        else:
            yield "jobs that wait for their turn, next first:"
    yield from (f"  {name}" for name in names[:_TASKS_SHOWN])
    yield from _more(len(names))


def _more(count: int, shown: int = _TASKS_SHOWN) -> Iterator[str]:
    if count > shown:
        yield f"  ... {count - shown} more; use --json to list all"


def _print_decisions(decisions: Sequence[Decision]) -> None:
    if not decisions:
        return
    from rich import box
    from rich.console import Console as RichConsole
    from rich.table import Table

    # In a file or a pipe, do not fold the table to the width of a terminal.
    draws = is_terminal()
    width = shutil.get_terminal_size().columns if draws else _COLUMNS
    text = io.StringIO()
    writer = RichConsole(
        file=text, width=width, force_terminal=draws, highlight=False, markup=False
    )
    table = Table("at", "group", "rule", "decided", "inputs", box=box.SIMPLE, pad_edge=False)
    table.columns[0].no_wrap = True
    for one in decisions:
        decided = f"{one.decided:+d}"
        if one.decided != one.wanted:
            decided += f" of {one.wanted:+d}: {one.clamped_by}"
        rule = f"{one.rule.value}: {one.detail}" if one.detail else one.rule.value
        cells = (_clock(one.at), one.group, rule, decided, _inputs(one))
        table.add_row(*map(plain, cells))
    say("newest decisions, oldest first; inputs that are 0 are not shown:")
    writer.print(table)
    show(text.getvalue())


def _inputs(decision: Decision) -> str:
    values: dict[str, object] = msgspec.to_builtins(decision.demand)
    return " ".join(f"{name}={value}" for name, value in values.items() if value)


# The report as JSON.


def _as_json(
    report: _StateReport, known: Sequence[dict[str, Any]] | None, decisions: int
) -> dict[str, Any]:
    picture = report.picture
    newest = report.remembered.decisions[-decisions:] if decisions else ()
    found: dict[str, Any] = {
        "state": str(report.path),
        "running": report.running,
        "at": picture.at if picture else None,
        "age_seconds": _seconds(report.now, picture.at) if picture else None,
        "why": explain(picture.standing, held_back=report.held_back) if picture else None,
        "standing": picture.standing if picture else None,
        "waiting": [
            {"key": key, "since": since} for key, since in (picture.waiting if picture else ())
        ],
        "held": [
            {"key": key, "group": group, "instance": instance}
            for key, group, instance in (picture.held if picture else ())
        ],
        "jobs": {
            "why": report.held_back,
            "count": len(report.idle_jobs) + report.queue.more,
            "names": report.idle_jobs[:_NAMES],
        },
        "decisions": newest,
    }
    if known is not None:
        found["known"] = known
    return found


def _clock(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def _length(later: datetime, earlier: datetime) -> str:
    seconds = _seconds(later, earlier)
    return str(Duration(seconds=round(seconds, 1 if seconds < 10 else 0)))  # noqa: PLR2004 -- tenths of a second matter only for short times


def _seconds(later: datetime, earlier: datetime) -> float:
    return max(0.0, (later - earlier).total_seconds())
