"""The journal of jobs: what a later call of the command finds, and what it makes of it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
import pytest
from typing_extensions import override

from fleeting.testing import FakeConnector, FakeInstanceGroup
from taskscaler import ScalerClosed, Settings, StoreError, Taskscaler
from taskscaler.core import JobRecord
from taskscaler.jobs import (
    Job,
    JobResult,
    JobRun,
    JobRunner,
    JobState,
    Journal,
    OutputMode,
    Stream,
    clear_journal,
    expand,
    output_factory,
)
from taskscaler.storage import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fleeting.testing import Command
    from taskscaler.core import Record

pytestmark = pytest.mark.anyio

SOON = timedelta(milliseconds=1)


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, as the command does."""
    return "asyncio"


class Book:
    """A store of jobs alone, and everything that is told, each with what was written by then."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str, str], Record] = {}
        self.told: list[tuple[str, str, str | None]] = []

    async def commit(
        self, put: Sequence[Record], drop: Sequence[tuple[str, str, str]] = ()
    ) -> None:
        await anyio.lowlevel.checkpoint()
        self.records |= {record.key: record for record in put}
        for key in drop:
            self.records.pop(key, None)

    def journal(self) -> Journal:
        return Journal(self.commit, list(self.records.values()))

    def state(self, name: str) -> str | None:
        """Return what is written of a run."""
        record = self.records.get(("job", "", name))
        return record.state if isinstance(record, JobRecord) else None

    async def write(self, stream: Stream, data: bytes) -> None:
        """Take output, which nobody wants to see."""

    async def started(self, result: JobResult) -> None:
        self.told.append(("started", result.name, self.state(result.name)))

    async def retried(self, result: JobResult, reason: str) -> None:
        assert reason
        self.told.append(("retried", result.name, self.state(result.name)))

    async def finished(self, result: JobResult) -> None:
        self.told.append((result.state.value, result.name, self.state(result.name)))

    async def resumed(self, results: Sequence[JobResult]) -> None:
        self.told += [("resumed", result.name, self.state(result.name)) for result in results]

    def runner(self, runs: Sequence[JobRun], *, keep_going: bool = True) -> JobRunner:
        output = output_factory(OutputMode.NONE, self, several=True)
        return JobRunner(runs, output, self, keep_going=keep_going)


async def _play(command: Command) -> int:
    if command.line.startswith("rm "):
        return 0
    word = b"".join([data async for data in command.stdin]).removesuffix(b"\\n\n").decode()
    return 3 if word == "fail" else 0


async def _run(runner: JobRunner, journal: Journal, store: MemoryStore | None = None) -> None:
    connector = FakeConnector(_play)
    group = FakeInstanceGroup(connector=connector)
    settings = Settings(
        max_instances=1, update_interval_when_expecting=SOON, delete_instances_on_shutdown=True
    )
    async with Taskscaler([group], settings, store=store, connect=connector.connect) as scaler:
        await runner.resume(journal)
        await runner.run(scaler, workers=1, acquire_timeout=None)


def _runs(folder: Path, *names: str, word: str = "true", retries: int = 0) -> list[JobRun]:
    jobs = [Job(name=name, script=[word], retries=retries) for name in names]
    return expand(jobs, folder, where="test")


@pytest.fixture
def book() -> Book:
    """Return an empty one."""
    return Book()


async def test_everything_is_written_before_it_is_told(book: Book, tmp_path: Path) -> None:
    """A run is `running` in the journal when it starts, and ended when that is announced."""
    await _run(book.runner(_runs(tmp_path, "a")), book.journal())
    assert book.told == [("started", "a", "running"), ("success", "a", "success")]


async def test_what_ended_is_not_run_again(book: Book, tmp_path: Path) -> None:
    """A later call tells of it with all that was recorded, and runs the others alone."""
    first = book.runner(_runs(tmp_path, "a", word="fail"))
    await _run(first, book.journal())
    del book.told[:]
    runs = [*_runs(tmp_path, "a", word="fail"), *_runs(tmp_path, "b")]
    second = book.runner(runs)
    await _run(second, book.journal())
    assert book.told == [
        ("resumed", "a", "failed"),
        ("started", "b", "running"),
        ("success", "b", "success"),
    ]
    (old,), (again, new) = first.results, second.results
    assert (again.earlier, new.earlier) == (True, False)
    assert (again.exit_code, again.reason, again.attempts) == (3, old.reason, 1)
    assert (again.group, again.instance, again.slot) == (old.group, old.instance, old.slot)
    assert (again.started_at, again.finished_at) == (old.started_at, old.finished_at)


async def _leave_running(book: Book, runs: Sequence[JobRun]) -> None:
    """Write what a killed manager leaves behind."""
    result = JobResult("a", JobState.RUNNING, attempts=1, group="g", instance="i-1")
    await book.journal().write([(runs[0], result)])


async def test_what_was_running_is_lost_once(book: Book, tmp_path: Path) -> None:
    """It is a system failure with a reason, and a third call only repeats that."""
    runs = _runs(tmp_path, "a")
    await _leave_running(book, runs)
    runner = book.runner(runs)
    await _run(runner, book.journal())
    (result,) = runner.results
    assert book.told == [("system_failure", "a", "system_failure")]
    assert "it was lost" in (result.reason or "")
    assert result.finished_at is None
    await _run(book.runner(runs), book.journal())
    assert book.told[1:] == [("resumed", "a", "system_failure")]


async def test_lost_run_with_retries_is_run_again(book: Book, tmp_path: Path) -> None:
    """Its lost attempt counts, and is told of."""
    runs = _runs(tmp_path, "a", retries=1)
    await _leave_running(book, runs)
    runner = book.runner(runs)
    await _run(runner, book.journal())
    assert book.told == [
        ("retried", "a", "waiting"),
        ("started", "a", "running"),
        ("success", "a", "success"),
    ]
    assert runner.results[0].attempts == 2


async def test_changed_job_is_another_one(book: Book, tmp_path: Path) -> None:
    """What a job of the same name did counts no more; what it was doing is told as a warning."""
    await _run(book.runner(_runs(tmp_path, "b")), book.journal())
    await _leave_running(book, _runs(tmp_path, "a"))
    changed = _runs(tmp_path, "a", "b", word="fail")
    runner = book.runner(changed)
    await _run(runner, book.journal())
    assert [result.state for result in runner.results] == [JobState.FAILED] * 2
    assert [len(result.warnings) for result in runner.results] == [1, 0]


async def test_canceled_run_is_forgotten(book: Book, tmp_path: Path) -> None:
    """Who was cut off on purpose is run by the next call, as if it had never begun."""
    runs = _runs(tmp_path, "a")
    runner = book.runner(runs)
    seen = book.started

    async def started(result: JobResult) -> None:
        await seen(result)
        runner.cancel(JobState.CANCELED, "enough")
        await anyio.lowlevel.checkpoint()

    book.started = started  # type: ignore[method-assign] # it is told in the middle of an attempt
    await _run(runner, book.journal())
    assert book.told == [("started", "a", "running"), ("canceled", "a", None)]


async def test_fail_fast_holds_over_a_restart(book: Book, tmp_path: Path) -> None:
    """If a job failed in the earlier call, the others are canceled by the later one."""
    await _run(book.runner(_runs(tmp_path, "a", word="fail")), book.journal())
    runs = [*_runs(tmp_path, "a", word="fail"), *_runs(tmp_path, "b")]
    runner = book.runner(runs, keep_going=False)
    await _run(runner, book.journal())
    assert [result.state.value for result in runner.results] == ["failed", "canceled"]


async def test_journal_that_cannot_be_written_ends_the_run(book: Book, tmp_path: Path) -> None:
    """No script is started that is not written down, and the error is told as it is."""

    async def broken(put: Sequence[Record], drop: Sequence[tuple[str, str, str]] = ()) -> None:
        await anyio.lowlevel.checkpoint()
        assert not drop
        raise ScalerClosed(f"cannot write {len(put)} records")

    with pytest.raises(StoreError, match="cannot write 1 records"):
        await _run(book.runner(_runs(tmp_path, "a", "b")), Journal(broken, ()))
    assert book.told == []


class FullStore(MemoryStore):
    """A store without room for jobs in one of their states."""

    def __init__(self, state: JobState) -> None:
        super().__init__()
        self.refused = state.value

    @override
    async def commit(
        self, epoch: int, put: Sequence[Record], drop: Sequence[tuple[str, str, str]]
    ) -> None:
        if any(isinstance(one, JobRecord) and one.state == self.refused for one in put):
            raise StoreError("the disk is full")
        await super().commit(epoch, put, drop)


async def test_store_that_fails_is_told_alone_and_as_it_is(book: Book, tmp_path: Path) -> None:
    """What the jobs make of it follows from it, and nobody is said to have cancelled them."""
    runner = book.runner(_runs(tmp_path, "a", "b"))
    await _run_on_full_store(runner, FullStore(JobState.RUNNING), workers=2)
    assert book.told == [("system_failure", "b", None)]


async def test_success_that_is_not_written_down_is_none(book: Book, tmp_path: Path) -> None:
    """The next call takes it for lost, so this one must not report another thing."""
    runner = book.runner(_runs(tmp_path, "a"))
    await _run_on_full_store(runner, FullStore(JobState.SUCCESS), workers=1)
    await runner.abandon(JobState.SYSTEM_FAILURE, "the disk is full")
    assert book.told == [("started", "a", None), ("system_failure", "a", None)]


async def _run_on_full_store(runner: JobRunner, store: FullStore, workers: int) -> None:
    connector = FakeConnector(_play)
    group = FakeInstanceGroup(connector=connector)
    settings = Settings(max_instances=1, update_interval_when_expecting=SOON)
    with pytest.raises(StoreError, match=r"^the disk is full$"):
        async with Taskscaler([group], settings, store=store, connect=connector.connect) as scaler:
            await runner.resume(Journal(scaler.commit, ()))
            await runner.run(scaler, workers=workers, acquire_timeout=None)


async def test_journal_is_cleared_of_its_own_set(tmp_path: Path) -> None:
    """What other sets of jobs have left in the same store stays there."""
    store = MemoryStore()
    loaded = await store.load()
    records = [JobRecord(name, "x", "success", 1) for name in ("a", "b", "other")]
    await store.commit(loaded.epoch, records, ())
    await clear_journal(store, _runs(tmp_path, "a", "b"))
    assert list(store.records) == [("job", "", "other")]


async def test_workers_follow_their_limit(book: Book, tmp_path: Path) -> None:
    """More slots in the middle of a run are used by more runs at once."""
    most = running = 0

    class Counted(Book):
        async def started(self, result: JobResult) -> None:
            nonlocal most, running
            running += 1
            most = max(most, running)
            assert result.state is JobState.RUNNING
            runner.resize(3)
            if running < 3:
                await gate.wait()
            gate.set()

        async def finished(self, result: JobResult) -> None:
            nonlocal running
            running -= 1
            assert result.state.is_final

    gate = anyio.Event()
    runner = Counted().runner(_runs(tmp_path, *"abcdef"))
    connector = FakeConnector(_play)
    settings = Settings(
        capacity_per_instance=3,
        max_instances=1,
        update_interval_when_expecting=SOON,
        delete_instances_on_shutdown=True,
    )
    group = FakeInstanceGroup(connector=connector)
    async with Taskscaler([group], settings, connect=connector.connect) as scaler:
        with anyio.fail_after(60):
            await runner.run(scaler, workers=1, acquire_timeout=None)
    assert most == 3
    assert book.told == []
