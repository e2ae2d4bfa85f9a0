"""Plays simulated worlds with faults for so many hours, and looks for a broken invariant.

    python -m tests.simulation --hours 10000 --seed 1

Each world has its own seed and lasts two days; all that it is like is drawn from that
seed. A failure is made small and printed with the events before it, and the exit
status is 1. The same arguments play the same worlds.
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
from .report import tell
from .runs import Failure, Figures, play
from .shrink import shrink

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WORLD_HOURS = 48.0
# Worlds that one process plays before it says how far it is.
BATCH = 25


def read_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what the caller wants."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--hours", type=float, default=1000.0, help="with faults, in total")
    parser.add_argument("--seed", default="1", help="what the seeds of the worlds begin with")
    parser.add_argument("--from-seed", type=int, default=0, metavar="A", help="the first world")
    parser.add_argument("--to-seed", type=int, metavar="B", help="the last, instead of --hours")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("-v", "--verbose", action="store_true", help="print more of the history")
    return parser.parse_args(arguments)


def play_some(seeds: Sequence[str]) -> Figures | Failure:
    """Play worlds one after the other, up to the first failure."""
    total = Figures()
    for seed in seeds:
        outcome = play(draw(seed, WORLD_HOURS))
        if isinstance(outcome, Failure):
            return outcome
        total += outcome
    return total


def outcomes(batches: Sequence[Sequence[str]], workers: int) -> Iterator[Figures | Failure]:
    """Yield what came of each batch, in their order."""
    if workers == 1:
        yield from map(play_some, batches)
        return
    with ProcessPoolExecutor(workers) as pool:
        try:
            yield from pool.map(play_some, batches)
        finally:
            pool.shutdown(cancel_futures=True)


def summary(figures: Figures, seconds: float) -> dict[str, float]:
    """Return the figures of all worlds, and how fast they were played."""
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
            print(f"\n{tell(small, seed=outcome.plan.seed, last=last_events)}")
            return 1
        total += outcome
        seconds = time.perf_counter() - started
        line = f"{total.fault_hours:,.0f} fault-hours in {seconds:,.0f}s, {total.worlds} worlds"
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
