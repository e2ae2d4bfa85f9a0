"""A run in this very process, on a group in memory."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from fleeting.testing import FakeConfig, FakeProvider
from fleeting.types import ConnectorSettings
from taskscaler import Settings, StoreError
from taskscaler.cli.plan import GroupPlan, Plan
from taskscaler.cli.session import run_session
from taskscaler.core import InstanceRecord, Rule
from taskscaler.jobs import Job, OutputMode, expand
from taskscaler.storage import MemoryStore

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def plan_of(folder: Path, provider: FakeProvider) -> Plan:
    """Return the plan of a run of two jobs on one instance that never boots, for half a second."""
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


def test_a_run_that_waits_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """While nothing runs, lines with numbers tell what the jobs are waiting for."""
    monkeypatch.setattr("taskscaler.cli.session._WHY_SECONDS", 0.05)
    provider = FakeProvider()
    assert run_session(plan_of(tmp_path, provider)) == 3
    told = capfd.readouterr().err
    assert "still waiting: 1 task waits for a slot" in told
    assert "1 of at most 1 instances (1 creating)" in told
    assert provider.groups[0].size == 0


def test_what_is_left_when_the_store_fails_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing may be removed any more, so the error says what somebody has to look after."""
    commit = MemoryStore.commit

    async def full(store: MemoryStore, *records: Any) -> None:
        if any(isinstance(record, InstanceRecord) for record in store.records.values()):
            raise StoreError("the disk is full")
        await commit(store, *records)

    monkeypatch.setattr(MemoryStore, "commit", full)
    provider = FakeProvider()
    assert run_session(plan_of(tmp_path, provider)) == 3
    told = capfd.readouterr().err
    assert "error: the disk is full; instances are left that may cost money: fake/group/" in told
    assert provider.groups[0].size == 1


def test_only_instances_that_stay_are_said_to_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """One that was used up is going, whatever the file says of the others."""
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
    assert "1 instance stays, as the file says" in capfd.readouterr().err
