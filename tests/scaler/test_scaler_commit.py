"""Commits: records of others, and a store that is slow, hangs, fails or is fenced."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from typing_extensions import override

from fleeting.testing import FakeInstanceGroup, Gate, Reply
from fleeting.types import ConnectInfo
from taskscaler import (
    AcquisitionLost,
    Fenced,
    IllegalEvent,
    ScalerClosed,
    Settings,
    StoreError,
    Taskscaler,
)
from taskscaler.core import ConnectRecord, JobRecord
from taskscaler.runtime.driver import COMMIT
from taskscaler.storage import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskscaler.core import Record

pytestmark = pytest.mark.anyio

DONE = JobRecord("build", "0123", "done", 1, status=0)


class SlowStore(MemoryStore):
    """A store that counts its commits, and can hold or fail them, or never answer.

    Attributes:
        commits: what was committed, one entry for each commit.
    """

    def __init__(self) -> None:
        super().__init__()
        self.commits: list[tuple[Record, ...]] = []
        self.gate: Gate | None = None
        self.error: Exception | None = None

    @override
    async def commit(
        self, epoch: int, put: Sequence[Record], drop: Sequence[tuple[str, str, str]]
    ) -> None:
        if self.gate is not None:
            await self.gate.pass_through()
        if self.error is not None:
            raise self.error
        await super().commit(epoch, put, drop)
        self.commits.append(tuple(put))


async def test_commit_returns_when_records_are_stored() -> None:
    """Records are committed and dropped, and the next scaler on the store gets the rest."""
    group, store = FakeInstanceGroup(), MemoryStore()
    other = JobRecord("test", "4567", "running", 1)
    async with Taskscaler([group], store=store, connect=group.connect) as scaler:
        assert scaler.restored == ()
        await scaler.commit([DONE, other])
        assert store.records[DONE.key] == DONE
        await scaler.commit([], [other.key])
        assert other.key not in store.records
        async with scaler.acquire("a"):
            pass
    async with Taskscaler([group], store=store, connect=group.connect) as scaler:
        assert scaler.restored == (DONE,)


async def test_very_many_changes_are_several_commits() -> None:
    """To gather them all at once would hold the event loop, and none is left out."""
    group, store = FakeInstanceGroup(), SlowStore()
    async with Taskscaler([group], store=store, connect=group.connect) as scaler:
        store.gate = gate = Gate()
        async with anyio.create_task_group() as commits:
            for number in range(2 * COMMIT + 1):
                commits.start_soon(scaler.commit, [JobRecord(f"job-{number}", "", "done", 1)])
            await anyio.wait_all_tasks_blocked()
            gate.open()
    sizes = [len(one) for one in store.commits]
    assert sum(sizes) == 2 * COMMIT + 1
    assert max(sizes) <= COMMIT
    assert len(store.records) == 2 * COMMIT + 1


async def test_concurrent_changes_are_one_commit() -> None:
    """Changes that arrive during a commit are written together in the next one."""
    group, store = FakeInstanceGroup(), SlowStore()
    async with Taskscaler([group], store=store, connect=group.connect) as scaler:
        store.gate = gate = Gate()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(scaler.commit, [JobRecord("first", "", "running", 1)])
            await gate.reached()
            for number in range(5):
                tasks.start_soon(scaler.commit, [JobRecord(str(number), "", "running", 1)])
            await anyio.sleep(1)
            gate.open()
    assert [len(put) for put in store.commits] == [1, 5]


async def test_records_of_the_scaler_are_refused() -> None:
    """Only the scaler itself writes the records of instances and groups."""
    group = FakeInstanceGroup()
    record = ConnectRecord("fake/group", "i-1", None, ConnectInfo("i-1", "fake"))
    async with Taskscaler([group], connect=group.connect) as scaler:
        with pytest.raises(IllegalEvent, match="the scaler itself keeps the records"):
            await scaler.commit([record])


async def test_a_commit_needs_an_open_scaler() -> None:
    """Before entering and after leaving, `commit` raises `ScalerClosed`."""
    group = FakeInstanceGroup()
    scaler = Taskscaler([group], connect=group.connect)
    with pytest.raises(ScalerClosed):
        await scaler.commit([DONE])
    async with scaler:
        pass
    with pytest.raises(ScalerClosed):
        await scaler.commit([DONE])


async def test_a_cancelled_commit_does_not_affect_others() -> None:
    """Its records may be written; later commits are written, and no receipt is left."""
    group, store = FakeInstanceGroup(), SlowStore()
    async with Taskscaler([group], store=store, connect=group.connect) as scaler:
        store.gate = gate = Gate()
        with anyio.move_on_after(5) as scope:
            await scaler.commit([DONE])
        assert scope.cancelled_caught
        gate.open()
        await scaler.commit([JobRecord("other", "", "running", 1)])
        assert scaler._runner._receipts == set()


async def test_a_failing_store_fails_the_commits_that_wait_for_it() -> None:
    """Waiting callers get `ScalerClosed`, and the store's error comes out of the block."""
    group, store = FakeInstanceGroup(), SlowStore()
    scaler = Taskscaler([group], store=store, connect=group.connect)
    ends: list[str] = []

    async def commit() -> None:
        with pytest.raises(ScalerClosed, match="before the store confirmed"):
            await scaler.commit([DONE])
        ends.append("told")

    async def run() -> None:
        with pytest.raises(StoreError, match="the disk is full"):
            async with scaler:
                opened.set()
                await anyio.sleep_forever()
        ends.append("out")

    opened = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await opened.wait()
        store.error = StoreError("the disk is full")
        tasks.start_soon(commit)
    assert sorted(ends) == ["out", "told"]


async def test_a_store_that_hangs_ends_the_scaler() -> None:
    """After a minute without an answer, the error names the store and what to check."""
    group, store = FakeInstanceGroup(), SlowStore()
    before = 0.0
    with pytest.raises(StoreError, match="SlowStore did not confirm a commit within 60s"):
        async with Taskscaler([group], store=store, connect=group.connect) as scaler:
            store.gate = Gate()
            before = anyio.current_time()
            await scaler.commit([DONE])
    assert anyio.current_time() - before == pytest.approx(60)


async def test_a_fenced_scaler_stops_at_once() -> None:
    """Calls in progress are cancelled, no others are made, and tasks lose their slots."""
    group, store, gate = FakeInstanceGroup(), SlowStore(), Gate()
    group.script("increase", Reply(), Reply(before=gate))
    scaler = Taskscaler([group], Settings(), store=store, connect=group.connect)
    ends: list[str] = []

    async def hold() -> None:
        with pytest.raises(AcquisitionLost, match="another one took over"):
            async with scaler.acquire("holder"):
                held.set()
                await anyio.sleep_forever()
        ends.append("lost")

    async def wait() -> None:
        with pytest.raises(ScalerClosed, match="another one took over"):
            async with scaler.acquire("waiter"):
                pytest.fail("the body must not run")
        ends.append("refused")

    async def run() -> None:
        with pytest.raises(Fenced, match="another one took over"):
            async with scaler:
                opened.set()
                await anyio.sleep_forever()
        ends.append("out")

    calls = 0
    held, opened = anyio.Event(), anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await opened.wait()
        tasks.start_soon(hold)
        await held.wait()
        tasks.start_soon(wait)
        await gate.reached()
        calls = len(group.calls)
        store.error = Fenced("another one took over")
        with pytest.raises(ScalerClosed):
            await scaler.commit([DONE])
    assert sorted(ends) == ["lost", "out", "refused"]
    gate.open()
    assert group.size == 1, "the increase went on"
    assert len(group.calls) == calls
    assert group.connector.connections == []


async def test_a_fenced_scaler_raises_only_that_error() -> None:
    """The errors of tasks that lose their slots because of it are left out."""
    group, store = FakeInstanceGroup(), SlowStore()

    async def hold(key: str) -> None:
        async with scaler.acquire(key):
            if key == "b":
                store.error = Fenced("another one took over")
            async with scaler.acquire(f"more than {key}"):
                await anyio.sleep_forever()

    with pytest.raises(Fenced, match="another one took over"):
        async with Taskscaler([group], store=store, connect=group.connect) as scaler:
            async with anyio.create_task_group() as tasks:
                for key in "ab":
                    tasks.start_soon(hold, key)
