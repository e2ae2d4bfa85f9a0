"""Jobs on a real sshd, and what one of them can do to the others."""

from __future__ import annotations

import shlex
from collections import defaultdict
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from ended_processes import gone
from fleeting.connectors.ssh import SSHConnector
from fleeting.testing import FakeInstanceGroup
from fleeting.types import ConnectorSettings
from taskscaler import Settings, Taskscaler
from taskscaler.jobs.job import Job, expand
from taskscaler.jobs.output import OutputMode, Stream, output_factory
from taskscaler.jobs.result import JobState
from taskscaler.jobs.runner import JobRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from fleeting.abc import Connection
    from fleeting.types import ConnectInfo
    from taskscaler.jobs.result import JobResult

pytestmark = pytest.mark.anyio


class World:
    """Two slots on each instance; every instance is the same sshd, over a connection of its own."""

    def __init__(
        self,
        sshd: ConnectInfo,
        folder: Path,
        connector: ConnectorSettings | None = None,
        *,
        capacity: int = 2,
    ) -> None:
        self.folder = folder
        self.output: dict[Stream, bytes] = defaultdict(bytes)
        self.retries: list[tuple[str, str]] = []
        self._sshd = sshd
        self._connector = connector or ConnectorSettings()
        self._capacity = capacity

    async def run(self, *jobs: Job, **keys: Any) -> dict[str, JobResult]:
        """Run jobs to their end; return their results by name."""
        connector = SSHConnector()

        async def connect(info: ConnectInfo) -> Connection:
            here = replace(self._sshd, id=info.id)
            return await connector.connect(replace(here, username=info.username or here.username))

        settings = Settings(
            capacity_per_instance=self._capacity,
            max_instances=2 if self._capacity > 1 else 1,
            update_interval_when_expecting=timedelta(milliseconds=10),
            delete_instances_on_shutdown=True,
        )
        runs = expand(jobs, self.folder, where="test")
        output = output_factory(OutputMode.RAW, self, several=False)
        runner = JobRunner(runs, output, self, **keys)
        group = FakeInstanceGroup()
        own = {group.info.id: self._connector}
        async with Taskscaler([group], settings, connect=connect, connector=own) as scaler:
            await runner.run(scaler, workers=4, acquire_timeout=None)
        return {result.name: result for result in runner.results}

    async def write(self, stream: Stream, data: bytes) -> None:
        """Keep the output of all jobs."""
        self.output[stream] += data

    async def started(self, result: JobResult) -> None:
        """Do nothing."""

    async def retried(self, result: JobResult, reason: str) -> None:
        """Note the reason."""
        self.retries.append((result.name, reason))

    async def finished(self, result: JobResult) -> None:
        """Do nothing."""

    async def resumed(self, results: Sequence[JobResult]) -> None:
        """Do nothing."""


@pytest.fixture
def world(sshd: ConnectInfo, tmp_path: Path) -> World:
    """Return instances and an empty folder."""
    return World(sshd, tmp_path)


async def test_a_job_that_kills_the_server_of_its_connection(world: World) -> None:
    """It ends the other jobs there; they run again elsewhere, as the infrastructure failed them."""
    once = shlex.quote(str(world.folder / "once"))
    victim = Job(
        name="victim",
        retries=1,
        script=[f"if mkdir {once} 2>/dev/null; then sleep 600; fi", "echo survived"],
    )
    killer = Job(
        name="killer",
        script=[
            f"until [ -d {once} ]; do sleep 0.05; done",
            "kill -KILL $(ps -o ppid= $PPID)",
            "sleep 600",
        ],
    )
    results = await world.run(victim, killer)
    assert results["killer"].state is JobState.SYSTEM_FAILURE
    assert (results["victim"].state, results["victim"].attempts) == (JobState.SUCCESS, 2)
    assert [name for name, _ in world.retries] == ["victim"]
    assert "connection" in world.retries[0][1]
    assert world.output[Stream.STDOUT] == b"survived\n"


async def test_a_job_leaves_no_process(world: World) -> None:
    """A process that a job has put into a session of its own ends with the job."""
    pids = world.folder / "pids"
    done = Job(
        name="done",
        script=[
            f"setsid sh -c 'echo $$ >>{shlex.quote(str(pids))}; exec sleep 600' &",
            "sleep 0.2",
        ],
    )
    results = await world.run(done)
    assert results["done"].state is JobState.SUCCESS
    await gone(int(pids.read_text()))


@pytest.mark.parametrize("sessions", [1, 2])
async def test_jobs_with_files_on_a_server_with_few_sessions(
    start_sshd: Callable[..., ConnectInfo], tmp_path: Path, sessions: int
) -> None:
    """Jobs take turns where the server permits hardly any command at the same time."""
    world = World(start_sshd(f"MaxSessions {sessions}"), tmp_path)
    (tmp_path / "given").write_text("given\n")
    jobs = [
        Job(
            name=f"job{number}",
            script=["cat given >made", "sleep 0.2"],
            upload=["given"],
            download=["made"],
        )
        for number in range(5)
    ]
    results = await world.run(*jobs)
    assert [one.reason for one in results.values()] == [None] * 5
    assert all((tmp_path / name / "made").read_text() == "given\n" for name in results)
