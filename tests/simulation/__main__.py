"""Plays simulated worlds with faults, and checks that the invariants hold.

    python -m tests.simulation --hours 10000 --seed 1

Each world lasts up to a day and is drawn from its own seed. At the end, the program prints how
dense the worlds were, and which rules never fired in a phase in which they can. At the first
failure, it prints the smallest world that it finds with the same failure, and the events before
it; the exit status is 1. The same arguments play the same worlds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING, NamedTuple

from .dense import draw
from .firings import POSSIBLE, Firing, watch
from .report import describe
from .runs import Failure, Figures, play
from .shrink import shrink

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WORLD_HOURS = 24.0
# How long the worlds of a run last on average: the dense ones are shorter.
MEAN_HOURS = 15.0
# The number of worlds that one process plays between two reports of progress.
BATCH = 10


def read_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--hours", type=float, default=1000.0, help="hours with faults, in total")
    parser.add_argument("--seed", default="1", help="how the seeds of all worlds begin")
    parser.add_argument("--from-seed", type=int, default=0, metavar="A", help="first world")
    parser.add_argument("--to-seed", type=int, metavar="B", help="last world, instead of --hours")
    parser.add_argument("--workers", type=int, default=1, help="number of processes")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("-v", "--verbose", action="store_true", help="print more of the history")
    return parser.parse_args(arguments)


class Batch(NamedTuple):
    """The outcome of some worlds.

    Attributes:
        outcome: their size, or the first failure.
        cpu_seconds: the processor time that they took.
        firings: how often each rule fired.
    """

    outcome: Figures | Failure
    cpu_seconds: float
    firings: Counter[Firing]


def play_some(seeds: Sequence[str]) -> Batch:
    """Play worlds one after the other, until the first failure."""
    total, started = Figures(), time.process_time()
    with watch() as firings:
        for seed in seeds:
            outcome = play(draw(seed, WORLD_HOURS))
            if isinstance(outcome, Failure):
                return Batch(outcome, 0.0, firings)
            total += outcome
    return Batch(total, time.process_time() - started, firings)


def outcomes(batches: Sequence[Sequence[str]], workers: int) -> Iterator[Batch]:
    """Yield the outcome of each batch, in order."""
    if workers == 1:
        yield from map(play_some, batches)
        return
    with ProcessPoolExecutor(workers) as pool:
        try:
            yield from pool.map(play_some, batches)
        finally:
            pool.shutdown(cancel_futures=True)


def summary(figures: Figures, cpu_seconds: float, firings: Counter[Firing]) -> dict[str, float]:
    """Return the figures of all worlds, with their density: what a second of CPU showed."""
    hours, cpu = figures.fault_hours or 1.0, cpu_seconds or 1.0
    return {
        **asdict(figures),
        "cpu_seconds": round(cpu_seconds, 1),
        "fault_hours_per_cpu_second": round(figures.fault_hours / cpu, 1),
        "events_per_fault_hour": round(figures.fault_events / hours, 1),
        "tasks_per_cpu_second": round(figures.tasks / cpu, 1),
        "grants_per_cpu_second": round(figures.grants / cpu, 1),
        "removals_per_cpu_second": round(figures.removals / cpu, 1),
        "firings_per_cpu_second": round(sum(firings.values()) / cpu, 1),
        "distinct_firings": len(firings),
        "possible_firings": len(POSSIBLE),
        "possible_firings_seen": len(POSSIBLE & set(firings)),
    }


def main() -> int:
    """Play, and return the exit status."""
    options = read_arguments()
    last = options.to_seed
    if last is None:
        last = options.from_seed + max(1, round(options.hours / MEAN_HOURS)) - 1
    seeds = [f"{options.seed}-{number}" for number in range(options.from_seed, last + 1)]
    batches = [seeds[at : at + BATCH] for at in range(0, len(seeds), BATCH)]
    total, cpu_seconds, firings = Figures(), 0.0, Counter[Firing]()
    for batch in outcomes(batches, options.workers):
        if isinstance(batch.outcome, Failure):
            small = shrink(batch.outcome, play)
            last_events = 400 if options.verbose else 60
            print(f"\n{describe(small, seed=batch.outcome.plan.seed, last=last_events)}")
            return 1
        total += batch.outcome
        cpu_seconds += batch.cpu_seconds
        firings += batch.firings
        line = f"{total.fault_hours:,.0f} hours with faults, {total.worlds} worlds"
        print(f"\r{line}, {cpu_seconds:,.0f} s of CPU", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    figures = summary(total, cpu_seconds, firings)
    if options.json:
        print(json.dumps(figures))
        return 0
    for name, value in figures.items():
        print(f"{name.replace('_', ' ')}: {value:,}")
    for rule, where in sorted(POSSIBLE - set(firings)):
        print(f"never fired: {rule}, {where}")
    if options.verbose:
        for (rule, where), count in sorted(firings.items()):
            print(f"fired {count:,} times: {rule}, {where}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
