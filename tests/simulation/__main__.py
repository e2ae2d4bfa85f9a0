"""Plays simulated worlds with faults, and checks that the invariants hold.

    python -m tests.simulation --hours 10000 --seed 1

Each world lasts two days and is drawn from its own seed. At the first failure, the program prints
the smallest world that it finds with the same failure, and the events before it; the exit status
is 1. The same arguments play the same worlds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING

from .plans import draw
from .report import describe
from .runs import Failure, Figures, play
from .shrink import shrink

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WORLD_HOURS = 48.0
# The number of worlds that one process plays between two reports of progress.
BATCH = 25


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


def play_some(seeds: Sequence[str]) -> Figures | Failure:
    """Play worlds one after the other, until the first failure."""
    total = Figures()
    for seed in seeds:
        outcome = play(draw(seed, WORLD_HOURS))
        if isinstance(outcome, Failure):
            return outcome
        total += outcome
    return total


def outcomes(batches: Sequence[Sequence[str]], workers: int) -> Iterator[Figures | Failure]:
    """Yield the outcome of each batch, in order."""
    if workers == 1:
        yield from map(play_some, batches)
        return
    with ProcessPoolExecutor(workers) as pool:
        try:
            yield from pool.map(play_some, batches)
        finally:
            pool.shutdown(cancel_futures=True)


def summary(figures: Figures, seconds: float) -> dict[str, float]:
    """Return the figures of all worlds, with the speed."""
    hours = figures.fault_hours or 1.0
    return {
        **asdict(figures),
        "seconds": round(seconds, 1),
        "fault_hours_per_minute": round(figures.fault_hours / seconds * 60),
        "steps_per_second": round(figures.steps / seconds),
        "events_per_fault_hour": round(figures.fault_events / hours, 1),
    }


def main() -> int:
    """Play, and return the exit status."""
    options = read_arguments()
    last = options.to_seed
    if last is None:
        last = options.from_seed + max(1, round(options.hours / WORLD_HOURS)) - 1
    seeds = [f"{options.seed}-{number}" for number in range(options.from_seed, last + 1)]
    batches = [seeds[at : at + BATCH] for at in range(0, len(seeds), BATCH)]
    started, total = time.perf_counter(), Figures()
    for outcome in outcomes(batches, options.workers):
        if isinstance(outcome, Failure):
            small = shrink(outcome, play)
            last_events = 400 if options.verbose else 60
            print(f"\n{describe(small, seed=outcome.plan.seed, last=last_events)}")
            return 1
        total += outcome
        seconds = time.perf_counter() - started
        line = (
            f"{total.fault_hours:,.0f} hours with faults, {total.worlds} worlds, {seconds:,.0f} s"
        )
        print(f"\r{line}", end="", file=sys.stderr, flush=True)
    figures = summary(total, time.perf_counter() - started)
    print(file=sys.stderr)
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name.replace('_', ' ')}: {value:,}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
