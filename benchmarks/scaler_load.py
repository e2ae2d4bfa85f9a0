"""What a large fleet costs a whole scaler: 10,000 instances, 50,000 tasks that wait.

The shell with everything in it runs on asyncio and the real clock; only the cloud is
`FakeInstanceGroup`, in the same process, so that its work counts as ours. Each
task is a task of anyio inside of `scaler.acquire`. A ticking task notes how late it
is woken: the lag of the event loop. The phases, each measured by itself:

* `come`: 10,000 instances of one slot are created, all at once, and made ready;
* `ask`: 60,000 tasks ask, as fast as they can, and 10,000 of them get a slot;
* `hold`: 50,000 wait while 500 tasks a second end and as many come;
* `free`, when all of those have gone: one task after the other gets a slot, then 32
  at a time do so in turns;
* `shut down`: all instances are removed, at once.

A slot's way to its task is `hand-out`: in `hold` from the release to the next one
that waited, in `free` from asking for it while others are free.

    python -m benchmarks.scaler_load [--instances N] [--waiting N] [--seconds S] [--store sqlite]
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import random
import tempfile
import time
from collections import deque
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
from benchmarks._report import report

import taskscaler
from fleeting.testing import FakeInstanceGroup
from taskscaler.storage import MemoryStore, SqliteStore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from taskscaler.storage import Store

TICK_SECONDS = 0.002
ENDS_PER_SECOND = 500
IN_TURNS = 32
# How many tasks ask in one turn of the event loop.
AT_ONCE = 100


@dataclass
class Phase:
    """What was measured in one phase.

    Attributes:
        name: of the phase.
        seconds: how long it took.
        lags: by how many seconds the ticking task was late.
        hand_outs: how many seconds each slot was on its way.
        tasks: how many have got a slot.
        rss_mb: what the process has in memory at the end.
    """

    name: str
    seconds: float = 0.0
    lags: list[float] = field(default_factory=list[float])
    hand_outs: list[float] = field(default_factory=list[float])
    tasks: int = 0
    rss_mb: float = 0.0

    def row(self) -> dict[str, object]:
        """Return the figures."""
        lag, hand_out = percentiles(self.lags), percentiles(self.hand_outs)
        return {
            "phase": self.name,
            "seconds": self.seconds,
            "RSS MB": self.rss_mb,
            "lag p50 ms": lag[0],
            "lag p99 ms": lag[1],
            "lag max ms": lag[2],
            "tasks/s": self.tasks / self.seconds,
            "hand-out p50 ms": hand_out[0],
            "hand-out p99 ms": hand_out[1],
        }


def percentiles(seconds: list[float]) -> tuple[float, float, float]:
    """Return the 50th and the 99th and the greatest, in milliseconds; zeros of nothing."""
    if len(seconds) < 2:
        return 0.0, 0.0, 0.0
    cuts = quantiles(seconds, n=100, method="inclusive")
    return cuts[49] * 1000, cuts[98] * 1000, max(seconds) * 1000


class Meter:
    """Measures phases, one after the other; `tick` has to run all the time."""

    def __init__(self) -> None:
        self.phases: list[Phase] = []
        self.now = Phase("")
        self._ticked = anyio.Event()

    @asynccontextmanager
    async def phase(self, name: str) -> AsyncGenerator[Phase]:
        """Measure what happens inside."""
        await self._tick_once()
        self.now = one = Phase(name)
        self.phases.append(one)
        started = time.perf_counter()
        yield one
        one.seconds = time.perf_counter() - started
        one.rss_mb = rss_mb()
        # The lag of what has just happened belongs to this phase, what follows to none.
        await self._tick_once()
        self.now = Phase("")

    async def tick(self) -> None:
        """Note how late the event loop wakes a task."""
        while True:
            due = time.perf_counter() + TICK_SECONDS
            await anyio.sleep(TICK_SECONDS)
            self.now.lags.append(time.perf_counter() - due)
            self._ticked.set()

    async def _tick_once(self) -> None:
        self._ticked = anyio.Event()
        await self._ticked.wait()


class Load:
    """The tasks.

    Args:
        scaler: it is asked for slots.
        meter: told of each slot.

    Attributes:
        scope: what ends all those that `run` has under way.
        ended: set when it has.
    """

    def __init__(self, scaler: taskscaler.Taskscaler, meter: Meter) -> None:
        self.scope = anyio.CancelScope()
        self.ended = anyio.Event()
        self._tasks = anyio.create_task_group()
        self._scaler = scaler
        self._meter = meter
        self._running: list[anyio.Event] = []
        self._released: deque[float] = deque()
        self._names = itertools.count()

    async def run(self) -> None:
        """Let there be tasks, until the scope is cancelled."""
        with self.scope:
            async with self._tasks:
                await anyio.sleep_forever()
        self.ended.set()

    def start(self, count: int) -> None:
        """Let tasks ask for slots, and hold what they get until they are told to end."""
        for _ in range(count):
            self._tasks.start_soon(self._hold)

    def end(self, count: int, chance: random.Random) -> int:
        """Let tasks give their slots back, if there are so many; return how many there were."""
        count = min(count, len(self._running))
        for _ in range(count):
            place = chance.randrange(len(self._running))
            self._running[place], self._running[-1] = self._running[-1], self._running[place]
            self._released.append(time.perf_counter())
            self._running.pop().set()
        return count

    async def take_turns(self, deadline: float) -> None:
        """Take a free slot and give it back, again and again."""
        while time.perf_counter() < deadline:
            asked = time.perf_counter()
            async with self._scaler.acquire(f"task-{next(self._names)}"):
                self._meter.now.hand_outs.append(time.perf_counter() - asked)
            self._meter.now.tasks += 1

    async def _hold(self) -> None:
        async with self._scaler.acquire(f"task-{next(self._names)}", timeout=None):
            self._meter.now.tasks += 1
            # Slots are given on in the order in which they come back.
            if self._released:
                passed = time.perf_counter() - self._released.popleft()
                self._meter.now.hand_outs.append(passed)
            end = anyio.Event()
            self._running.append(end)
            await end.wait()


def rss_mb() -> float:
    """Return what this process has in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 10**6


async def measure(instances: int, waiting: int, seconds: float, store: Store) -> list[Phase]:
    """Go through all phases."""
    group = FakeInstanceGroup()
    settings = taskscaler.Settings(
        max_instances=instances,
        throttle_limit=float("inf"),
        policy=taskscaler.Policy(idle_count=instances, idle_time=timedelta(hours=1)),
        update_interval=timedelta(seconds=1),
        update_interval_when_expecting=timedelta(seconds=1),
        delete_instances_on_shutdown=True,
    )
    meter = Meter()
    async with anyio.create_task_group() as around, AsyncExitStack() as stack:
        scaler = taskscaler.Taskscaler([group], settings, store=store, connect=group.connect)
        await stack.enter_async_context(scaler)
        load = Load(scaler, meter)
        around.start_soon(meter.tick)
        around.start_soon(load.run)
        async with meter.phase("come"):
            while scaler.capacity().slots_total < instances:  # noqa: ASYNC110 - nothing tells
                await anyio.sleep(0.01)
        scaler.reconfigure(replace(settings, policy=replace(settings.policy, idle_count=0)))
        async with meter.phase("ask") as ask:
            for _ in range(0, instances + waiting, AT_ONCE):
                load.start(AT_ONCE)
                await anyio.lowlevel.checkpoint()
            while ask.tasks < instances:  # noqa: ASYNC110 - nothing tells of the last one
                await anyio.sleep(0.01)
        async with meter.phase("hold"):
            await _hold(load, seconds)
        load.scope.cancel()
        await load.ended.wait()
        gc.collect()  # What so many cancelled tasks leave behind is not the scaler's.
        async with meter.phase("free, one by one"):
            await load.take_turns(time.perf_counter() + seconds)
        async with meter.phase(f"free, {IN_TURNS} at once"), anyio.create_task_group() as turns:
            for _ in range(IN_TURNS):
                turns.start_soon(load.take_turns, time.perf_counter() + seconds)
        async with meter.phase("shut down"):
            await stack.aclose()
        around.cancel_scope.cancel()
    return meter.phases


async def _hold(load: Load, seconds: float) -> None:
    chance = random.Random(1)
    started, ended = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < seconds:
        count = load.end(int(passed * ENDS_PER_SECOND) - ended, chance)
        load.start(count)
        ended += count
        await anyio.sleep(0.01)


async def run(asked: argparse.Namespace) -> list[Phase]:
    """Open the store that was asked for, and measure."""
    if asked.store == "memory":
        return await measure(asked.instances, asked.waiting, asked.seconds, MemoryStore())
    with tempfile.TemporaryDirectory() as folder:
        async with SqliteStore.open(Path(folder) / "state.db") as store:
            return await measure(asked.instances, asked.waiting, asked.seconds, store)


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaler_load")
    parser.add_argument("--instances", type=int, default=10_000)
    parser.add_argument("--waiting", type=int, default=50_000)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each steady phase")
    parser.add_argument("--store", choices=("memory", "sqlite"), default="memory")
    asked = parser.parse_args()
    report("scaler_load", [{"store": asked.store} | one.row() for one in anyio.run(run, asked)])


if __name__ == "__main__":
    main()
