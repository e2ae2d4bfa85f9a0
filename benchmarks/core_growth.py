"""How the costs of the core grow with the fleet, from 10 to 100,000 instances.

Each size is measured in a process of its own, and so is what it keeps in memory,
because counting memory costs time. Every step is as the shell does it, through
`ScalerState.apply` alone:

* `listing, all new`: the first listing shows the whole fleet at once;
* `ready`: each instance reports that it is prepared;
* `listing, as before`: the listing that a fleet at rest gives;
* `listing, a tenth replaced`: the cloud takes a tenth away and there are as many new ones;
* `decision`: one scaling decision with 50,000 tasks waiting;
* `cancel`: 50,000 waiting tasks are cancelled, in the order in which they asked; the
  most expensive single one is `longest cancel`;
* `memory of an instance`, `memory of a waiting task`: what stays allocated.

`ratio` is the cost at this size, by that at the size before: 10 is linear, 1 does
not depend on the fleet. Repeated steps are reported by their median. Times are processor time,
so that other programs on the machine lengthen them less.

    python -m benchmarks.core_growth
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
import tracemalloc
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import TYPE_CHECKING

from benchmarks._report import report

from fleeting.types import GroupInfo, Instance, Listing, State
from taskscaler.core import Policy, ScalerState, Settings, UnknownInstances, events

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZES = (10, 100, 1_000, 10_000, 100_000)
WAITING = 50_000
ROUNDS = 10
WALL = datetime(2026, 1, 1, tzinfo=UTC)


class Bench:
    """A core, and a clock that is moved by hand."""

    def __init__(self) -> None:
        settings = Settings(
            policy=Policy(idle_time=timedelta(hours=9)),
            unknown_instances=UnknownInstances.ADOPT,
        )
        self.state = ScalerState([GroupInfo("g")], settings, name="op")
        self.seconds = 0.0

    def apply(self, *steps: events.Event) -> float:
        """Let things happen; return the milliseconds that the core needed."""
        started = time.process_time()
        for event in steps:
            self.state.apply(event, events.Now(self.seconds, WALL))
        return (time.process_time() - started) * 1000

    def list(self, instances: Sequence[Instance]) -> float:
        """Let a listing arrive a second later; return the milliseconds."""
        self.seconds += 1
        event = events.ListingArrived("g", Listing(tuple(instances)))
        gc.collect()
        milliseconds = self.apply(event)
        while self.state.digesting:
            milliseconds += self.apply(events.TimePassed())
        return milliseconds

    def be_ready(self, ids: Sequence[str]) -> float:
        """Report instances as prepared; return the milliseconds."""
        return self.apply(*[events.InstancePrepared("g", id) for id in ids])

    def wait(self, name: str, count: int) -> None:
        """Let tasks ask, and wait because nothing is free any more."""
        self.apply(*[events.TaskAsked(f"{name}-{number}") for number in range(count)])


def fleet(first: int, size: int) -> list[Instance]:
    """Return running instances."""
    return [Instance(f"i-{number}", State.RUNNING) for number in range(first, first + size)]


def milliseconds(size: int) -> dict[str, float]:
    """Return how long each step takes at this size; the small ones are repeated."""
    firsts: list[float] = []
    readies: list[float] = []
    bench, instances = Bench(), fleet(0, size)
    for _ in range(max(1, 10_000 // size)):
        bench = Bench()
        firsts.append(bench.list(instances))
        readies.append(bench.be_ready([one.id for one in instances]))
    unchanged = [bench.list(instances) for _ in range(ROUNDS)]
    replaced: list[float] = []
    tenth = size // 10
    for number in range(ROUNDS):
        old, rest = instances[:tenth], instances[tenth:]
        new = fleet(size + number * tenth, tenth)
        leaving = [Instance(one.id, State.DELETING) for one in old]
        replaced.append(bench.list([*leaving, *rest, *new]))
        instances = [*rest, *new]
        bench.list(instances)
        bench.be_ready([one.id for one in new])
    bench.wait("runs", size)
    bench.wait("waits", WAITING)
    decisions: list[float] = []
    for _ in range(100):
        bench.seconds += 1
        decisions.append(bench.apply(events.TimePassed()))
    gc.collect()
    cancels = [bench.apply(events.TaskCancelled(f"waits-{number}")) for number in range(WAITING)]
    return {
        "listing, all new": median(firsts),
        "ready": median(readies),
        "listing, as before": median(unchanged),
        "listing, a tenth replaced": median(replaced),
        "decision": median(decisions),
        "cancel": sum(cancels),
        "longest cancel": max(cancels),
    }


def kilobytes(size: int) -> dict[str, float]:
    """Return what an instance and a waiting task keep allocated, on average."""
    bench, instances = Bench(), fleet(0, size)
    tracemalloc.start()
    before = _allocated()
    bench.list(instances)
    bench.be_ready([one.id for one in instances])
    with_fleet = _allocated()
    bench.wait("runs", size)
    with_tasks = _allocated()
    bench.wait("waits", WAITING)
    return {
        "memory of an instance": (with_fleet - before) / size,
        "memory of a task that runs": (with_tasks - with_fleet) / size,
        "memory of a task that waits": (_allocated() - with_tasks) / WAITING,
    }


def _allocated() -> float:
    gc.collect()
    return tracemalloc.get_traced_memory()[0] / 1024


def measured(what: str, size: int) -> dict[str, float]:
    """Return what a fresh process measures."""
    command = [sys.executable, "-m", "benchmarks.core_growth", what, str(size)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    figures: dict[str, float] = json.loads(output)
    return figures


def main() -> None:
    """Measure, and print the figures."""
    if len(sys.argv) == 3:
        print(json.dumps((milliseconds if sys.argv[1] == "time" else kilobytes)(int(sys.argv[2]))))
        return
    rows: list[dict[str, object]] = []
    for what, unit in (("time", "ms"), ("memory", "KiB")):
        figures = {size: measured(what, size) for size in SIZES}
        for name in figures[SIZES[0]]:
            before = 0.0
            for size in SIZES:
                cost = figures[size][name]
                rows.append(
                    {
                        "what": name,
                        "instances": size,
                        "cost": cost,
                        "unit": unit,
                        "ratio": cost / before if before else 1.0,
                    }
                )
                before = cost
    report("core_growth", rows)


if __name__ == "__main__":
    main()
