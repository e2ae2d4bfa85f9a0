"""Tasks, slots and the size of the group, without failures."""

from __future__ import annotations

from datetime import timedelta

import anyio
import pytest
from anyio.lowlevel import checkpoint

from fleeting.errors import QuotaExceeded
from fleeting.testing import FakeInstanceGroup, Gate, Reply
from taskscaler import (
    AcquireTimeout,
    Acquisition,
    IllegalEvent,
    NoCapacity,
    Placement,
    Policy,
    ScalerClosed,
    Settings,
    Taskscaler,
)

pytestmark = pytest.mark.anyio

CLEAN = Settings(delete_instances_on_shutdown=True)


async def test_tasks_fill_an_instance_before_the_next_one() -> None:
    """Three tasks on instances of two slots each: two share one, in distinct slots."""
    group = FakeInstanceGroup()
    settings = Settings(capacity_per_instance=2)
    taken: list[Acquisition] = []
    all_tasks, leave = anyio.Event(), anyio.Event()

    async def run(key: str) -> None:
        async with scaler.acquire(key) as acquisition:
            taken.append(acquisition)
            if len(taken) == 3:
                all_tasks.set()
            await leave.wait()

    async with (
        Taskscaler([group], settings, connect=group.connect) as scaler,
        anyio.create_task_group() as tasks,
    ):
        for key in "abc":
            tasks.start_soon(run, key)
        await all_tasks.wait()
        assert scaler.capacity().slots_used == 3
        assert scaler.capacity().slots_total == 4
        leave.set()

    assert group.size == 2
    assert len({(one.instance, one.slot) for one in taken}) == 3
    assert sorted(one.slot for one in taken) == [0, 0, 1]
    assert {one.group for one in taken} == {group.info.id}


async def test_spread_takes_the_emptiest_instance() -> None:
    """With `spread`, two tasks on two instances of two slots do not share one."""
    group = FakeInstanceGroup()
    policy = Policy(idle_count=4, idle_time=timedelta(hours=1))
    settings = Settings(capacity_per_instance=2, policy=policy, placement=Placement.SPREAD)
    async with Taskscaler([group], settings, connect=group.connect) as scaler:
        while scaler.capacity().instances["ready"] < 2:
            await anyio.sleep(1)
        async with scaler.acquire("a") as first, scaler.acquire("b") as second:
            assert first.instance != second.instance


async def test_tasks_are_served_in_the_order_in_which_they_came() -> None:
    """Five tasks share one slot, and none overtakes another."""
    group = FakeInstanceGroup()
    settings = Settings(max_instances=1)
    served: list[str] = []

    async def run(key: str) -> None:
        async with scaler.acquire(key):
            served.append(key)
            await checkpoint()

    async with Taskscaler([group], settings, connect=group.connect) as scaler:
        async with anyio.create_task_group() as tasks, scaler.acquire("first"):
            for number, key in enumerate("edcba", start=1):
                tasks.start_soon(run, key)
                while scaler.capacity().waiting < number:
                    await checkpoint()
        assert scaler.capacity().waiting == 0
    assert "".join(served) == "edcba"
    assert group.largest == 1


async def test_the_group_shrinks_to_nothing_when_it_is_idle() -> None:
    """An instance is removed after being idle for `idle_time`, not before."""
    group = FakeInstanceGroup()
    settings = Settings(policy=Policy(idle_time=timedelta(minutes=10)))
    async with Taskscaler([group], settings, connect=group.connect) as scaler:
        async with scaler.acquire("a"):
            pass
        released = anyio.current_time()
        await group.until(lambda: bool(group.calls_of("decrease")))
        assert anyio.current_time() - released == pytest.approx(600)
        await group.until(lambda: group.size == 0)
        await anyio.sleep(3600)
        assert len(group.calls_of("increase")) == 1
        (summary,) = scaler.instances()
        assert summary.tasks == 1
        assert summary.ready_at is not None
        assert summary.removed_at is not None
        assert summary.removal_reason == "it was idle for 10m"


async def test_leaving_removes_instances_if_the_settings_say_so() -> None:
    """With `delete_instances_on_shutdown`, no instance is left after the block."""
    group = FakeInstanceGroup(removal_updates=3)
    async with (
        Taskscaler([group], CLEAN, connect=group.connect) as scaler,
        scaler.acquire("a"),
    ):
        pass
    assert group.size == 0
    assert group.connector.connections == []


async def test_leaving_keeps_instances_otherwise() -> None:
    """Without it they stay, but their connections are closed."""
    group = FakeInstanceGroup()
    settings = Settings(policy=Policy(idle_time=timedelta(hours=1)))
    async with (
        Taskscaler([group], settings, connect=group.connect) as scaler,
        scaler.acquire("a"),
    ):
        pass
    assert group.size == 1
    assert group.calls_of("decrease") == []
    assert group.connector.connections == []


async def test_a_used_up_instance_is_replaced() -> None:
    """With a use count of one, each task gets an instance of its own."""
    group = FakeInstanceGroup()
    settings = Settings(max_use_count=1, max_instances=1)
    instances: list[str] = []
    async with Taskscaler([group], settings, connect=group.connect) as scaler:
        for key in "abc":
            async with scaler.acquire(key) as acquisition:
                instances.append(acquisition.instance)
    assert len(set(instances)) == 3
    assert group.largest == 1


async def test_a_reservation_is_used_up_by_its_task() -> None:
    """After reserving and acquiring or giving back, no reservation is left."""
    group = FakeInstanceGroup()
    settings = Settings(max_instances=1)
    async with Taskscaler([group], settings, connect=group.connect) as scaler:
        scaler.reserve("a")
        assert scaler.capacity().reserved == 1
        with pytest.raises(NoCapacity, match="no unreserved slot is free"):
            scaler.reserve("b")
        async with scaler.acquire("a"):
            assert scaler.capacity().reserved == 0
        scaler.reserve("b")
        scaler.unreserve("b")
        assert scaler.capacity().reserved == 0
        with pytest.raises(IllegalEvent):
            scaler.unreserve("b")


async def test_a_key_that_is_in_use_is_refused() -> None:
    """A second task with the same key is refused at once, and the first keeps its slot."""
    group = FakeInstanceGroup()
    async with Taskscaler([group], connect=group.connect) as scaler:
        async with scaler.acquire("a") as acquisition:
            with pytest.raises(IllegalEvent, match="'a'"):
                async with scaler.acquire("a"):
                    pytest.fail("the body must not run")
            assert scaler.capacity().slots_used == 1
            async with acquisition.connect() as connection:
                assert connection.is_open
        assert scaler.capacity().slots_used == 0


async def test_a_timeout_reports_a_limit_that_is_reached() -> None:
    """At `max_instances`, the error says so, with the numbers."""
    group = FakeInstanceGroup()
    settings = Settings(max_instances=1)
    async with (
        Taskscaler([group], settings, connect=group.connect) as scaler,
        scaler.acquire("a"),
    ):
        with pytest.raises(AcquireTimeout) as caught:
            async with scaler.acquire("b", timeout=timedelta(seconds=90)):
                pytest.fail("the body must not run")
        sentence = str(caught.value)
        assert "within 90s" in sentence
        assert "1 slot in use, 0 free" in sentence
        assert "1 of at most 1 instance (1 ready)" in sentence
        assert f"{group.info.id}: held back by max_instances" in sentence
        assert scaler.capacity().waiting == 0


async def test_a_timeout_reports_the_error_of_the_provider() -> None:
    """If the provider refuses, the error has its message."""
    group = FakeInstanceGroup()
    group.always("increase", Reply(error=QuotaExceeded("12 CPUs are all that you get")))
    async with Taskscaler([group], connect=group.connect) as scaler:
        with pytest.raises(AcquireTimeout, match="12 CPUs are all that you get"):
            async with scaler.acquire("a", timeout=timedelta(minutes=5)):
                pytest.fail("the body must not run")


async def test_a_timeout_reports_instances_that_do_not_start() -> None:
    """If instances are created and never run, the error counts them."""
    group = FakeInstanceGroup(boot_updates=None)
    async with Taskscaler([group], connect=group.connect) as scaler:
        with pytest.raises(AcquireTimeout, match=r"1 coming; 1 instance \(1 creating\)"):
            async with scaler.acquire("a", timeout=timedelta(minutes=5)):
                pytest.fail("the body must not run")


async def test_settings_can_change_while_tasks_run() -> None:
    """A raised limit takes effect at once for a task that is waiting."""
    group = FakeInstanceGroup()
    async with Taskscaler([group], Settings(max_instances=1), connect=group.connect) as scaler:
        served = anyio.Event()

        async def run() -> None:
            async with scaler.acquire("b"):
                served.set()

        async with scaler.acquire("a"), anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await anyio.sleep(60)
            assert not served.is_set()
            scaler.reconfigure(Settings(max_instances=2))
            await served.wait()
        with pytest.raises(IllegalEvent, match="capacity_per_instance"):
            scaler.reconfigure(Settings(capacity_per_instance=7))


async def test_decisions_are_kept() -> None:
    """Each increase and each removal has a decision."""
    group = FakeInstanceGroup()
    async with Taskscaler([group], connect=group.connect) as scaler:
        async with scaler.acquire("a"):
            pass
        await group.until(lambda: group.size == 0)
        assert [one.decided for one in scaler.decisions() if one.decided] == [1, -1]
        assert "no task waits" in scaler.explain()


async def test_a_closed_scaler_takes_no_task() -> None:
    """A scaler refuses tasks before and after its block, and a second block."""
    group = FakeInstanceGroup()
    scaler = Taskscaler([group], CLEAN, connect=group.connect)
    with pytest.raises(ScalerClosed):
        scaler.reserve("a")
    async with scaler:
        pass
    with pytest.raises(ScalerClosed):
        scaler.reserve("a")
    with pytest.raises(ScalerClosed):
        async with scaler.acquire("a"):
            pytest.fail("the body must not run")
    with pytest.raises(IllegalEvent):
        await scaler.__aenter__()
    assert scaler.capacity().slots_total == 0


async def test_a_slow_listing_does_not_delay_a_release() -> None:
    """While a listing hangs, the next task gets a slot that was given back."""
    group = FakeInstanceGroup()
    settings = Settings(max_instances=1)
    async with Taskscaler([group], settings, connect=group.connect) as scaler:
        async with scaler.acquire("a"):
            gate = Gate()
            group.always("update", Reply(before=gate))
            await gate.reached()
        async with scaler.acquire("b", timeout=timedelta(seconds=1)):
            pass
        gate.open()
