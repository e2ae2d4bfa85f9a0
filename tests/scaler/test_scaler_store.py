"""The scaler stores before it acts, and continues after a restart."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest
from typing_extensions import override

from fleeting.testing import FakeInstanceGroup, Gate, Reply
from fleeting.types import State
from taskscaler import (
    AcquireTimeout,
    AcquisitionLost,
    Fenced,
    Policy,
    Settings,
    StoreError,
    Taskscaler,
)
from taskscaler.core import InstanceRecord, OperationRecord, Record
from taskscaler.storage import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.anyio

KEEP_ONE = Policy(idle_count=1, idle_time=timedelta(days=1))


class GatedStore(MemoryStore):
    """A store whose commits can be held, or made to fail.

    Attributes:
        gate: holds the commits while it is not None.
        error: what they raise while it is not None.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gate: Gate | None = None
        self.error: BaseException | None = None

    @override
    async def commit(
        self, epoch: int, put: Sequence[Record], drop: Sequence[tuple[str, str, str]]
    ) -> None:
        if self.gate is not None:
            await self.gate.pass_through()
        if self.error is not None:
            raise self.error
        await super().commit(epoch, put, drop)


async def until_ready(scaler: Taskscaler, count: int = 1) -> None:
    """Wait until so many instances are ready."""
    while scaler.capacity().instances["ready"] < count:
        await anyio.sleep(1)


def records_of(store: MemoryStore, kind: type[Record]) -> list[Record]:
    """Return the records of one kind."""
    return [record for record in store.records.values() if isinstance(record, kind)]


async def test_an_increase_is_stored_before_it_is_requested() -> None:
    """The group is not called before the store has confirmed the operation."""
    group, store = FakeInstanceGroup(), GatedStore()
    store.gate = gate = Gate()
    seen: list[list[Record]] = []
    async with (
        Taskscaler([group], store=store, connect=group.connect) as scaler,
        anyio.create_task_group() as tasks,
    ):

        async def run() -> None:
            async with scaler.acquire("a"):
                pass

        tasks.start_soon(run)
        await gate.reached()
        await anyio.sleep(30)
        assert group.calls_of("increase") == []
        enter = group.increase

        async def increase(count: int, operation: str) -> object:
            seen.append(records_of(store, OperationRecord))
            return await enter(count, operation)

        group.increase = increase  # type: ignore[method-assign, assignment] # pyright: ignore[reportAttributeAccessIssue] - looks at the store at that moment
        gate.open()
    ((record,),) = seen
    assert record.key[2] == group.calls_of("increase")[0].operation


async def test_a_slot_is_granted_after_the_store_has_confirmed_it() -> None:
    """Until the store has confirmed a grant, the task waits."""
    group, store = FakeInstanceGroup(), GatedStore()
    settings = Settings(policy=KEEP_ONE)
    async with (
        Taskscaler([group], settings, store=store, connect=group.connect) as scaler,
        anyio.create_task_group() as tasks,
    ):
        await until_ready(scaler)
        entered = anyio.Event()

        async def run() -> None:
            async with scaler.acquire("a"):
                (record,) = records_of(store, InstanceRecord)
                assert isinstance(record, InstanceRecord)
                assert record.tasks == ("a",)
                entered.set()

        store.gate = gate = Gate()
        tasks.start_soon(run)
        await gate.reached()
        await anyio.sleep(30)
        assert not entered.is_set()
        gate.open()
        await entered.wait()


async def test_a_timeout_while_the_store_is_slow_gives_the_slot_back() -> None:
    """A slot that is found but not confirmed by the store is free again after the timeout."""
    group, store = FakeInstanceGroup(), GatedStore()
    settings = Settings(policy=KEEP_ONE, max_instances=1)
    async with Taskscaler([group], settings, store=store, connect=group.connect) as scaler:
        await until_ready(scaler)
        store.gate = gate = Gate()
        with pytest.raises(AcquireTimeout, match="the store has not confirmed it yet"):
            async with scaler.acquire("a", timeout=timedelta(seconds=5)):
                pytest.fail("the body must not run")
        assert scaler.capacity().slots_used == 0
        gate.open()
        async with scaler.acquire("a"):
            pass


async def test_a_slot_that_is_lost_before_it_is_granted_is_not_entered() -> None:
    """If the instance fails while the store is slow, entering raises `AcquisitionLost`."""
    group, store = FakeInstanceGroup(), GatedStore()
    settings = Settings(
        capacity_per_instance=2,
        policy=Policy(idle_count=2),
        max_instances=1,
        probe_after=timedelta(days=1),
    )
    ends: dict[str, BaseException] = {}

    async def run(key: str) -> None:
        try:
            async with scaler.acquire(key):
                assert key == "first"
                await anyio.sleep_forever()
        except AcquisitionLost as error:
            ends[key] = error

    async with Taskscaler([group], settings, store=store, connect=group.connect) as scaler:
        await until_ready(scaler)
        listing = Gate()
        group.script("update", Reply(before=listing))
        await listing.reached()
        store.gate = gate = Gate()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, "first")
            await gate.reached()
            # The grant of the second task and its loss now wait for the same commit.
            tasks.start_soon(run, "second")
            while scaler.capacity().slots_used < 2:
                await anyio.lowlevel.checkpoint()
            group.set_state("i-1", State.FAILED, "it burned down")
            listing.open()
            while scaler.capacity().slots_used:
                await anyio.sleep(1)
            gate.open()
    assert sorted(ends) == ["first", "second"]
    assert all("it burned down" in str(end) for end in ends.values())


@pytest.mark.parametrize("error", [Fenced("another one took over"), StoreError("the disk is full")])
async def test_a_failing_store_ends_the_scaler(error: Exception) -> None:
    """The error of the store cancels the body and comes out of the block unwrapped."""
    group, store = FakeInstanceGroup(), GatedStore()
    reached: list[str] = []
    with pytest.raises(type(error)) as caught:
        async with Taskscaler([group], store=store, connect=group.connect) as scaler:
            async with scaler.acquire("a") as acquisition, acquisition.connect():
                reached.append("the body")
                store.error = error
                async with scaler.acquire("b"):
                    pytest.fail("the body must not run")
            pytest.fail("the body was not cancelled")
    assert caught.value is error
    assert reached == ["the body"]
    assert group.connector.connections == [], "a failing store must not leave connections open"


async def test_a_store_that_fails_during_the_shutdown_ends_it_at_once() -> None:
    """Leaving does not wait for a shutdown that cannot end."""
    group, store = FakeInstanceGroup(), GatedStore()
    settings = Settings(delete_instances_on_shutdown=True)
    before = 0.0
    with pytest.raises(StoreError, match="the disk is full") as caught:
        async with Taskscaler([group], settings, store=store, connect=group.connect) as scaler:
            async with scaler.acquire("a"):
                pass
            before = anyio.current_time()
            store.error = StoreError("the disk is full")
    assert anyio.current_time() - before < settings.shutdown_timeout.total_seconds()
    assert caught.value is store.error


async def test_the_cause_of_a_store_error_is_kept() -> None:
    """Unwrapping an error from its groups keeps its cause."""
    group, store = FakeInstanceGroup(), GatedStore()
    store.error = StoreError("the disk is full")
    store.error.__cause__ = OSError(28, "No space left on device")
    with pytest.raises(StoreError) as caught:
        async with Taskscaler([group], store=store, connect=group.connect) as scaler:
            async with scaler.acquire("a"):
                pytest.fail("the body must not run")
    assert isinstance(caught.value.__cause__, OSError)


async def test_a_second_scaler_fences_the_first() -> None:
    """When another scaler loads the same store, the first stops at its next commit."""
    group, store = FakeInstanceGroup(), MemoryStore()
    with pytest.raises(Fenced, match="another scaler took over this store"):
        async with Taskscaler([group], store=store, connect=group.connect) as scaler:
            await store.load()
            async with scaler.acquire("a"):
                pytest.fail("the body must not run")
    assert group.calls_of("increase") == []


async def test_a_restart_adopts_the_instances() -> None:
    """The next scaler on the same store uses the same instances and their use counts."""
    group, store = FakeInstanceGroup(), MemoryStore()
    settings = Settings(max_use_count=3, max_instances=1, policy=KEEP_ONE)
    used: list[str] = []
    for keys in ("ab", "cd"):
        async with Taskscaler([group], settings, store=store, connect=group.connect) as scaler:
            for key in keys:
                async with scaler.acquire(key) as acquisition:
                    used.append(acquisition.instance)
    assert used[:3] == [used[0]] * 3
    assert used[3] != used[0]
    assert group.largest == 1


async def test_an_instance_whose_task_was_interrupted_is_replaced() -> None:
    """A task may still run there after its scaler was killed."""
    group, store = FakeInstanceGroup(), MemoryStore()
    settings = Settings(max_instances=1)
    async with Taskscaler([group], settings, store=store, connect=group.connect) as scaler:
        async with scaler.acquire("a"):
            snapshot = dict(store.records)
    # As if the process had died inside the body.
    crashed = MemoryStore()
    crashed.records.update(snapshot)
    (before,) = records_of(crashed, InstanceRecord)
    async with Taskscaler([group], settings, store=crashed, connect=group.connect) as scaler:
        async with scaler.acquire("b") as acquisition:
            assert acquisition.instance != before.key[2]
        assert "it ran tasks when the scaler ended" in str(scaler.instances()[0].removal_reason)
    assert group.largest == 1


async def test_an_operation_of_unknown_outcome_is_settled_by_the_listing() -> None:
    """After a crash during an increase, its instances are ours, and no more are requested."""
    group, store = FakeInstanceGroup(), MemoryStore()
    settings = Settings(max_instances=1)
    group.script("increase", Reply(after=Gate()))
    with anyio.CancelScope() as scope:
        async with Taskscaler([group], settings, store=store, connect=group.connect) as scaler:
            async with anyio.create_task_group() as tasks:

                async def run() -> None:
                    async with scaler.acquire("a"):
                        pytest.fail("the body must not run")

                tasks.start_soon(run)
                await group.until(lambda: group.size == 1)
                scope.cancel()
    assert [
        one.count for one in records_of(store, OperationRecord) if isinstance(one, OperationRecord)
    ] == [1]
    async with Taskscaler([group], settings, store=store, connect=group.connect) as scaler:
        async with scaler.acquire("b") as acquisition:
            assert acquisition.instance == "i-1"
    assert len(group.calls_of("increase")) == 1
    assert records_of(store, OperationRecord) == []


async def test_a_late_success_of_the_predecessor_does_not_make_the_successor_ready() -> None:
    """If it ends before the store has confirmed the replacement, it is ignored."""
    group, store = FakeInstanceGroup(), GatedStore()
    connecting = Gate()
    group.script("connect", Reply(before=connecting))
    settings = Settings(policy=KEEP_ONE)
    async with Taskscaler([group], settings, store=store, connect=group.connect) as scaler:
        await connecting.reached()
        store.gate = gate = Gate()
        group.recreate("i-1")
        await gate.reached()
        connecting.open()
        await anyio.sleep(5)
        assert scaler.capacity().instances["ready"] == 0
        gate.open()
        await until_ready(scaler)
        assert len(group.calls_of("connect")) == 2


async def test_a_slot_given_back_at_the_end_is_stored() -> None:
    """A restart does not mistake the task of an instance for interrupted if it ended cleanly."""
    group, store, gate = FakeInstanceGroup(), GatedStore(), Gate()
    settings = Settings(capacity_per_instance=2, policy=KEEP_ONE)

    async def open_gate() -> None:
        await anyio.sleep(30)
        gate.open()

    async with (
        anyio.create_task_group() as tasks,
        Taskscaler([group], settings, store=store, connect=group.connect) as scaler,
    ):
        async with scaler.acquire("a"):
            store.gate = gate
            with anyio.move_on_after(1):
                async with scaler.acquire("b"):
                    pytest.fail("the body must not run")
        tasks.start_soon(open_gate)
    (record,) = records_of(store, InstanceRecord)
    assert isinstance(record, InstanceRecord)
    assert record.tasks == ()


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_cancellation_inside_the_store_is_an_error() -> None:
    """On asyncio, a cancelled inner task of a store does not end the scaler silently."""
    group, store = FakeInstanceGroup(), GatedStore()
    store.error = asyncio.CancelledError("an inner task of the store")
    with pytest.raises(RuntimeError, match="cancelled from inside because of a bug in its store"):
        async with (
            Taskscaler([group], store=store, connect=group.connect) as scaler,
            scaler.acquire("a"),
        ):
            pytest.fail("the body must not run")
