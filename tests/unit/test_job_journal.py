"""The journal of jobs, and how a later call of the command uses it."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from typing_extensions import override

from fleeting.testing import FakeConnector, FakeInstanceGroup
from fleeting.types import Duration
from played_script import play_script
from taskscaler import ScalerClosed, Settings, StoreError, Taskscaler
from taskscaler.core import JobRecord, QueueRecord
from taskscaler.jobs.job import Download, Job, JobRun, expand
from taskscaler.jobs.journal import Journal, clear_journal
from taskscaler.jobs.output import OutputMode, Stream, output_factory
from taskscaler.jobs.result import JobResult, JobState
from taskscaler.jobs.runner import JobRunner
from taskscaler.storage import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fleeting.testing import Command
    from taskscaler.core import Record

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, as the command does."""
    return "asyncio"


class Book:
    """A store of job records, and an observer that notes the recorded state at each report."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str, str], Record] = {}
        self.reports: list[tuple[str, str, str | None]] = []

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
        """Return the recorded state of a run."""
        record = self.records.get(("job", "", name))
        return record.state if isinstance(record, JobRecord) else None

    async def write(self, stream: Stream, data: bytes) -> None:
        """Drop the output."""

    async def started(self, result: JobResult) -> None:
        self.reports.append(("started", result.name, self.state(result.name)))

    async def retried(self, result: JobResult, reason: str) -> None:
        assert reason
        self.reports.append(("retried", result.name, self.state(result.name)))

    async def finished(self, result: JobResult) -> None:
        self.reports.append((result.state.value, result.name, self.state(result.name)))

    async def resumed(self, results: Sequence[JobResult]) -> None:
        self.reports += [("resumed", result.name, self.state(result.name)) for result in results]

    def runner(self, runs: Sequence[JobRun], *, keep_going: bool = True) -> JobRunner:
        output = output_factory(OutputMode.NONE, self, several=True)
        return JobRunner(runs, output, self, keep_going=keep_going)


async def _play(command: Command) -> int:
    async def script(word: str) -> int:
        return 3 if word.endswith("fail") else 0

    if "rm -rf" in command.line or not command.line.startswith("exec /bin/sh"):
        return 0
    return await play_script(command, script)


def _scaler(store: MemoryStore | None = None, capacity: int = 1) -> Taskscaler:
    connector = FakeConnector(_play)
    settings = Settings(
        capacity_per_instance=capacity,
        max_instances=1,
        update_interval_when_expecting=timedelta(milliseconds=1),
        delete_instances_on_shutdown=True,
    )
    group = FakeInstanceGroup(connector=connector)
    return Taskscaler([group], settings, store=store, connect=connector.connect)


async def _run(runner: JobRunner, journal: Journal, store: MemoryStore | None = None) -> None:
    async with _scaler(store) as scaler:
        await runner.resume(journal)
        await runner.run(scaler, workers=1, acquire_timeout=None)


def _runs(folder: Path, *names: str, word: str = "true", retries: int = 0) -> list[JobRun]:
    jobs = [Job(name=name, script=[word], retries=retries) for name in names]
    return expand(jobs, folder, where="test")


@pytest.fixture
def book() -> Book:
    """Return an empty book."""
    return Book()


async def test_states_are_recorded_before_they_are_reported(book: Book, tmp_path: Path) -> None:
    """A run is recorded as `running` when it starts, and as ended when its end is reported."""
    await _run(book.runner(_runs(tmp_path, "a")), book.journal())
    assert book.reports == [("started", "a", "running"), ("success", "a", "success")]


async def test_ended_run_is_not_run_again(book: Book, tmp_path: Path) -> None:
    """A later call reports it with everything that was recorded, and runs only the others."""
    first = book.runner(_runs(tmp_path, "a", word="fail"))
    await _run(first, book.journal())
    del book.reports[:]
    runs = [*_runs(tmp_path, "a", word="fail"), *_runs(tmp_path, "b")]
    second = book.runner(runs)
    await _run(second, book.journal())
    assert book.reports == [
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
    """Write the record that a killed manager leaves."""
    result = JobResult("a", JobState.RUNNING, attempts=1, group="g", instance="i-1")
    await book.journal().write([(runs[0], result)])


async def test_running_run_is_lost_once(book: Book, tmp_path: Path) -> None:
    """It is a system failure with a reason; a third call only reports that again."""
    runs = _runs(tmp_path, "a")
    await _leave_running(book, runs)
    runner = book.runner(runs)
    await _run(runner, book.journal())
    (result,) = runner.results
    assert book.reports == [("system_failure", "a", "system_failure")]
    assert "lost: taskscaler stopped unexpectedly" in (result.reason or "")
    assert result.finished_at is None
    await _run(book.runner(runs), book.journal())
    assert book.reports[1:] == [("resumed", "a", "system_failure")]


async def test_lost_run_with_retries_is_run_again(book: Book, tmp_path: Path) -> None:
    """The lost attempt is counted and reported."""
    runs = _runs(tmp_path, "a", retries=1)
    await _leave_running(book, runs)
    runner = book.runner(runs)
    await _run(runner, book.journal())
    assert book.reports == [
        ("retried", "a", "waiting"),
        ("started", "a", "running"),
        ("success", "a", "success"),
    ]
    assert runner.results[0].attempts == 2


_KEYS: dict[str, Any] = {
    "env": {"WORD": "\xe9", "RAW": "\udcff"},
    "timeout": Duration(minutes=10),
    "count": 2,
    "retries": 1,
    "upload": ["given"],
    "download": ["made", Download(source="*", to="here")],
    "stdin": "given",
}
_KEY_SETS = [
    *((), *((key,) for key in _KEYS), *itertools.combinations(_KEYS, 2)),
    tuple(_KEYS),
]


@pytest.mark.parametrize("keys", _KEY_SETS, ids="+".join)
async def test_each_key_goes_through_a_journal(
    book: Book, tmp_path: Path, keys: tuple[str, ...]
) -> None:
    """A job with any keys is recorded, found again after a kill, and run or reported as lost."""
    (tmp_path / "given").write_text("given")
    job = Job(name="a", script=["true"], **{key: _KEYS[key] for key in keys})
    runs = expand([job], tmp_path, where="test")
    running = [(run, JobResult(run.name, JobState.RUNNING, attempts=1)) for run in runs]
    await book.journal().write(running)
    runner = book.runner(expand([job], tmp_path, where="test"))
    await _run(runner, book.journal())
    expected = JobState.SUCCESS if "retries" in keys else JobState.SYSTEM_FAILURE
    assert {result.state for result in runner.results} == {expected}
    assert len(runner.results) == (2 if "count" in keys else 1)
    changed = Job(name="a", script=["false"], **{key: _KEYS[key] for key in keys})
    assert book.journal().find(expand([changed], tmp_path, where="test")[0]) is None


async def test_changed_job_is_a_different_job(book: Book, tmp_path: Path) -> None:
    """Results of an old job with the same name are dropped; a running one is a warning."""
    await _run(book.runner(_runs(tmp_path, "b")), book.journal())
    await _leave_running(book, _runs(tmp_path, "a"))
    changed = _runs(tmp_path, "a", "b", word="fail")
    runner = book.runner(changed)
    await _run(runner, book.journal())
    assert [result.state for result in runner.results] == [JobState.FAILED] * 2
    assert [len(result.warnings) for result in runner.results] == [1, 0]


async def test_canceled_run_is_forgotten(book: Book, tmp_path: Path) -> None:
    """A run that was cancelled on purpose is run by the next call as if it were new."""
    runs = _runs(tmp_path, "a")
    runner = book.runner(runs)
    seen = book.started

    async def started(result: JobResult) -> None:
        await seen(result)
        runner.cancel(JobState.CANCELED, "enough")
        await anyio.lowlevel.checkpoint()

    book.started = started  # type: ignore[method-assign] # it is called in the middle of an attempt
    await _run(runner, book.journal())
    assert book.reports == [("started", "a", "running"), ("canceled", "a", None)]


async def test_fail_fast_applies_after_a_restart(book: Book, tmp_path: Path) -> None:
    """If a job failed in the earlier call, the others are canceled by the later one."""
    await _run(book.runner(_runs(tmp_path, "a", word="fail")), book.journal())
    runs = [*_runs(tmp_path, "a", word="fail"), *_runs(tmp_path, "b")]
    runner = book.runner(runs, keep_going=False)
    await _run(runner, book.journal())
    assert [result.state.value for result in runner.results] == ["failed", "canceled"]


async def test_journal_that_cannot_be_written_ends_the_run(book: Book, tmp_path: Path) -> None:
    """No script is started without a record, and the error is raised unchanged."""

    async def broken(put: Sequence[Record], drop: Sequence[tuple[str, str, str]] = ()) -> None:
        await anyio.lowlevel.checkpoint()
        assert not drop
        raise ScalerClosed(f"cannot write {len(put)} records")

    with pytest.raises(StoreError, match="cannot write 1 records"):
        await _run(book.runner(_runs(tmp_path, "a", "b")), Journal(broken, ()))
    assert book.reports == []


class FullStore(MemoryStore):
    """A store that is full when a job reaches a certain state."""

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


async def test_failed_store_is_reported_once_and_unchanged(book: Book, tmp_path: Path) -> None:
    """The jobs fail because of the store; none is reported as cancelled."""
    runner = book.runner(_runs(tmp_path, "a", "b"))
    await _run_on_full_store(runner, FullStore(JobState.RUNNING), workers=2)
    assert book.reports == [("system_failure", "b", None)]


async def test_success_without_a_record_is_not_reported(book: Book, tmp_path: Path) -> None:
    """The next call will see it as lost, so this call must not report a success."""
    runner = book.runner(_runs(tmp_path, "a"))
    await _run_on_full_store(runner, FullStore(JobState.SUCCESS), workers=1)
    await runner.abandon(JobState.SYSTEM_FAILURE, "the disk is full")
    assert book.reports == [("started", "a", None), ("system_failure", "a", None)]


async def _run_on_full_store(runner: JobRunner, store: FullStore, workers: int) -> None:
    with pytest.raises(StoreError, match=r"^the disk is full$"):
        async with _scaler(store) as scaler:
            await runner.resume(Journal(scaler.commit, ()))
            await runner.run(scaler, workers=workers, acquire_timeout=None)


async def test_journal_is_cleared_of_one_set_only(tmp_path: Path) -> None:
    """The records of other sets of jobs in the same store are kept."""
    store = MemoryStore()
    loaded = await store.load()
    records = [JobRecord(name, "x", "success", 1) for name in ("a", "b", "other")]
    await store.commit(loaded.epoch, [*records, QueueRecord((), 0, 1, "")], ())
    await clear_journal(store, _runs(tmp_path, "a", "b"))
    assert list(store.records) == [("job", "", "other")]


async def test_the_set_and_its_limit_are_recorded(book: Book, tmp_path: Path) -> None:
    """Before anything runs, after a change of the limit, and when no more runs start."""
    seen: list[QueueRecord] = []
    waiting: list[str] = []

    class Asked(Book):
        async def started(self, result: JobResult) -> None:
            del result
            waiting.append(runner.held_back)
            await runner.resize(2, "concurrent = 2")
            runner.stop("interrupted by SIGINT")
            await runner.announce()

        async def commit(
            self, put: Sequence[Record], drop: Sequence[tuple[str, str, str]] = ()
        ) -> None:
            await super().commit(put, drop)
            seen.extend(one for one in put if isinstance(one, QueueRecord))

    runs = expand([Job(name="work", script=["true"], count=3)], tmp_path, where="test")
    asked = Asked()
    runner = asked.runner(runs)
    async with _scaler() as scaler:
        await runner.resume(asked.journal())
        await runner.run(scaler, workers=1, acquire_timeout=None, why="concurrent = 1")
    assert waiting == ["2 jobs wait for their turn: concurrent = 1"]
    assert {one.jobs[0][:2] for one in seen} == {("work", 3)}
    assert [(one.workers, one.why) for one in seen] == [
        (1, "concurrent = 1"),
        (2, "concurrent = 2"),
        (0, "interrupted by SIGINT"),
    ]
    assert book.reports == []


async def test_record_of_a_set_is_small(book: Book, tmp_path: Path) -> None:
    """However many runs and jobs there are; those that are cut off are counted."""
    jobs = [Job(name=f"job-{number}", script=["true"], count=100) for number in range(1200)]
    runs = [JobRun(f"{job.name}#{number}", job, tmp_path) for job in jobs for number in range(100)]
    await book.journal().announce(runs, 4, "")
    (record,) = book.records.values()
    assert isinstance(record, QueueRecord)
    assert len(record.jobs) == 1000
    assert record.more == 20_000


async def test_workers_follow_the_limit(book: Book, tmp_path: Path) -> None:
    """If the number of slots grows during a run, more jobs run at the same time."""
    most = running = 0

    class Counted(Book):
        async def started(self, result: JobResult) -> None:
            nonlocal most, running
            running += 1
            most = max(most, running)
            assert result.state is JobState.RUNNING
            await runner.resize(3)
            if running < 3:
                await gate.wait()
            gate.set()

        async def finished(self, result: JobResult) -> None:
            nonlocal running
            running -= 1
            assert result.state.is_final

    gate = anyio.Event()
    runner = Counted().runner(_runs(tmp_path, *"abcdef"))
    async with _scaler(capacity=3) as scaler:
        with anyio.fail_after(60):
            await runner.run(scaler, workers=1, acquire_timeout=None)
    assert most == 3
    assert book.reports == []
