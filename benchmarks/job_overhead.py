"""The overhead of one job on an instance that is idle and connected.

A real OpenSSH server (see `benchmarks/_sshd.py`; needs root and sshd) is the only
instance. Jobs that run `true` follow one another on the existing connection. Each round
has one of each, so that a slow moment affects all alike:

* `command`: only the command, over the connection;
* `task`: the command in a slot: `acquire`, `connect`, `run`;
* `job`: the command as a job, with a fresh working directory, the script as a
  private file, and the clean-up.

`overhead` is the time in addition to `command`. The budget is 300 ms for a job.

    python -m benchmarks.job_overhead [ROUNDS]
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING

import anyio
from benchmarks._report import report
from benchmarks._sshd import ssh_server
from benchmarks.run_throughput import SilentObserver, end, scaler_of

from taskscaler.jobs.job import Job, expand
from taskscaler.jobs.output import OutputMode, output_factory
from taskscaler.jobs.result import JobState
from taskscaler.jobs.runner import JobRunner

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from benchmarks._sshd import SshServer

    import taskscaler
    from fleeting.abc import Connection


async def command(connection: Connection) -> None:
    """Run the command."""
    completed = await connection.run("true")
    if not completed.succeeded:
        raise RuntimeError(str(completed))


async def task(scaler: taskscaler.Taskscaler) -> None:
    """Run the command in a slot."""
    async with scaler.acquire("task") as acquisition, acquisition.connect() as connection:
        await command(connection)


async def job(scaler: taskscaler.Taskscaler) -> None:
    """Run the command as a job."""
    runs = expand([Job(name="true", script=["true"])], Path(), where="benchmark")
    output = output_factory(OutputMode.NONE, SilentObserver(), several=False)
    runner = JobRunner(runs, output, SilentObserver())
    await runner.run(scaler, workers=1, acquire_timeout=None)
    if any(result.state is not JobState.SUCCESS for result in runner.results):
        raise RuntimeError(f"not every job succeeded: {runner.counts}")


async def measure(server: SshServer, rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of each, in each round."""
    taken: dict[str, list[float]] = {"command": [], "task": [], "job": []}

    async def timed(name: str, work: Awaitable[None]) -> None:
        started = time.perf_counter()
        await work
        taken[name].append((time.perf_counter() - started) * 1000)

    async with scaler_of(server) as scaler:
        await job(scaler)  # Afterwards the instance exists, and is connected and warm.
        for _ in range(rounds):
            async with scaler.acquire("command") as slot, slot.connect() as connection:
                await timed("command", command(connection))
            await timed("task", task(scaler))
            await timed("job", job(scaler))
    return taken


def main() -> None:
    """Measure, and print the figures."""
    signal.signal(signal.SIGTERM, end)
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with ssh_server() as server:
        taken = anyio.run(measure, server, rounds)
    bare = median(taken["command"])
    report(
        "job_overhead",
        [
            {
                "what": name,
                "p50 ms": median(times),
                "p99 ms": quantiles(times, n=100, method="inclusive")[98],
                "overhead p50 ms": median(times) - bare,
                "times the command": median(times) / bare,
            }
            for name, times in taken.items()
        ],
    )


if __name__ == "__main__":
    main()
