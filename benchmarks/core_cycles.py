"""How many reserve + acquire + release cycles a second the core does, at several fleet sizes.

Measured is the processor time of `ScalerState.apply` alone, with the decision that it asks for
taken after every hundredth cycle, as the shell takes it: once for all that came
meanwhile. Each instance has eight slots, and 70 % of all are in use; each cycle
releases a task at random and lets another one in, because the cheapest case, the
same slot over and over, is not what happens. The decision is timed by itself too,
with 50,000 tasks that wait and a whole listing before it; what the garbage
collector has to do about the building of the fleet is done before that.

    python -m benchmarks.core_cycles [--cycles N]
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import time
from datetime import UTC, datetime, timedelta

from benchmarks._report import report

from fleeting.types import Accepted, GroupInfo, Instance, Listing, State
from taskscaler.core import Policy, ScalerState, Settings, effects, events

SIZES = (10, 100, 1_000, 10_000, 100_000)
SLOTS = 8
WALL = datetime(2026, 1, 1, tzinfo=UTC)


def fleet(size: int) -> ScalerState:
    """Return a core with this many ready instances, all of their slots in use."""
    settings = Settings(capacity_per_instance=SLOTS, policy=Policy(idle_time=timedelta(minutes=20)))
    state = ScalerState([GroupInfo("g")], settings, name="op")
    now = events.Now(0.0, WALL)
    for number in range(size * SLOTS):
        state.apply(events.TaskAsked(f"first-{number}"), now)
    state.apply(events.ListingArrived("g", Listing()), now)
    answer = state.apply(events.TimePassed(), now)
    (increase,) = (one for one in answer if isinstance(one, effects.Increase))
    state.apply(events.IncreaseSettled("g", increase.operation, Accepted(size)), now)
    instances = tuple(Instance(f"i-{number}", State.RUNNING) for number in range(size))
    state.apply(events.ListingArrived("g", Listing(instances)), now)
    while state.digesting:
        state.apply(events.TimePassed(), now)
    for instance in instances:
        state.apply(events.InstancePrepared("g", instance.id), now)
    return state


def cycles_per_second(state: ScalerState, cycles: int) -> float:
    """Return how many cycles a second the core does, a decision after every hundredth."""
    chance = random.Random(1)
    held = [one.key for one in state.held()]
    chance.shuffle(held)
    now = events.Now(1.0, WALL)
    for key in held[int(len(held) * 0.7) :]:
        state.apply(events.TaskReleased(key, proved=True), now)
    del held[int(len(held) * 0.7) :]
    places = [chance.randrange(len(held)) for _ in range(cycles)]
    started = time.process_time()
    for number, place in enumerate(places):
        now = events.Now(1.0 + number * 1e-5, WALL)
        state.apply(events.TaskReleased(held[place], proved=True), now)
        held[place] = key = f"task-{number}"
        state.apply(events.TaskReserved(key), now)
        state.apply(events.TaskAsked(key), now)
        if number % 100 == 0:
            state.apply(events.TimePassed(), now)
    return cycles / (time.process_time() - started)


def decision_seconds(state: ScalerState, size: int) -> list[float]:
    """Return how long single decisions take with 50,000 tasks waiting, each after a listing."""
    for number in range(50_000):
        state.apply(events.TaskAsked(f"waits-{number}"), events.Now(2.0, WALL))
    instances = tuple(Instance(f"i-{number}", State.RUNNING) for number in range(size))
    gc.collect()
    taken: list[float] = []
    for number in range(500):
        now = events.Now(3.0 + number, WALL)
        started = time.process_time()
        state.apply(events.ListingArrived("g", Listing(instances)), now)
        state.apply(events.TimePassed(), now)
        taken.append(time.process_time() - started)
    return taken


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=100_000)
    cycles: int = parser.parse_args().cycles
    rows: list[dict[str, object]] = []
    for size in SIZES:
        state = fleet(size)
        rate = cycles_per_second(state, cycles)
        decisions = decision_seconds(state, size)
        rows.append(
            {
                "instances": size,
                "cycles/s": rate,
                "decision and listing p50 ms": statistics.median(decisions) * 1000,
                "decision and listing p99 ms": statistics.quantiles(decisions, n=100)[98] * 1000,
            }
        )
    report("core_cycles", rows)


if __name__ == "__main__":
    main()
