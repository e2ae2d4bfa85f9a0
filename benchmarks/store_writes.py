"""The number of commits and notes a second of the SQLite store, and how long one takes.

Each commit replaces the record of one instance and waits for the disk. `alone`, one commit
follows the other; `together`, many wait at the same time, as when many jobs begin and end. A
note adds an ended task to the history. The baseline is a loop over `sqlite3` in one thread
that writes one row in each transaction, flushed or not, to the same disk. The ratio compares
with the baseline that is flushed likewise. All of them take turns, because a disk that other
processes use may be ten times slower in one second than in the next.

    python -m benchmarks.store_writes [--commits N] [--together N] [--directory DIR]
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import tempfile
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import anyio
from benchmarks._report import report

from taskscaler.core import InstanceRecord
from taskscaler.storage import SqliteStore, TaskEntry

WALL = datetime(2026, 1, 1, tzinfo=UTC)
IDS = 1_000
ROUNDS = 10
FLUSHED = "sqlite3 in a loop, flushed"
LAZY = "sqlite3 in a loop, not flushed"
NOTES = "notes, alone"
# Writes that are not flushed are compared with the loop that is not flushed.
PLAIN = {LAZY: LAZY, NOTES: LAZY}


def instance(number: int) -> InstanceRecord:
    """Return a record that differs from all earlier ones."""
    id = f"i-{number % IDS}"
    return InstanceRecord("group", id, "x", WALL, number, (f"task-{number}",))


def plain_table(path: Path, level: str) -> sqlite3.Connection:
    """Return a database with a new table and one level of flushing."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {level}")
    connection.execute("CREATE TABLE plain (id TEXT PRIMARY KEY, body TEXT) WITHOUT ROWID")
    return connection


def plain_loop(connection: sqlite3.Connection, count: int) -> tuple[list[float], float]:
    """Write one row per transaction."""
    body = "x" * 220  # as long as a record is
    upsert = "INSERT OR REPLACE INTO plain VALUES (?, ?)"
    taken: list[float] = []
    started = time.perf_counter()
    for number in range(count):
        begun = time.perf_counter()
        connection.execute(upsert, (f"i-{number % IDS}", f"{body}{number}"))
        taken.append(time.perf_counter() - begun)
    return taken, time.perf_counter() - started


async def alone(store: SqliteStore, epoch: int, count: int) -> tuple[list[float], float]:
    """Commit one record after the other."""
    taken: list[float] = []
    started = time.perf_counter()
    for number in range(count):
        begun = time.perf_counter()
        await store.commit(epoch, [instance(number)], ())
        taken.append(time.perf_counter() - begun)
    return taken, time.perf_counter() - started


async def together(
    store: SqliteStore, epoch: int, count: int, tasks: int
) -> tuple[list[float], float]:
    """Commit from many tasks, each of which starts its next commit when one is done."""
    taken: list[float] = []
    left = iter(range(count))

    async def one() -> None:
        for number in left:
            begun = time.perf_counter()
            await store.commit(epoch, [instance(number)], ())
            taken.append(time.perf_counter() - begun)

    started = time.perf_counter()
    async with anyio.create_task_group() as group:
        for _ in range(tasks):
            group.start_soon(one)
    return taken, time.perf_counter() - started


async def notes(store: SqliteStore, epoch: int, count: int) -> tuple[list[float], float]:
    """Note one ended task after the other."""
    taken: list[float] = []
    started = time.perf_counter()
    for number in range(count):
        begun = time.perf_counter()
        await store.note(epoch, [TaskEntry(f"task-{number}", WALL, WALL, WALL, "group", "i-1")])
        taken.append(time.perf_counter() - begun)
    return taken, time.perf_counter() - started


async def measure(directory: Path, commits: int, tasks: int) -> list[dict[str, object]]:
    """Return the figures of every way of writing."""
    found: dict[str, tuple[list[float], list[float]]] = {}

    def add(name: str, taken: list[float], seconds: float) -> None:
        all_taken, all_seconds = found.setdefault(name, ([], []))
        all_taken += taken
        all_seconds.append(seconds)

    part = commits // ROUNDS
    with (
        closing(plain_table(directory / "flushed", "FULL")) as flushed,
        closing(plain_table(directory / "lazy", "NORMAL")) as lazy,
    ):
        async with SqliteStore.open(directory / "state") as store:
            epoch = (await store.load()).epoch
            for _ in range(ROUNDS):
                add(FLUSHED, *plain_loop(flushed, part))
                add("commits, alone", *await alone(store, epoch, part))
                many = await together(store, epoch, part * 10, tasks)
                add(f"commits, {tasks:,} together", *many)
                add(LAZY, *plain_loop(lazy, part))
                add(NOTES, *await notes(store, epoch, part))
    rates = {name: len(taken) / sum(seconds) for name, (taken, seconds) in found.items()}
    return [
        {
            "what": name,
            "writes/s": rates[name],
            "p50 ms": statistics.median(taken) * 1000,
            "p99 ms": statistics.quantiles(taken, n=100)[98] * 1000,
            "ratio to plain": rates[name] / rates[PLAIN.get(name, FLUSHED)],
        }
        for name, (taken, _) in found.items()
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commits", type=int, default=5_000)
    parser.add_argument("--together", type=int, default=2_000)
    parser.add_argument("--directory", help="on the disk to measure", default=None)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
        report(
            "store_writes",
            anyio.run(measure, Path(name), arguments.commits, arguments.together),
        )


if __name__ == "__main__":
    main()
