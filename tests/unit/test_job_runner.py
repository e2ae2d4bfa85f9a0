"""Running jobs on a scaler with fake instances: retries, timeouts, clean-up."""

from __future__ import annotations

import re
from collections import defaultdict
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from fleeting.errors import TransferFailed
from fleeting.testing import FakeConnection, FakeConnector, FakeInstanceGroup
from fleeting.types import Duration
from played_script import play_script
from taskscaler import AcquireTimeout, Settings, Taskscaler
from taskscaler.jobs import executor
from taskscaler.jobs.job import Job, expand
from taskscaler.jobs.output import OutputMode, Stream, output_factory
from taskscaler.jobs.result import JobResult, JobState
from taskscaler.jobs.runner import JobRunner

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from fleeting.testing import Command
    from taskscaler import Acquisition

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, as the command does."""
    return "asyncio"


class World:
    """Fake instances that execute scripts of one word, and the observer of the jobs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.connector = FakeConnector(self.play)
        self.group = FakeInstanceGroup(connector=self.connector)
        self.removals: list[str] = []
        self.attempts: dict[str, int] = defaultdict(int)
        self.begun = anyio.Event()
        self.gate = anyio.Event()
        self.retries: list[tuple[str, str]] = []
        self.full: set[str] = set()
        self.bugs: dict[str, Exception] = {}
        self.removal_status = 0
        self.removal_hangs = False

    async def play(self, command: Command) -> int:
        """Execute the script."""
        if "rm -rf" in command.line:
            self.removals.append(command.line)
            if self.removal_hangs:
                await anyio.sleep_forever()
            await command.stderr.send(b"rm: no\n")
            return self.removal_status
        if command.line.startswith("exec /bin/sh"):
            return await play_script(
                command,
                lambda word: self.script(command, word),
                refuses=lambda word: word == "no-room" or command.instance in self.full,
            )
        return 0

    async def script(self, command: Command, word: str) -> int:
        """Run a script of one word."""
        self.attempts[word] += 1
        if word in self.bugs:
            raise self.bugs[word]
        if word == "gate":
            self.begun.set()
            await self.gate.wait()
        if word == "break-once" and self.attempts[word] == 1:
            self.connector.break_(command.instance)
        return 1 if word == "fail" else 125 if word == "exit-125" else 0

    def runner(self, *words: str, keep_going: bool = True, **keys: Any) -> JobRunner:
        """Return a runner with one job for each word."""
        jobs = [Job(name=f"{n}-{word}", script=[word], **keys) for n, word in enumerate(words)]
        runs = expand(jobs, self.folder, where="test")
        output = output_factory(OutputMode.NONE, self, several=True)
        return JobRunner(runs, output, self, keep_going=keep_going)

    @asynccontextmanager
    async def scaler(self, capacity: int = 1, maximum: int = 1) -> AsyncGenerator[Taskscaler]:
        """Open a scaler that lists its group continuously."""
        settings = Settings(
            capacity_per_instance=capacity,
            max_instances=maximum,
            update_interval_when_expecting=timedelta(milliseconds=1),
            delete_instances_on_shutdown=True,
        )
        async with Taskscaler([self.group], settings, connect=self.connector.connect) as scaler:
            yield scaler

    async def write(self, stream: Stream, data: bytes) -> None:
        """Drop the output."""

    async def started(self, result: JobResult) -> None:
        """Check that a run got a slot."""
        assert result.state is JobState.RUNNING

    async def retried(self, result: JobResult, reason: str) -> None:
        """Record the retry."""
        self.retries.append((result.name, reason))

    async def finished(self, result: JobResult) -> None:
        """Check that the state is final."""
        assert result.state.is_final

    async def resumed(self, results: Sequence[JobResult]) -> None:
        """Fail: there was no earlier call."""
        raise AssertionError(results)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a world without instances."""
    return World(tmp_path)


def states(runner: JobRunner) -> list[str]:
    """Return the state of each run in order."""
    return [result.state.value for result in runner.results]


async def test_all_jobs_run_in_order_on_one_slot(world: World) -> None:
    """A failed job does not stop the next one, and every directory is removed."""
    runner = world.runner("true", "fail", "exit-125")
    async with world.scaler() as scaler:
        await runner.run(scaler, workers=1, acquire_timeout=None)
    assert states(runner) == ["success", "failed", "failed"]
    assert [result.exit_code for result in runner.results] == [0, 1, 125]
    assert len(world.removals) == 3
    assert dict(runner.counts)[JobState.FAILED] == 2


async def test_removals_are_shared(world: World) -> None:
    """One command removes the directories of jobs that end together."""
    runner = world.runner(*["true"] * 64)
    async with world.scaler(capacity=16) as scaler:
        await runner.run(scaler, workers=16, acquire_timeout=None)
    assert states(runner) == ["success"] * 64
    removed = [
        name for line in world.removals for name in set(re.findall(r"\.taskscaler[\w.-]+", line))
    ]
    assert len(removed) == len(set(removed)) == 64
    assert len(world.removals) <= 16


async def test_retry_runs_on_another_instance(world: World) -> None:
    """After its instance was lost, a job with a retry succeeds on a new one."""
    runner = world.runner("break-once", retries=1)
    async with world.scaler() as scaler:
        await runner.run(scaler, workers=1, acquire_timeout=None)
        instances = [one.id for one in scaler.instances()]
    (result,) = runner.results
    assert (result.state, result.attempts) == (JobState.SUCCESS, 2)
    assert result.instance == instances[-1] != instances[0]
    assert [name for name, _ in world.retries] == [result.name]


async def test_without_retries_a_lost_instance_is_a_system_failure(world: World) -> None:
    """A job without retries reports a failure of the infrastructure."""
    runner = world.runner("break-once")
    async with world.scaler() as scaler:
        await runner.run(scaler, workers=1, acquire_timeout=None)
    assert states(runner) == ["system_failure"]
    assert "lost" in (runner.results[0].reason or "")


async def test_instance_with_a_full_disk_is_a_system_failure(world: World) -> None:
    """A failure before the script starts is not the exit code of the script."""
    runner = world.runner("no-room")
    async with world.scaler() as scaler:
        await runner.run(scaler, workers=1, acquire_timeout=None)
    assert states(runner) == ["system_failure"]
    assert "mkdir: disk full" in (runner.results[0].reason or "")
    assert runner.results[0].exit_code is None


async def test_failed_removal_is_a_warning(world: World) -> None:
    """A directory that cannot be removed is reported; the job still succeeds."""
    world.removal_status = 1
    runner = world.runner("true")
    async with world.scaler() as scaler:
        await runner.run(scaler, workers=1, acquire_timeout=None)
    assert states(runner) == ["success"]
    assert runner.results[0].warnings == ["could not remove a working directory: rm: no"]


async def test_removal_that_hangs_is_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs that end on that instance, then or later, are not blocked forever."""
    monkeypatch.setattr(executor, "SHARED_REMOVAL_SECONDS", 0.01)
    world.removal_hangs = True
    runner = world.runner("true", "true", "true")
    async with world.scaler(capacity=2) as scaler:
        await runner.run(scaler, workers=2, acquire_timeout=None)
    assert states(runner) == ["success"] * 3
    warnings = {warning for result in runner.results for warning in result.warnings}
    assert warnings == {"could not remove a working directory within 0.01s"}


@pytest.mark.parametrize(("timeout", "limit"), [(None, "0.01s"), (Duration(seconds=1), "1s")])
async def test_download_that_hangs_is_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch, timeout: Duration | None, limit: str
) -> None:
    """With or without a timeout of the job, the attempt fails and the slot is released."""

    async def hang(connection: FakeConnection, pattern: str, *, budget: object) -> list[str]:
        del connection, pattern, budget
        await anyio.sleep_forever()
        return []

    monkeypatch.setattr(executor, "DOWNLOAD_SECONDS", 0.01)
    monkeypatch.setattr(executor, "LEAST_DOWNLOAD_SECONDS", 0.01)
    monkeypatch.setattr(FakeConnection, "glob", hang)
    runner = world.runner("true", download=["dist/*"], timeout=timeout)
    async with world.scaler() as scaler:
        await runner.run(scaler, workers=1, acquire_timeout=None)
    assert states(runner) == ["system_failure"]
    assert runner.results[0].reason == f"download 'dist/*': took longer than {limit}"
    assert len(world.removals) == 1


async def test_download_outside_its_directory_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path outside the directory is refused, whatever the instance reports."""
    runner = world.runner("true", download=["*"])
    async with world.scaler() as scaler:
        async with scaler.acquire("first") as acquisition:
            files = world.connector.files[acquisition.instance]
        evil = "work/../../evil"

        def lie(pattern: str) -> list[str]:
            return [pattern.replace("work/*", evil)]

        monkeypatch.setattr(files, "glob", lie)
        await runner.run(scaler, workers=1, acquire_timeout=None)
    assert states(runner) == ["system_failure"]
    assert "which is outside" in (runner.results[0].reason or "")
    assert list(world.folder.iterdir()) == []


async def test_no_slot_in_time_is_a_system_failure(world: World) -> None:
    """When no instance comes, the job says what the scaler says about it."""
    world.group = FakeInstanceGroup(connector=world.connector, boot_updates=None)
    runner = world.runner("true", retries=3)
    async with world.scaler() as scaler:
        await runner.run(scaler, workers=1, acquire_timeout=timedelta(milliseconds=20))
    assert states(runner) == ["system_failure"]
    assert "no slot came free" in (runner.results[0].reason or "")


async def test_acquire_timeout_does_not_apply_while_other_jobs_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that waits for another job of the same run does not fail."""
    runner = world.runner("gate", "true")
    timeouts = 0
    async with world.scaler() as scaler:
        acquire = scaler.acquire

        @asynccontextmanager
        async def counted(key: str, *, timeout: timedelta | None) -> AsyncGenerator[Acquisition]:
            nonlocal timeouts
            try:
                async with acquire(key, timeout=timeout) as acquisition:
                    yield acquisition
            except AcquireTimeout:
                timeouts += 1
                if timeouts == 3:
                    world.gate.set()
                raise

        monkeypatch.setattr(scaler, "acquire", counted)
        async with scaler.acquire("warm", timeout=None):
            pass  # The instance exists now, so that the first job gets its slot at once.
        await runner.run(scaler, workers=2, acquire_timeout=timedelta(milliseconds=20))
    assert states(runner) == ["success", "success"]
    assert timeouts >= 3


async def test_stop_lets_running_jobs_finish(world: World) -> None:
    """After `stop` running jobs finish; jobs waiting in the queue or the scaler are canceled."""
    runner = world.runner("gate", "true", "true")
    async with world.scaler() as scaler, anyio.create_task_group() as group:
        async with scaler.acquire("warm"):
            pass
        group.start_soon(lambda: runner.run(scaler, workers=2, acquire_timeout=None))
        await world.begun.wait()
        runner.stop("enough")
        world.gate.set()
    assert states(runner) == ["success", "canceled", "canceled"]
    assert {result.reason for result in runner.results[1:]} == {"enough"}


async def test_cancel_ends_everything_and_removes_directories(world: World) -> None:
    """After `cancel` each run has the given state, and its directory is removed."""
    runner = world.runner("gate", "true")
    async with world.scaler() as scaler, anyio.create_task_group() as group:
        async with scaler.acquire("warm"):
            pass
        group.start_soon(lambda: runner.run(scaler, workers=2, acquire_timeout=None))
        await world.begun.wait()
        runner.cancel(JobState.TIMED_OUT, "time", (JobState.CANCELED, "waited"))
    assert [(result.state.value, result.reason) for result in runner.results] == [
        ("timed_out", "time"),
        ("canceled", "waited"),
    ]
    assert len(world.removals) == 1


async def test_fail_fast(world: World) -> None:
    """Without `keep_going` the first failure cancels all other jobs."""
    runner = world.runner("gate", "fail", "true", keep_going=False)
    async with world.scaler(capacity=2) as scaler:
        await runner.run(scaler, workers=2, acquire_timeout=None)
    assert states(runner) == ["canceled", "failed", "canceled"]


async def test_a_failure_of_the_workspace_is_the_instances(world: World) -> None:
    """The instance gets no further task; retries and later jobs run on others."""
    world.full = {"i-1"}
    runner = world.runner("a", "b", "c", retries=1)
    async with world.scaler() as scaler:
        await runner.run(scaler, workers=1, acquire_timeout=None)
        reasons = {one.id: one.removal_reason for one in scaler.instances()}
    assert states(runner) == ["success"] * 3
    assert [result.instance for result in runner.results] == ["i-2"] * 3
    assert [name for name, _ in world.retries] == ["0-a"]
    assert "mkdir: disk full" in str(reasons["i-1"])


@pytest.mark.parametrize(("local", "instances"), [(True, 1), (False, 2)])
async def test_failed_upload_is_the_instances_unless_it_is_local(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    local: bool,  # noqa: FBT001 -- a parameter of the test
    instances: int,
) -> None:
    """A file that cannot be read here says nothing about the instance."""

    async def fail(connection: FakeConnection, source: Path, destination: str) -> None:
        del connection, source, destination
        await anyio.lowlevel.checkpoint()
        raise TransferFailed("the disk is full", local=local)

    monkeypatch.setattr(FakeConnection, "put", fail)
    (world.folder / "given").touch()
    runner = world.runner("a", "b", upload=["given"])
    async with world.scaler() as scaler:
        await runner.run(scaler, workers=1, acquire_timeout=None)
        assert len(scaler.instances()) == instances
    assert states(runner) == ["system_failure"] * 2


@pytest.mark.parametrize(
    "error", [RecursionError("too deep"), KeyError("x\udcff"), OSError(24, "x")]
)
async def test_a_bug_ends_one_attempt_only(
    world: World, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """The job is a system failure, the log has the place of the bug, and other jobs run."""
    world.bugs["a"] = error
    runner = world.runner("a", "b")
    async with world.scaler() as scaler:
        await runner.run(scaler, workers=1, acquire_timeout=None)
    assert states(runner) == ["system_failure", "success"]
    reason = runner.results[0].reason or ""
    reason.encode()  # It can be stored.
    if isinstance(error, OSError):
        assert "raise `ulimit -n`" in reason
    else:
        assert type(error).__name__ in reason
        assert "test_job_runner.py" in caplog.text
        assert "Traceback" not in caplog.text


async def test_names_that_are_not_utf8_are_escaped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reason that names such a file can be printed and stored."""

    async def special(connection: FakeConnection, pattern: str, budget: object) -> list[str]:
        del connection, pattern, budget
        await anyio.lowlevel.checkpoint()
        raise TransferFailed("a\udcffb\n is not a regular file")

    monkeypatch.setattr(FakeConnection, "glob", special)
    runner = world.runner("true", download=["*"])
    async with world.scaler() as scaler:
        await runner.run(scaler, workers=1, acquire_timeout=None)
    assert states(runner) == ["system_failure"]
    assert "a\\udcffb\\n is not" in (runner.results[0].reason or "")
