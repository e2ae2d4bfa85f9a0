"""Gives an account of a scaler from what its state file holds, also while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import msgspec

from fleeting import read_holder
from fleeting.errors import ConfigError
from fleeting.types import Duration
from taskscaler.config import read_config
from taskscaler.core import JobRecord, explain
from taskscaler.storage._sqlite import read_records, recall

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from taskscaler.core import Decision
    from taskscaler.storage import Picture, Remembered

__all__ = ("find_state", "give_account")

# A longer list is for --json.
_TASKS_SHOWN = 20
_COLUMNS = 250


def find_state(state: Path | None, config: Path | None, runner: str | None) -> Path:
    """Return the state file that is meant.

    Raises:
        ConfigError: none is named, or the one that is named is not there.
    """
    if state is None and config is None:
        raise ConfigError("no scaler is named; give --state FILE, or --config FILE")
    if config is not None and state is None:
        state = read_config(config).runner(runner).state_path(config)
        if state is None:
            raise ConfigError(
                f"{config}: this runner keeps no state, or nothing names it; write id into "
                "[runners.autoscaler.extensions], or give --state"
            )
    if state is None or not state.exists():
        raise ConfigError(
            f"{state}: there is no such file; a scaler makes it when it starts, so check the path"
        )
    if not state.is_file():
        raise ConfigError(f"{state} is no file; name the file of the state")
    return state


@dataclass(frozen=True, slots=True)
class _Account:
    """What a state file says, at one moment.

    Attributes:
        path: of the file.
        now: when it was read.
        running: whether a scaler holds it; None if that cannot be known from here.
        remembered: history and picture.
        jobs: that are journaled, by name.
    """

    path: Path
    now: datetime
    running: bool | None
    remembered: Remembered
    jobs: dict[str, JobRecord]

    @property
    def picture(self) -> Picture | None:
        return self.remembered.picture


def give_account(path: Path, key: str | None, *, decisions: int, as_json: bool) -> int:
    """Print an account, and return the exit code.

    Args:
        path: of the state file.
        key: of a task, or the name of a job; None asks for no particular one.
        decisions: how many of the newest to show.
        as_json: whether a program reads it.

    Raises:
        StoreError: the file cannot be read.
    """
    account = _read(path)
    known = list(_facts(account, key)) if key is not None else []
    if as_json:
        found = _as_json(account, known if key is not None else None, decisions)
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        for line in _told(account, key, known):
            click.echo(line)
        _print_decisions(account.remembered.decisions[-decisions:] if decisions else ())
    if key is not None and not known:
        click.echo(f"error: {path}: nothing is known of {key!r}; check the spelling", err=True)
        return 1
    return 0


def _read(path: Path) -> _Account:
    running = _is_held(path)
    remembered, records = recall(path), read_records(path)
    jobs = {one.name: one for one in records if isinstance(one, JobRecord)}
    return _Account(path, datetime.now(UTC), running, remembered, jobs)


def _is_held(path: Path) -> bool | None:
    """Return whether the one that holds a state file is alive, without touching its lock."""
    holder = read_holder(path.resolve().with_name(f"{path.resolve().name}.lock"))
    # Whoever goes in order leaves it empty.
    return holder.is_alive if holder is not None else False


# What is known of one key.


def _facts(account: _Account, key: str) -> Iterator[dict[str, Any]]:
    """Find everything that is known of a key, as plain values; the newest comes last."""
    for entry in account.remembered.tasks:
        if _means(key, entry.key):
            yield {"is": "ended", **msgspec.to_builtins(entry, builtin_types=(datetime,))}
    picture = account.picture
    for place, (waiting, since) in enumerate(picture.waiting if picture else (), 1):
        if _means(key, waiting):
            yield {"is": "waiting", "key": waiting, "since": since, "place": place}
    for held, group, instance in picture.held if picture else ():
        if _means(key, held):
            yield {"is": "running", "key": held, "group": group, "instance": instance}
    job = account.jobs.get(key)
    if job is not None:
        yield {"is": "job", **msgspec.to_builtins(job, builtin_types=(datetime,))}


def _means(asked: str, key: str) -> bool:
    """Return whether a task is meant: by its key, or by the name of its job before a slash."""
    return asked == key or key.startswith(f"{asked}/")


def _sentence(account: _Account, fact: dict[str, Any]) -> str:
    match fact["is"]:
        case "waiting":
            picture = account.picture
            count = len(picture.waiting) if picture is not None else 0
            at = picture.at if picture is not None else account.now
            return (
                f"{fact['key']} waits since {_clock(fact['since'])} ({_length(at, fact['since'])}),"
                f" as number {fact['place']} of {count}"
            )
        case "running":
            return f"{fact['key']} holds a slot on {fact['group']}/{fact['instance']}"
        case "job":
            return _job_sentence(fact)
        case _:
            return _ended_sentence(fact)


def _job_sentence(fact: dict[str, Any]) -> str:
    where = f" on {fact['group']}/{fact['instance']}" if fact["instance"] else ""
    reason = f": {fact['reason']}" if fact["reason"] else ""
    status = f", exit code {fact['status']}" if fact["status"] is not None else ""
    tries = "1 attempt" if fact["attempts"] == 1 else f"{fact['attempts']} attempts"
    return f"job {fact['name']}: {fact['state']} after {tries}{where}{status}{reason}"


def _ended_sentence(fact: dict[str, Any]) -> str:
    asked, granted, ended = fact["asked_at"], fact["granted_at"], fact["ended_at"]
    reason = f": {fact['reason']}" if fact["reason"] else ""
    text = f"{fact['key']} asked at {_clock(asked)}"
    if granted is None:
        return f"{text}, got no slot in {_length(ended, asked)}, and was {fact['outcome']}{reason}"
    return (
        f"{text}, got a slot on {fact['group']}/{fact['instance']} after "
        f"{_length(granted, asked)}, and was {fact['outcome']} {_length(ended, granted)} later"
        f"{reason}"
    )


# What a person reads.


def _told(account: _Account, key: str | None, known: Sequence[dict[str, Any]]) -> Iterator[str]:
    picture = account.picture
    runs = {True: "is running", False: "is not running now", None: "may be running elsewhere"}
    scaler = f"a scaler that {runs[account.running]}"
    if picture is None:
        yield f"{account.path}: the state of {scaler}, which has not said yet how things stand"
    else:
        ago = _length(account.now, picture.at)
        yield f"{account.path}: the state of {scaler}, as it was {ago} ago ({_clock(picture.at)})"
        yield explain(picture.standing)
    for fact in known:
        yield _sentence(account, fact)
    if key is None and picture is not None:
        yield from _lists(picture)


def _lists(picture: Picture) -> Iterator[str]:
    if picture.waiting:
        yield "waiting, the next one first:"
    for waiting, since in picture.waiting[:_TASKS_SHOWN]:
        yield f"  {waiting} for {_length(picture.at, since)}"
    yield from _more(len(picture.waiting))
    if picture.held:
        yield "holding a slot:"
    for held, group, instance in picture.held[:_TASKS_SHOWN]:
        yield f"  {held} on {group}/{instance}"
    yield from _more(len(picture.held))


def _more(count: int) -> Iterator[str]:
    if count > _TASKS_SHOWN:
        yield f"  and {count - _TASKS_SHOWN} more; --json has all of them"


def _print_decisions(decisions: Sequence[Decision]) -> None:
    if not decisions:
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    # In a file or a pipe nobody wants to have it folded to the width of a terminal.
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=_COLUMNS)
    table = Table("at", "group", "rule", "decided", "inputs", box=box.SIMPLE, pad_edge=False)
    table.columns[0].no_wrap = True
    for one in decisions:
        decided = f"{one.decided:+d}"
        if one.decided != one.wanted:
            decided += f" of {one.wanted:+d}: {one.clamped_by}"
        rule = f"{one.rule.value}: {one.detail}" if one.detail else one.rule.value
        table.add_row(_clock(one.at), one.group, rule, decided, _inputs(one))
    console.print("newest decisions, the oldest of them first; inputs that are not told are 0:")
    console.print(table)


def _inputs(decision: Decision) -> str:
    values: dict[str, object] = msgspec.to_builtins(decision.demand)
    return " ".join(f"{name}={value}" for name, value in values.items() if value)


# What a program reads.


def _as_json(
    account: _Account, known: Sequence[dict[str, Any]] | None, decisions: int
) -> dict[str, Any]:
    picture = account.picture
    newest = account.remembered.decisions[-decisions:] if decisions else ()
    found: dict[str, Any] = {
        "state": str(account.path),
        "running": account.running,
        "at": picture.at if picture else None,
        "age_seconds": (account.now - picture.at).total_seconds() if picture else None,
        "why": explain(picture.standing) if picture else None,
        "standing": picture.standing if picture else None,
        "waiting": [
            {"key": key, "since": since} for key, since in (picture.waiting if picture else ())
        ],
        "held": [
            {"key": key, "group": group, "instance": instance}
            for key, group, instance in (picture.held if picture else ())
        ],
        "decisions": newest,
    }
    if known is not None:
        found["known"] = known
    return found


def _clock(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def _length(later: datetime, earlier: datetime) -> str:
    seconds = max(0.0, (later - earlier).total_seconds())
    return str(Duration(seconds=round(seconds, 1 if seconds < 10 else 0)))  # noqa: PLR2004 -- as a person says it
