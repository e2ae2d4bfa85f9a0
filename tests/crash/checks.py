"""The conditions that must hold after any number of kills of the manager."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from tests.crash.world import MAX_USE_COUNT, processes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.crash.rounds import Call
    from tests.crash.world import JobSet

LOST = "lost: "
# How long the processes of removed instances may take to end.
DEADLINE_SECONDS = 30.0


class Broken(Exception):
    """A condition does not hold."""


def demand(condition: object, text: str) -> None:
    """Check a condition.

    Raises:
        Broken: the condition is false.
    """
    if not condition:
        raise Broken(text)


def check_announced(
    jobs: JobSet, announced: dict[str, tuple[str, int]], ends: Sequence[tuple[str, str, str]]
) -> None:
    """Check that jobs that were reported as ended did not run again and are not reported again.

    Args:
        jobs: the set.
        announced: for each job that was reported as ended, its state and the number of starts
            of its script at that time; the ends of the last call are added.
        ends: name, state and reason of each end that the last call reported.

    Raises:
        Broken: a job ran again or was reported again.
    """
    starts = jobs.starts()
    for name, (state, times) in announced.items():
        demand(starts[name] == times, f"{name} ended ({state}), and was started again")
    for name, state, _ in ends:
        demand(name not in announced, f"{name} is reported as ended twice")
        announced[name] = (state, starts[name])


def check_set(
    jobs: JobSet, code: int | None, announced: dict[str, tuple[str, int]], calls: Sequence[Call]
) -> Counter[str]:
    """Check a completed set of jobs, and return how many jobs are in each state.

    Args:
        jobs: the set.
        code: the exit code of the last call; None if it was killed after its summary.
        announced: from `check_announced`.
        calls: all calls that ran jobs of the set.

    Raises:
        Broken: a job is missing, ran too often, or has a wrong state.
    """
    said = " | ".join(calls[-1].lines[-5:])
    demand(code in (None, 0, 1, 3), f"the last call ended with {code}: {said}")
    reported = {job["name"]: job for job in json.loads(jobs.report.read_text())["jobs"]}
    demand(reported.keys() == jobs.jobs.keys(), "the report does not have every job once")
    starts, ends = jobs.starts(), Counter(name for name, _ in jobs.traces("end"))
    for name, job in reported.items():
        _check_job(jobs, name, job, starts[name], ends[name])
        if name in announced:
            demand(
                announced[name][0] == job["state"],
                f"{name} was reported as {announced[name][0]}, but the report has {job['state']}",
            )
    uses = Counter(home for _, home in jobs.traces("start"))
    for home, count in uses.items():
        demand(count <= MAX_USE_COUNT, f"{count} jobs were started in {home}")
    states = Counter(str(job["state"]) for job in reported.values())
    expected = 3 if states["system_failure"] else 1 if states["failed"] else 0
    demand(code in (None, expected), f"the exit code is {code} and not {expected}: {said}")
    return states


def _check_job(jobs: JobSet, name: str, job: dict[str, Any], starts: int, ends: int) -> None:
    wanted, state, attempts = jobs.jobs[name], job["state"], job["attempts"]
    facts = f"{name} is {state} after {attempts} attempts, {starts} starts and {ends} ends"
    demand(starts <= attempts <= wanted.retries + 1, f"{facts}, of {wanted.retries} retries")
    if state == "system_failure":
        demand(str(job["reason"]).startswith(LOST), f"{facts}: {job['reason']}")
        demand(attempts == wanted.retries + 1, f"{facts}, and was not tried again")
        return
    demand(ends >= 1, f"{facts}, although its script has not ended")
    demand(state == ("failed" if wanted.status else "success"), f"{facts}, exit {wanted.status}")
    brought = jobs.folder / name / "out"
    demand(brought.is_file() and brought.read_text() == f"{name}\n", f"{facts}, without its file")


def check_leaks(folder: Path) -> None:
    """Check that only the state file and its companions are left.

    Raises:
        Broken: a process or another file is left.
    """
    root = folder / "root"
    until = time.monotonic() + DEADLINE_SECONDS
    while left := processes(root):
        demand(time.monotonic() < until, f"processes are left: {left}")
        time.sleep(0.05)
    instances = root / "instances"
    homes = sorted(path.name for path in instances.iterdir()) if instances.exists() else []
    demand(not homes, f"directories of instances are left: {homes}")
    names = {path.name for path in folder.iterdir() if not path.name.startswith("set")}
    strange = {name for name in names if name != "root" and not name.startswith("state.sqlite")}
    demand(not strange, f"files are left: {sorted(strange)}")
