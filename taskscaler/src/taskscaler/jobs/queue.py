"""The runs that wait for their turn: who they are, and why, from the records of a state file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskscaler.core import counted
from taskscaler.jobs.job import run_names
from taskscaler.jobs.result import JobState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from taskscaler.core import JobRecord, QueueRecord

__all__ = ("JobQueue", "describe_queue", "find_queue")


@dataclass(frozen=True, slots=True)
class JobQueue:
    """The runs of one call of the command that neither hold nor ask for a slot.

    Attributes:
        asking: those that ask for a slot next, so soon that the scaler has not recorded it.
        waiting: those that wait for their turn, next first.
        more: at most so many further runs wait, whose names are not recorded.
        why: what limits the runs at a time; empty without a limit.
        stopping: whether no more runs start.
    """

    asking: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    more: int = 0
    why: str = ""
    stopping: bool = False


def find_queue(
    record: QueueRecord | None, jobs: Mapping[str, JobRecord], known: Collection[str]
) -> JobQueue:
    """Return the runs that wait, by the records of a state file.

    Args:
        record: of the set of jobs; None if there is none.
        jobs: the records of the runs, by name.
        known: the names of runs that held or asked for a slot when the scaler last recorded its
            state, which may be a second ago.
    """
    if record is None:
        return JobQueue()
    idle: list[str] = []
    busy = 0
    for name, state in _states(record, jobs):
        if state is JobState.RUNNING or (state is JobState.WAITING and name in known):
            busy += 1
        elif state is JobState.WAITING:
            idle.append(name)
    # A worker takes the next run as soon as it can.
    asking = max(0, record.workers - busy)
    return JobQueue(
        asking=tuple(idle[:asking]),
        waiting=tuple(idle[asking:]),
        more=record.more,
        why=record.why,
        stopping=not record.workers,
    )


def _states(record: QueueRecord, jobs: Mapping[str, JobRecord]) -> Iterator[tuple[str, JobState]]:
    """Yield the name and the recorded state of each run of a set, in order."""
    for job, count, digest in record.jobs:
        for name in run_names(job, count):
            found = jobs.get(name)
            # With another digest it is the record of another job.
            same = found is not None and found.digest == digest
            yield name, JobState(found.state) if found and same else JobState.WAITING


def describe_queue(count: int, why: str, *, stopping: bool = False, more: int = 0) -> str:
    """Return how many runs wait for their turn, and why; empty if none does.

    Args:
        count: how many.
        why: what limits the runs at a time, or why no more start.
        stopping: whether no more start.
        more: how many further runs may wait.
    """
    if not count:
        return ""
    one = count == 1 and not more
    jobs = f"{counted(count, 'job')}" + (f" and up to {more} more" if more else "")
    if stopping:
        return f"{jobs} {'does' if one else 'do'} not start: {why}"
    turn = "waits for its turn" if one else "wait for their turn"
    return f"{jobs} {turn}" + (f": {why}" if why else "")
