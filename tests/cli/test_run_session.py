"""A run in this process, on a fake group."""

from __future__ import annotations

import json
import resource
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from fleeting.errors import PermissionDenied, ProviderError, Throttled
from fleeting.testing import FakeConfig, FakeProvider
from fleeting.types import ConnectorSettings, GroupInfo
from taskscaler import Settings, StoreError
from taskscaler.cli.opening import WorkerLimit, worker_limit
from taskscaler.cli.plan import GroupPlan, Plan
from taskscaler.cli.session import run_session
from taskscaler.core import InstanceRecord, Rule
from taskscaler.jobs.job import Job, expand
from taskscaler.jobs.output import OutputMode
from taskscaler.storage import MemoryStore

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _lock_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the locks of the fake group apart from those of other tests."""
    monkeypatch.setenv("FLEETING_LOCK_DIR", str(tmp_path / "locks"))


def plan_of(folder: Path, provider: FakeProvider) -> Plan:
    """Return a plan of two jobs on an instance that never boots, with a timeout of 0.5 s."""
    return Plan(
        runs=expand([Job(name="job", script=["true"], count=2)], folder, where="test"),
        groups=(
            GroupPlan(
                name="1",
                provider=provider,
                plugin_config=FakeConfig(boot_updates=None),
                connector=ConnectorSettings(),
            ),
        ),
        settings=Settings(
            max_instances=1,
            update_interval_when_expecting=timedelta(seconds=0.02),
            delete_instances_on_shutdown=True,
        ),
        acquire_timeout=timedelta(minutes=1),
        output=OutputMode.PREFIX,
        report=None,
        keep_going=True,
        timeout=timedelta(seconds=0.5),
    )


def test_waiting_run_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """While no job runs, messages with numbers say what the jobs wait for."""
    monkeypatch.setattr("taskscaler.cli.session._EXPLAIN_SECONDS", 0.05)
    provider = FakeProvider()
    assert run_session(plan_of(tmp_path, provider)) == 3
    messages = capfd.readouterr().err
    assert "still waiting: 1 task waits for a slot" in messages
    assert "1 of at most 1 instance (1 creating)" in messages
    assert provider.groups[0].size == 0


def test_group_that_does_not_open_is_tried_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A failure to open a group that can pass is told, and tried again until the timeout."""
    provider = FakeProvider()
    soon = timedelta(milliseconds=10)
    provider.errors += [Throttled("slow down", retry_after=soon), ProviderError("no answer")]
    plan = plan_of(tmp_path, provider)
    plan = replace(plan, runs=[], settings=replace(plan.settings, backoff=soon))
    assert run_session(plan) == 0
    messages = capfd.readouterr().err
    assert "warning: group '1' does not open: slow down; trying again in 0s\n" in messages
    assert "warning: group '1' does not open: no answer; trying again in" in messages
    assert len(provider.groups) == 1


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionDenied("no such key"), "error: no such key\n"),
        (Throttled("slow down", retry_after=timedelta(hours=1)), "error: slow down\n"),
        (
            Throttled("slow down", retry_after=timedelta(minutes=1)),
            "--timeout of 0.5s expired before the instance groups were open: group '1' does not",
        ),
    ],
)
def test_group_that_never_opens(
    tmp_path: Path, error: ProviderError, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A failure that does not pass in time ends the run with its reason."""
    provider = FakeProvider()
    provider.errors.append(error)
    assert run_session(plan_of(tmp_path, provider)) == 3
    assert message in capfd.readouterr().err


def test_instances_left_after_a_store_failure_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without a store no instance is removed, so the error names those that are left."""
    commit = MemoryStore.commit

    async def full(store: MemoryStore, *records: Any) -> None:
        if any(isinstance(record, InstanceRecord) for record in store.records.values()):
            raise StoreError("the disk is full")
        await commit(store, *records)

    monkeypatch.setattr(MemoryStore, "commit", full)
    provider = FakeProvider()
    assert run_session(plan_of(tmp_path, provider)) == 3
    messages = capfd.readouterr().err
    assert (
        "error: the disk is full; these instances were not removed and may cost money: fake/"
        in messages
    )
    assert provider.groups[0].size == 1


def test_only_kept_instances_are_counted_as_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """An instance that is used up is removed, or else named; the others are counted."""
    began = datetime(2026, 3, 1, tzinfo=UTC)
    store = MemoryStore()
    for record in (
        InstanceRecord("fake/group", "stays", None, began, 0, ()),
        InstanceRecord("fake/group", "goes", None, began, 1, (), Rule.USED_UP, "it is used up"),
    ):
        store.records[record.key] = record
    monkeypatch.setattr("taskscaler.cli.opening.MemoryStore", lambda: store)
    plan = plan_of(tmp_path, FakeProvider())
    settings = replace(plan.settings, delete_instances_on_shutdown=False)
    assert run_session(replace(plan, runs=[], settings=settings)) == 0
    messages = capfd.readouterr().err
    assert "1 instance was kept (delete_instances_on_shutdown = false)" in messages
    assert "instance fake/group/goes is not removed yet and may cost money (it is" in messages


@pytest.mark.parametrize(
    ("limits", "sizes", "jobs", "expected"),
    [
        ((2, 0, 0), (None, None), {}, (8, "held back by max_instances = 2 (8 slots)")),
        (
            (0, 1, 2),
            (None, None),
            {},
            (12, "held back by the sizes of all groups together of 3 (12 slots)"),
        ),
        (
            (0, 1, 0),
            (None, 5),
            {},
            (24, "held back by the sizes of all groups together of 6 (24 slots)"),
        ),
        ((0, 1, 0), (None, None), {}, (100, "")),
        ((0, 1, 0), (None, None), {"limit": 7, "concurrent": 9}, (7, "limit = 7")),
        ((1, 0, 0), (None, None), {"concurrent": 2}, (2, "concurrent = 2")),
    ],
)
def test_worker_limit(
    tmp_path: Path,
    limits: tuple[int, int, int],
    sizes: tuple[int | None, int | None],
    jobs: dict[str, int],
    expected: tuple[int, str],
) -> None:
    """There are as many workers as slots, or as the file permits; else one for each run."""
    total, *group_limits = limits
    plan = plan_of(tmp_path, FakeProvider())
    settings = replace(plan.settings, max_instances=total, capacity_per_instance=4)
    groups = tuple(replace(plan.groups[0], max_instances=limit) for limit in group_limits)
    plan = replace(plan, runs=plan.runs * 50, settings=settings, groups=groups, job_limits=jobs)
    infos = [GroupInfo(id=f"group-{size}", max_size=size) for size in sizes]
    assert worker_limit(plan, infos) == WorkerLimit(*expected)


def test_limit_of_open_files_is_raised(tmp_path: Path) -> None:
    """The soft limit becomes the hard one, so that many jobs do not run out of files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(200, soft), hard))
    try:
        run_session(plan_of(tmp_path, FakeProvider()))
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_bug_of_a_group_is_in_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """An unexpected error of the run as a whole is one sentence; all jobs are in the report."""

    def broken(provider: FakeProvider, *words: object) -> None:
        del provider, words
        raise KeyError("surprise")

    monkeypatch.setattr(FakeProvider, "open", broken)
    report = tmp_path / "report.json"
    assert run_session(replace(plan_of(tmp_path, FakeProvider()), report=report)) == 3
    messages = capfd.readouterr().err
    assert "unexpected error, a bug: KeyError: 'surprise'; at cli/test_run_session.py" in messages
    assert "Traceback" not in messages
    jobs = json.loads(report.read_text())["jobs"]
    assert [job["state"] for job in jobs] == ["system_failure"] * 2
