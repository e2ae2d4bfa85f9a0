"""How many small jobs per second, on the local provider and on a real SSH server.

Part one: `taskscaler run` with 1,000 jobs of `true` on the `local` provider, 2
instances with 8 slots each, as a user would start it. The time is from the start
of the process to its end, including the start and removal of the instances.

Part two: the same jobs over one real OpenSSH server (see `benchmarks/_sshd.py`),
16 at a time, with each of: `xargs -P16 ssh`, GNU `parallel -S 16/host`, and the
scaler with this server as its group and the SSH connector. The scaler is measured
twice: as the library, where a task is one command, and as the job runner, which
also creates and removes a working directory for each job. All of them share one
connection (ControlMaster), and the time includes connecting. Needs root, sshd,
xargs and parallel.

Usage: python -m benchmarks.run_throughput [JOBS]
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from benchmarks._fixed_hosts import FixedHosts
from benchmarks._report import report
from benchmarks._sshd import ssh_server

import taskscaler
from fleeting.types import ConnectInfo
from taskscaler.jobs.job import Job, expand
from taskscaler.jobs.output import OutputMode, output_factory
from taskscaler.jobs.result import JobState
from taskscaler.jobs.runner import JobRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks._sshd import SshServer

    from taskscaler.jobs.output import Stream
    from taskscaler.jobs.result import JobResult

SLOTS = 16
ROUNDS = 3


def local_provider(jobs: int) -> float:
    """Run the jobs with the command; return the seconds from its start to its end."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "jobs.toml"
        file.write_text(f'[[jobs]]\nname = "true"\nscript = ["true"]\ncount = {jobs}\n')
        command = [str(Path(sys.executable).parent / "taskscaler"), "run", "--output", "none"]
        options = ["--plugin", "local", "--max-instances", "2", "--capacity-per-instance", "8"]
        return timed(lambda: quietly([*command, *options, str(file)]))


def library(server: SshServer, jobs: int) -> float:
    """Run the jobs as tasks of the scaler; return the seconds."""
    return timed(lambda: anyio.run(run_tasks, server, jobs))


async def run_tasks(server: SshServer, jobs: int) -> None:
    """Give each task a slot on the server, and run its command there."""

    async def run_one(key: str) -> None:
        async with scaler.acquire(key) as acquisition, acquisition.connect() as connection:
            completed = await connection.run("true")
            if not completed.succeeded:
                raise RuntimeError(f"{key}: {completed}")

    async with scaler_of(server) as scaler, anyio.create_task_group() as tasks:
        for number in range(jobs):
            tasks.start_soon(run_one, f"true#{number}")


def job_runner(server: SshServer, jobs: int) -> float:
    """Run the jobs as `taskscaler run` does; return the seconds."""
    return timed(lambda: anyio.run(run_jobs, server, jobs))


async def run_jobs(server: SshServer, jobs: int) -> None:
    """Run each job with the job runner: a slot, a working directory and its script."""
    runs = expand([Job(name="true", script=["true"], count=jobs)], Path(), where="benchmark")
    output = output_factory(OutputMode.NONE, SilentObserver(), several=True)
    runner = JobRunner(runs, output, SilentObserver())
    async with scaler_of(server) as scaler:
        await runner.run(scaler, workers=SLOTS, acquire_timeout=None)
    if any(result.state is not JobState.SUCCESS for result in runner.results):
        raise RuntimeError(f"not every job succeeded: {runner.counts}")


class SilentObserver:
    """Observes the jobs and receives their output, and does nothing with either."""

    async def write(self, stream: Stream, data: bytes, /) -> None:
        """Drop the output."""

    async def started(self, result: JobResult, /) -> None:
        """Do nothing."""

    async def retried(self, result: JobResult, reason: str, /) -> None:
        """Do nothing."""

    async def finished(self, result: JobResult, /) -> None:
        """Do nothing."""

    async def resumed(self, results: Sequence[JobResult], /) -> None:
        """Do nothing."""


def scaler_of(server: SshServer) -> taskscaler.Taskscaler:
    """Return a scaler whose only instance is the server, with a slot for each job at a time."""
    host = ConnectInfo(
        id="bench",
        protocol="ssh",
        internal_address="127.0.0.1",
        port=server.port,
        username=server.user,
        private_key=server.private_key,
        host_keys=(server.host_key,),
    )
    settings = taskscaler.Settings(
        capacity_per_instance=SLOTS,
        max_instances=1,
        delete_instances_on_shutdown=True,
        # The default of `taskscaler run`: the host is ready at once.
        update_interval_when_expecting=timedelta(milliseconds=200),
    )
    return taskscaler.Taskscaler([FixedHosts([host])], settings)


def xargs(server: SshServer, jobs: int) -> float:
    """Run the jobs with `xargs ssh`; return the seconds."""
    return over_ssh(server, jobs, f"xargs -P{SLOTS} -I{{}} {ssh(server)} bench true")


def parallel(server: SshServer, jobs: int) -> float:
    """Run the jobs with GNU parallel; return the seconds."""
    return over_ssh(server, jobs, f"parallel --ssh '{ssh(server)}' -S {SLOTS}/bench -n1 true '#'")


def over_ssh(server: SshServer, jobs: int, command: str) -> float:
    """Open the shared connection and let the command read the jobs; return the seconds."""
    # The connection outlives the pipeline and must not keep our output open.
    line = f"{ssh(server)} -fN bench 2>/dev/null && seq {jobs} | {command}"
    return timed(lambda: quietly(["/bin/dash", "-ec", line]), after=server.close_master)


def ssh(server: SshServer) -> str:
    """Return the OpenSSH client's command line for the server."""
    return f"ssh -F {server.client_config}"


def timed(work: Callable[[], object], after: Callable[[], None] = lambda: None) -> float:
    """Return the seconds that the work takes, without those of `after`."""
    started = time.perf_counter()
    try:
        work()
        return time.perf_counter() - started
    finally:
        after()


def quietly(command: list[str]) -> None:
    """Run a command that must succeed; show its error output only if it fails."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    completed = subprocess.run(
        command, check=False, env=environment, stdin=subprocess.DEVNULL, capture_output=True
    )
    if completed.returncode:
        raise RuntimeError(f"{command} failed: {completed.stderr.decode(errors='replace')[-1000:]}")


def one_server(jobs: int) -> list[dict[str, object]]:
    """Run the contenders in turn; return their rows."""
    contenders = {
        "taskscaler, library": library,
        "taskscaler, job runner": job_runner,
        "xargs ssh": xargs,
        "parallel": parallel,
    }
    best: dict[str, float] = {}
    with ssh_server() as server:
        for _ in range(ROUNDS):
            for name, contender in contenders.items():
                rate = jobs / contender(server, jobs)
                best[name] = max(rate, best.get(name, 0.0))
    return [
        {
            "where": "one sshd",
            "contender": name,
            "jobs/s": rate,
            "library / this": best["taskscaler, library"] / rate,
            "job runner / this": best["taskscaler, job runner"] / rate,
        }
        for name, rate in best.items()
    ]


def end(number: int, _frame: object) -> None:
    """Exit through an exception, so that everything is cleaned up."""
    sys.exit(128 + number)


def main() -> None:
    """Measure, and print the best of three rounds of each contender."""
    # Clean up even when the benchmark is terminated.
    signal.signal(signal.SIGTERM, end)
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    best = max(jobs / local_provider(jobs) for _ in range(ROUNDS))
    rows: list[dict[str, object]] = [
        {
            "where": "local, 2 x 8 slots",
            "contender": "taskscaler run",
            "jobs/s": best,
            "library / this": "",
            "job runner / this": "",
        }
    ]
    missing = [tool for tool in ("xargs", "parallel", "useradd") if shutil.which(tool) is None]
    if os.geteuid() == 0 and not missing:
        rows += one_server(jobs)
    else:
        print(
            f"skipped the comparison with other tools: it needs root and {missing or 'sshd'}",
            file=sys.stderr,
        )
    report("run_throughput", rows)


if __name__ == "__main__":
    main()
