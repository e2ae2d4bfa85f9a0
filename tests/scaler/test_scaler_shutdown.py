"""Shutdown: leaving the block of a scaler."""

from __future__ import annotations

from datetime import timedelta

import anyio
import pytest
from anyio.lowlevel import checkpoint

from fleeting.errors import ProviderError
from fleeting.testing import FakeInstanceGroup, Gate, Reply
from fleeting.types import State
from taskscaler import AcquisitionLost, InstancesLeft, Policy, ScalerClosed, Settings, Taskscaler

pytestmark = pytest.mark.anyio

LAZY = Policy(idle_time=timedelta(hours=10))
CLEAN = Settings(delete_instances_on_shutdown=True, policy=LAZY)
STUBBORN = Reply(error=ProviderError("not now"))


async def test_instances_that_cannot_be_removed_are_named() -> None:
    """If removals never succeed, leaving ends after the retries and names the instances."""
    group = FakeInstanceGroup()
    group.always("decrease", STUBBORN)
    before = 0.0
    with pytest.raises(InstancesLeft, match="fake/group/i-1") as caught:
        async with Taskscaler([group], CLEAN, connect=group.connect) as scaler:
            async with scaler.acquire("a"):
                pass
            before = anyio.current_time()
    assert anyio.current_time() - before < 120
    assert len(group.calls_of("decrease")) == 1 + CLEAN.shutdown_deletion_retries
    assert caught.value.instances == ("fake/group/i-1",)
    assert group.connector.connections == []


async def test_an_instance_that_the_cloud_is_removing_is_not_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A removal that has begun and takes longer than the shutdown is told, and is not a failure."""
    group = FakeInstanceGroup(removal_updates=None)
    async with Taskscaler([group], CLEAN, connect=group.connect) as scaler:
        async with scaler.acquire("a"):
            pass
    assert [one.state for one in group.listing.instances] == [State.DELETING]
    assert "has begun to remove fake/group/i-1 and has not ended it within 0:02:00" in caplog.text


async def test_a_used_up_instance_is_removed_although_the_others_are_kept() -> None:
    """Nothing would use it again, so leaving waits for its removal, and only for that."""
    group = FakeInstanceGroup(removal_updates=2)
    kept = Settings(max_use_count=1, policy=Policy(idle_count=1, idle_time=timedelta(hours=10)))
    async with Taskscaler([group], kept, connect=group.connect) as scaler:
        async with scaler.acquire("a") as acquisition:
            used = acquisition.instance
    ids = [one.id for one in group.listing.instances]
    assert used not in ids
    assert used in {one.id for one in scaler.instances() if one.removed_at is not None}


async def test_a_used_up_instance_that_cannot_be_removed_does_not_hold_up_the_end() -> None:
    """After the retries of a shutdown it is left, without an error: instances are kept."""
    group = FakeInstanceGroup()
    group.always("decrease", STUBBORN)
    kept = Settings(max_use_count=1, policy=LAZY)
    async with Taskscaler([group], kept, connect=group.connect) as scaler:
        async with scaler.acquire("a"):
            pass
    assert len(group.calls_of("decrease")) == 1 + kept.shutdown_deletion_retries
    [left] = [one for one in scaler.instances() if one.removed_at is None]
    assert left.removal_reason == "its use count is reached"


@pytest.mark.parametrize(("count", "more"), [(1, ""), (12, ", ...")])
async def test_instances_of_others_are_named_at_the_end(
    caplog: pytest.LogCaptureFixture, count: int, more: str
) -> None:
    """They are left alone, and cost money, so the end of the scaler tells of them."""
    group = FakeInstanceGroup()
    await group.increase(count, "by hand")
    async with Taskscaler([group], CLEAN, connect=group.connect) as scaler:
        async with scaler.acquire("a"):
            pass
    assert len(group.listing.instances) == count
    said = "instance that" if count == 1 else "instances that"
    assert f"{count} {said} this scaler did not create may cost money: fake/group/" in caplog.text
    assert f"{more}; see unknown_instances" in caplog.text


async def test_instances_that_may_still_appear_are_counted() -> None:
    """Instances that were accepted but never listed count as left."""
    group = FakeInstanceGroup(pending_updates=None)
    with pytest.raises(InstancesLeft, match="1 that were requested and may still appear"):
        async with Taskscaler([group], CLEAN, connect=group.connect) as scaler:
            with anyio.move_on_after(60):
                async with scaler.acquire("a"):
                    pytest.fail("the body must not run")


async def test_an_exception_of_the_body_has_a_note_about_instances_left() -> None:
    """Instances that are left do not replace the exception of the body or its cause."""
    group = FakeInstanceGroup()
    group.always("decrease", STUBBORN)
    mine = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        async with Taskscaler([group], CLEAN, connect=group.connect) as scaler:
            async with scaler.acquire("a"):
                raise mine from KeyError("why")
    assert caught.value is mine
    assert isinstance(mine.__cause__, KeyError)
    assert any("i-1; remove" in note for note in mine.__notes__)


async def test_an_exception_group_of_the_body_stays_a_group() -> None:
    """A group with one exception is not unwrapped."""
    group = FakeInstanceGroup()
    with pytest.raises(ExceptionGroup) as caught:
        async with Taskscaler([group], CLEAN, connect=group.connect):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(fail)
    (inner,) = caught.value.exceptions
    assert isinstance(inner, ValueError)


async def test_the_context_of_an_exception_of_the_body_is_kept() -> None:
    """An exception that leaves the block keeps its `__context__`."""
    group = FakeInstanceGroup()
    with pytest.raises(ValueError, match="mine") as caught:
        async with Taskscaler([group], CLEAN, connect=group.connect):
            try:
                dict[str, str]()["missing"]
            finally:
                raise ValueError("mine")
    assert isinstance(caught.value.__context__, KeyError)
    assert not caught.value.__suppress_context__


async def fail() -> None:
    """Raise an error while another one is handled."""
    await checkpoint()
    raise ValueError("mine")


async def test_a_cancellation_from_outside_still_removes_the_instances() -> None:
    """A scaler that is cancelled removes its instances before it ends."""
    group = FakeInstanceGroup(removal_updates=3)
    with anyio.CancelScope() as scope:
        async with (
            Taskscaler([group], CLEAN, connect=group.connect) as scaler,
            scaler.acquire("a"),
        ):
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert group.size == 0
    assert group.connector.connections == []


async def test_a_cancellation_during_an_increase_leaks_nothing() -> None:
    """Instances of an increase in progress are removed, although no task waits any more."""
    group = FakeInstanceGroup(pending_updates=1, boot_updates=1)
    group.script("increase", Reply(after=timedelta(seconds=20)))
    with anyio.CancelScope() as scope:
        async with (
            Taskscaler([group], CLEAN, connect=group.connect) as scaler,
            anyio.create_task_group() as tasks,
        ):

            async def cancel() -> None:
                await group.until(lambda: group.size == 1)
                scope.cancel()

            tasks.start_soon(cancel)
            async with scaler.acquire("a"):
                pytest.fail("the body must not run")
    assert scope.cancelled_caught
    assert group.size == 0
    assert len(group.calls_of("increase")) == 1


async def test_a_cancellation_does_not_interrupt_a_shutdown() -> None:
    """Instances are removed even if the cancellation comes during the removal."""
    group = FakeInstanceGroup(removal_updates=5)
    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            async with (
                Taskscaler([group], CLEAN, connect=group.connect) as scaler,
                scaler.acquire("a"),
            ):
                pass

        tasks.start_soon(run)
        await group.until(lambda: bool(group.calls_of("decrease")))
        tasks.cancel_scope.cancel()
    assert group.size == 0


async def test_a_hanging_call_delays_leaving_by_the_timeout_at_most() -> None:
    """If a call never returns, leaving takes the `shutdown_timeout`."""
    group = FakeInstanceGroup()
    group.always("decrease", Reply(before=Gate()))
    before = 0.0
    with pytest.raises(InstancesLeft):
        async with Taskscaler([group], CLEAN, connect=group.connect) as scaler:
            async with scaler.acquire("a"):
                pass
            before = anyio.current_time()
    assert anyio.current_time() - before == pytest.approx(120)


async def test_leaving_at_once_is_legal() -> None:
    """An empty body creates no instance and leaves none."""
    group = FakeInstanceGroup()
    async with Taskscaler([group], CLEAN, connect=group.connect):
        pass
    settings = Settings(shutdown_timeout=timedelta(0))
    async with Taskscaler([group], settings, connect=group.connect):
        pass
    assert group.calls_of("increase") == []


@pytest.mark.parametrize("remove", [False, True])
async def test_tasks_outside_of_the_block_end_with_the_scaler(remove: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Tasks outside of the block lose their slots, or are refused if they wait."""
    group = FakeInstanceGroup()
    settings = Settings(delete_instances_on_shutdown=remove, max_instances=1)
    ends: dict[str, type[BaseException]] = {}
    scaler = Taskscaler([group], settings, connect=group.connect)
    closing = anyio.Event()

    async def run(key: str) -> None:
        try:
            async with scaler.acquire(key, timeout=None):
                await anyio.sleep_forever()
        except (AcquisitionLost, ScalerClosed) as error:
            ends[key] = type(error)

    async def hold_open() -> None:
        async with scaler:
            opened.set()
            await closing.wait()

    opened = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hold_open)
        await opened.wait()
        tasks.start_soon(run, "holder")
        while not scaler.capacity().slots_used:
            await anyio.sleep(1)
        tasks.start_soon(run, "waiter")
        while not scaler.capacity().waiting:
            await checkpoint()
        closing.set()
    await run("late")
    assert ends == {"holder": AcquisitionLost, "waiter": ScalerClosed, "late": ScalerClosed}
    assert list(scaler._runner.claims) == []


async def test_ended_tasks_and_bygone_instances_leave_nothing_but_history() -> None:
    """After 2,000 tasks and 100 instances, the internal tables are empty."""
    group = FakeInstanceGroup()
    settings = Settings(capacity_per_instance=4, max_instances=2, policy=LAZY)
    async with Taskscaler([group], settings, connect=group.connect) as scaler:

        async def run(worker: int) -> None:
            for number in range(250):
                async with (
                    scaler.acquire(f"{worker}/{number}") as acquisition,
                    acquisition.connect(),
                ):
                    await checkpoint()

        async with anyio.create_task_group() as tasks:
            for worker in range(8):
                tasks.start_soon(run, worker)
        runner, connections = scaler._runner, scaler._connections
        assert sum(one.tasks for one in scaler.instances()) == 2000
        assert list(runner.claims) == []
        assert runner._effect_tasks._checks == {}
        assert len(connections._shared) == group.size
        assert len(group.connector.connections) == group.size

    settings = Settings(max_use_count=1)
    group = FakeInstanceGroup()
    async with Taskscaler([group], settings, connect=group.connect) as scaler:
        for number in range(100):
            async with scaler.acquire(str(number)) as acquisition, acquisition.connect():
                pass
        await group.until(lambda: group.size == 0)
        await anyio.sleep(60)
        runner, connections = scaler._runner, scaler._connections
        assert len(scaler.instances()) == 100
        assert list(runner.claims) == []
        assert (runner._effect_tasks._checks, connections._shared) == ({}, {})
        assert len(runner._outbox) == 0
    assert group.connector.connections == []


async def test_a_reservation_during_a_shutdown_raises_scaler_closed() -> None:
    """It does not raise `NoCapacity`, which would mean that trying later could help."""
    group, gate = FakeInstanceGroup(), Gate()
    group.script("decrease", Reply(before=gate))
    scaler = Taskscaler([group], CLEAN, connect=group.connect)

    async def ask_late() -> None:
        await gate.reached()
        with pytest.raises(ScalerClosed, match="shuts down"):
            scaler.reserve("late")
        gate.open()

    async with anyio.create_task_group() as tasks, scaler:
        tasks.start_soon(ask_late)
        async with scaler.acquire("a"):
            pass


async def test_reconfiguring_needs_an_open_scaler() -> None:
    """Before entering it raises `ScalerClosed`, and the block can still be entered."""
    group = FakeInstanceGroup()
    scaler = Taskscaler([group], CLEAN, connect=group.connect)
    with pytest.raises(ScalerClosed):
        scaler.reconfigure(CLEAN)
    async with scaler:
        scaler.reconfigure(CLEAN)


async def test_an_acquisition_that_is_entered_too_late_is_refused() -> None:
    """An `acquire` called inside of the block and entered after it raises at once."""
    group = FakeInstanceGroup()
    async with Taskscaler([group], connect=group.connect) as scaler:
        late = scaler.acquire("late", timeout=None)
    with pytest.raises(ScalerClosed, match="the scaler has ended"):
        async with late:
            pytest.fail("the body must not run")
