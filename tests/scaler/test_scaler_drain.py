"""Draining: no new tasks are taken, and the others go on."""

from __future__ import annotations

from datetime import timedelta

import anyio
import pytest
from anyio.lowlevel import checkpoint

from fleeting.testing import FakeInstanceGroup, Gate, Reply
from fleeting.types import Capability
from taskscaler import (
    AcquisitionSuspended,
    DrainTimeout,
    Policy,
    ScalerClosed,
    Settings,
    Taskscaler,
)

pytestmark = pytest.mark.anyio

LAZY = Policy(idle_time=timedelta(hours=10))
ONE = Settings(policy=LAZY, max_instances=1)


async def test_draining_an_idle_scaler_returns_at_once() -> None:
    """Also the second time; later tasks are refused, and the block can be left."""
    group = FakeInstanceGroup()
    async with Taskscaler([group], ONE, connect=group.connect) as scaler:
        before = anyio.current_time()
        await scaler.drain()
        await scaler.drain(timedelta(seconds=5))
        assert anyio.current_time() == before
        with pytest.raises(ScalerClosed, match="drained"):
            scaler.reserve("late")
        with pytest.raises(ScalerClosed, match="drained"):
            async with scaler.acquire("late"):
                pytest.fail("the body must not run")
    assert group.calls_of("increase") == []


async def test_tasks_of_a_draining_scaler_go_on() -> None:
    """It returns after all running, waiting and reserved tasks have ended."""
    group = FakeInstanceGroup()
    order: list[str] = []

    async def run(key: str) -> None:
        async with scaler.acquire(key):
            await anyio.sleep(60)
            order.append(key)

    async with Taskscaler([group], ONE, connect=group.connect) as scaler:
        async with anyio.create_task_group() as tasks:
            scaler.reserve("reserved")
            tasks.start_soon(run, "runs")
            while not scaler.capacity().slots_used:
                await anyio.sleep(1)
            tasks.start_soon(run, "waits")
            while not scaler.capacity().waiting:
                await checkpoint()

            async def come_later() -> None:
                await anyio.sleep(300)
                assert "drained" not in order
                await run("reserved")

            tasks.start_soon(come_later)
            await scaler.drain()
            order.append("drained")
    assert order == ["runs", "waits", "reserved", "drained"]


async def test_a_reservation_that_is_given_back_ends_a_drain() -> None:
    """Giving back the last reservation is enough to end it."""
    group = FakeInstanceGroup()
    async with Taskscaler([group], ONE, connect=group.connect) as scaler:
        scaler.reserve("a")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(scaler.drain)
            await anyio.sleep(600)
            scaler.unreserve("a")


async def test_a_drain_that_times_out_counts_the_tasks_that_are_left() -> None:
    """They go on, and draining again waits for them."""
    group, gate = FakeInstanceGroup(), Gate()
    group.script("increase", Reply(before=gate))
    async with (
        Taskscaler([group], ONE, connect=group.connect) as scaler,
        anyio.create_task_group() as tasks,
    ):
        scaler.reserve("b")

        async def run(key: str) -> None:
            async with scaler.acquire(key):
                pass

        tasks.start_soon(run, "a")
        await gate.reached()
        with pytest.raises(DrainTimeout, match=r"0 tasks with .* 1 waiting .* 1 unused"):
            await scaler.drain(timedelta(seconds=30))
        gate.open()
        scaler.unreserve("b")
        await scaler.drain(timedelta(seconds=30))


async def test_a_cancelled_drain_still_refuses_new_tasks() -> None:
    """If one of two callers is cancelled, the other still returns at the end."""
    group = FakeInstanceGroup()
    async with Taskscaler([group], ONE, connect=group.connect) as scaler:
        async with anyio.create_task_group() as tasks:
            async with scaler.acquire("a"):
                tasks.start_soon(scaler.drain)
                with anyio.move_on_after(5) as scope:
                    await scaler.drain()
                assert scope.cancelled_caught
                with pytest.raises(ScalerClosed):
                    scaler.reserve("late")


async def test_suspended_tasks_do_not_delay_a_drain() -> None:
    """They stay suspended for the next scaler."""
    group = FakeInstanceGroup(capabilities=[Capability.SUSPEND])
    async with Taskscaler([group], ONE, connect=group.connect) as scaler:
        with pytest.raises(AcquisitionSuspended):
            async with scaler.acquire("a"):
                await scaler.suspend("a")
        await scaler.drain(timedelta(seconds=1))
        assert [one.key for one in scaler.suspended()] == ["a"]
        with pytest.raises(ScalerClosed, match="drained"):
            async with scaler.resume("a"):
                pytest.fail("the body must not run")
        assert [one.key for one in scaler.suspended()] == ["a"]


async def test_a_drain_ends_with_the_block() -> None:
    """Callers outside of the block get `ScalerClosed` when the scaler ends."""
    group = FakeInstanceGroup()
    scaler = Taskscaler([group], ONE, connect=group.connect)
    opened = anyio.Event()

    async def drain() -> None:
        await opened.wait()
        with pytest.raises(ScalerClosed, match="ended before all of its tasks"):
            await scaler.drain()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(drain)
        async with scaler:
            scaler.reserve("a")
            opened.set()
            await anyio.sleep(60)
    with pytest.raises(ScalerClosed):
        await scaler.drain()
