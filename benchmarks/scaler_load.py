"""The cost of a large fleet for a whole scaler: 10,000 instances, 50,000 waiting tasks.

A complete scaler runs on asyncio. Only the cloud is simulated, by `FakeInstanceGroup` in the same
process, so its work is included. Each task is an anyio task inside `scaler.acquire`. A ticking
task measures how late it is woken: the lag of the event loop. All times are processor time of
this process, so other programs do not lengthen them; with a store in a file they are real time.
The phases, each measured separately:

* `come`: 10,000 instances with one slot are created at once, and prepared;
* `ask`: 60,000 tasks ask for slots within 6 seconds, and 10,000 of them get one;
* `hold`: 50,000 tasks wait, while 500 tasks a second end and as many new ones ask;
* `free`, after all tasks have ended: one task after the other gets a slot, then 32
  tasks at a time;
* `shut down`: all instances are removed at once.

`hand-out` is the time until a task gets a slot: in `hold` since another task gave the slot
back, in `free` since the task asked while slots were free.

The garbage collector is set as `docs/library.md` advises, unless `--gc default` is given.

    python -m benchmarks.scaler_load [--instances N] [--waiting N] [--seconds S] [--store sqlite]
        [--gc default]
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import random
import tempfile
from collections import deque
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING

import anyio
from benchmarks._cpu_clock import new_loop
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
# In which time the tasks of `ask` ask for their slots, and how many at once at most.
ASK_SECONDS = 6.0
AT_ONCE = 50


@dataclass
class Phase:
    """The measurements of one phase.

    Attributes:
        name: the phase's.
        seconds: how long it took.
        lags: how late the ticking task was each time, in seconds.
        hand_outs: how long each hand-out took, in seconds.
        tasks: how many tasks got a slot.
        rss_mb: the memory of the process at the end.
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
    """Return the 50th and 99th percentile and the maximum, in milliseconds; 0 without values."""
    if len(seconds) < 2:
        return 0.0, 0.0, 0.0
    cuts = quantiles(seconds, n=100, method="inclusive")
    return cuts[49] * 1000, cuts[98] * 1000, max(seconds) * 1000


class Meter:
    """Measures phases, one after the other, while `tick` runs."""

    def __init__(self) -> None:
        self.phases: list[Phase] = []
        self.now = Phase("")
        self._ticked = anyio.Event()

    @asynccontextmanager
    async def phase(self, name: str) -> AsyncGenerator[Phase]:
        """Measure the body."""
        await self._tick_once()
        self.now = one = Phase(name)
        self.phases.append(one)
        started = anyio.current_time()
        yield one
        one.seconds = anyio.current_time() - started
        one.rss_mb = rss_mb()
        # The lag that the body caused belongs to this phase, and later lag to none.
        await self._tick_once()
        self.now = Phase("")

    async def tick(self) -> None:
        """Measure how late the event loop wakes a task, for ever."""
        while True:
            due = anyio.current_time() + TICK_SECONDS
            await anyio.sleep(TICK_SECONDS)
            self.now.lags.append(anyio.current_time() - due)
            self._ticked.set()

    async def _tick_once(self) -> None:
        self._ticked = anyio.Event()
        await self._ticked.wait()


class Load:
    """The tasks.

    Args:
        scaler: gives the slots.
        meter: counts the slots.

    Attributes:
        scope: cancel it to end `run` and all tasks.
        ended: set when they have ended.
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
        """Run the tasks until the scope is cancelled."""
        with self.scope:
            async with self._tasks:
                await anyio.sleep_forever()
        self.ended.set()

    def start(self, count: int) -> None:
        """Start tasks that ask for slots, and hold them until `end`."""
        for _ in range(count):
            self._tasks.start_soon(self._hold)

    def end(self, count: int, chance: random.Random) -> int:
        """End so many tasks, or all if there are fewer; return how many were ended."""
        count = min(count, len(self._running))
        for _ in range(count):
            place = chance.randrange(len(self._running))
            self._running[place], self._running[-1] = self._running[-1], self._running[place]
            self._released.append(anyio.current_time())
            self._running.pop().set()
        return count

    async def take_turns(self, deadline: float) -> None:
        """Take a free slot and give it back, repeatedly."""
        while anyio.current_time() < deadline:
            asked = anyio.current_time()
            async with self._scaler.acquire(f"task-{next(self._names)}"):
                self._meter.now.hand_outs.append(anyio.current_time() - asked)
            self._meter.now.tasks += 1

    async def _hold(self) -> None:
        async with self._scaler.acquire(f"task-{next(self._names)}", timeout=None):
            self._meter.now.tasks += 1
            # Slots are granted again in the order in which they were given back.
            if self._released:
                passed = anyio.current_time() - self._released.popleft()
                self._meter.now.hand_outs.append(passed)
            end = anyio.Event()
            self._running.append(end)
            await end.wait()


def rss_mb() -> float:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 10**6


async def measure(instances: int, waiting: int, seconds: float, store: Store) -> list[Phase]:
    """Run all phases."""
    group = FakeInstanceGroup()
    settings = taskscaler.Settings(
        max_instances=instances,
        throttle_limit=float("inf"),
        policy=taskscaler.Policy(idle_count=instances, idle_time=timedelta(hours=1)),
        # These tasks prove nothing about their instances, so all would be checked.
        probe_after=timedelta(hours=1),
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
            await _ask(load, instances + waiting)
            while ask.tasks < instances:  # noqa: ASYNC110 - nothing tells of the last one
                await anyio.sleep(0.01)
        async with meter.phase("hold"):
            await _hold(load, seconds)
        load.scope.cancel()
        await load.ended.wait()
        gc.collect()  # Garbage of so many cancelled tasks must not count against the scaler.
        async with meter.phase("free, one by one"):
            await load.take_turns(anyio.current_time() + seconds)
        async with meter.phase(f"free, {IN_TURNS} at once"), anyio.create_task_group() as turns:
            for _ in range(IN_TURNS):
                turns.start_soon(load.take_turns, anyio.current_time() + seconds)
        async with meter.phase("shut down"):
            await stack.aclose()
        around.cancel_scope.cancel()
    return meter.phases


async def _ask(load: Load, tasks: int) -> None:
    began, asked = anyio.current_time(), 0
    while asked < tasks:
        due = min(tasks, asked + AT_ONCE, int((anyio.current_time() - began) / ASK_SECONDS * tasks))
        load.start(due - asked)
        asked = due
        await anyio.sleep(TICK_SECONDS)


async def _hold(load: Load, seconds: float) -> None:
    chance = random.Random(1)
    started, ended = anyio.current_time(), 0
    while (passed := anyio.current_time() - started) < seconds:
        count = load.end(int(passed * ENDS_PER_SECOND) - ended, chance)
        load.start(count)
        ended += count
        await anyio.sleep(0.01)


async def run(asked: argparse.Namespace) -> list[Phase]:
    """Open the requested store, and measure."""
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
    parser.add_argument("--gc", choices=("calm", "default"), default="calm")
    asked = parser.parse_args()
    if asked.gc == "calm":
        gc.collect()
        gc.freeze()
        gc.set_threshold(5_000, 2, 1_000)
    real = asked.store == "sqlite"
    phases = anyio.run(run, asked, backend_options={} if real else {"loop_factory": new_loop})
    report("scaler_load", [{"store": asked.store, "gc": asked.gc} | one.row() for one in phases])


if __name__ == "__main__":
    main()
