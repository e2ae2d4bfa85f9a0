"""Which runs of a set wait for their turn, from the records of a state file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from taskscaler.core import JobRecord, QueueRecord
from taskscaler.jobs.queue import JobQueue, describe_queue, find_queue

if TYPE_CHECKING:
    from collections.abc import Collection

RECORD = QueueRecord((("work", 4, "d"), ("last", 1, "e")), 0, 2, "concurrent = 2")


def job(name: str, state: str, digest: str = "d") -> JobRecord:
    """Return the record of a run."""
    return JobRecord(name, digest, state, 1)


@pytest.mark.parametrize(
    ("jobs", "known", "asking", "waiting"),
    [
        pytest.param(
            (),
            (),
            ("work#1", "work#2"),
            ("work#3", "work#4", "last"),
            id="before the scaler has recorded anything",
        ),
        pytest.param(
            (), ("work#1", "work#2"), (), ("work#3", "work#4", "last"), id="two ask for a slot"
        ),
        pytest.param(
            (job("work#1", "running"), job("work#2", "running")),
            ("work#1",),
            (),
            ("work#3", "work#4", "last"),
            id="two run, one of them since the picture",
        ),
        pytest.param(
            (job("work#1", "success"), job("work#2", "running")),
            ("work#1", "work#2"),
            ("work#3",),
            ("work#4", "last"),
            id="one has ended since the picture",
        ),
        pytest.param(
            (job("work#1", "waiting"), job("work#2", "failed")),
            ("work#1", "work#3"),
            (),
            ("work#4", "last"),
            id="one is tried again",
        ),
        pytest.param(
            (job("last", "success", "another job of this name"),),
            ("work#1", "work#2"),
            (),
            ("work#3", "work#4", "last"),
            id="a record of another set",
        ),
    ],
)
def test_runs_that_wait(
    jobs: Collection[JobRecord],
    known: Collection[str],
    asking: tuple[str, ...],
    waiting: tuple[str, ...],
) -> None:
    """All that neither ended, nor hold or ask for a slot, nor are about to ask, in order."""
    found = find_queue(RECORD, {one.name: one for one in jobs}, known)
    assert found == JobQueue(asking, waiting, 0, "concurrent = 2", stopping=False)


def test_without_a_record_nothing_waits() -> None:
    """The library has no jobs."""
    assert find_queue(None, {}, ()) == JobQueue()


def test_a_run_that_stops_starts_no_more() -> None:
    """Then there is no next one, and the reason is that of the stop."""
    stopped = QueueRecord(RECORD.jobs, 0, 0, "interrupted by SIGINT")
    found = find_queue(stopped, {"work#1": job("work#1", "running")}, ())
    assert found.stopping
    assert found.asking == ()
    assert len(found.waiting) == 4


@pytest.mark.parametrize(
    ("count", "why", "stopping", "more", "expected"),
    [
        (0, "limit = 1", False, 0, ""),
        (1, "limit = 1", False, 0, "1 job waits for its turn: limit = 1"),
        (2, "limit = 1", False, 0, "2 jobs wait for their turn: limit = 1"),
        (2, "", False, 0, "2 jobs wait for their turn"),
        (1, "limit = 1", False, 9, "1 job and up to 9 more wait for their turn: limit = 1"),
        (1, "interrupted", True, 0, "1 job does not start: interrupted"),
        (3, "interrupted", True, 0, "3 jobs do not start: interrupted"),
    ],
)
def test_queue_in_words(*, count: int, why: str, stopping: bool, more: int, expected: str) -> None:
    """How many wait, and what for."""
    assert describe_queue(count, why, stopping=stopping, more=more) == expected
