"""A cancelled task leaves nothing behind, at whatever point it is cancelled."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import anyio
import pytest
from anyio.lowlevel import checkpoint

from fleeting.testing import FakeInstanceGroup, Gate, Reply
from taskscaler import Policy, Settings, Taskscaler

pytestmark = pytest.mark.anyio

# An acquisition of a free slot with a command on it takes fewer checkpoints than this.
CHECKPOINTS = 60
# Growing from nothing takes fewer calls than this.
CALLS = 12


def assert_untouched(scaler: Taskscaler) -> None:
    """Check that no task waits, holds a slot or has a reservation (I15)."""
    capacity = scaler.capacity()
    assert (capacity.waiting, capacity.slots_used, capacity.reserved) == (0, 0, 0)
    assert list(scaler._runner.claims) == []


def scope_of(scaler: Taskscaler, key: str) -> anyio.CancelScope:
    """Return the scope that a loss of the task's instance cancels."""
    claim = scaler._runner.claims.get(key)
    assert claim is not None
    assert claim.scope is not None
    return claim.scope


async def use(scaler: Taskscaler, key: str) -> None:
    """Reserve, acquire, connect, and run a command."""
    scaler.reserve(key)
    try:
        async with scaler.acquire(key) as acquisition, acquisition.connect() as connection:
            assert (await connection.run("true")).succeeded
    finally:
        # A task that is cancelled before it acquires must give its reservation back.
        if scaler.capacity().reserved:
            scaler.unreserve(key)


async def test_cancelling_at_any_checkpoint_leaves_nothing() -> None:
    """Cancelled after 0, 1, 2 ... checkpoints, a task holds nothing and its key is free."""
    group = FakeInstanceGroup()
    settings = Settings(policy=Policy(idle_count=1, idle_time=timedelta(days=1)), max_instances=1)
    finished: list[int] = []

    async def run(count: int, scope: anyio.CancelScope) -> None:
        with scope:
            await use(scaler, "key")
            finished.append(count)

    async with Taskscaler([group], settings, connect=group.connect) as scaler:
        await group.until(lambda: bool(group.connector.connections))
        while not scaler.capacity().instances["ready"]:
            await checkpoint()
        for count in range(CHECKPOINTS):
            async with anyio.create_task_group() as tasks:
                scope = anyio.CancelScope()
                tasks.start_soon(run, count, scope)
                for _ in range(count):
                    await checkpoint()
                scope.cancel()
            assert_untouched(scaler)
        await use(scaler, "key")
        assert_untouched(scaler)
        assert group.size == 1
    assert 0 not in finished, "the scenario was never cancelled before it began"
    assert CHECKPOINTS - 1 in finished, "the scenario is longer than the test thinks"


async def test_cancelling_while_the_group_grows_leaves_nothing() -> None:
    """Cancelled at the 1st, 2nd ... call to the group, a waiting task leaves the queue."""
    for count in range(1, CALLS):
        group = FakeInstanceGroup(pending_updates=1, boot_updates=1)
        async with Taskscaler([group], Settings(max_instances=1), connect=group.connect) as scaler:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(use, scaler, "key")
                await group.until(lambda count=count, group=group: len(group.calls) >= count)  # type: ignore[misc] # mypy knows no lambda with defaults
                tasks.cancel_scope.cancel()
            assert_untouched(scaler)
            async with scaler.acquire("key"):
                pass
            assert_untouched(scaler)
        assert group.largest == 1


async def test_a_cancelled_task_gives_its_place_to_the_next() -> None:
    """When the first in the queue is cancelled, the second gets the slot."""
    group = FakeInstanceGroup()
    async with Taskscaler([group], Settings(max_instances=1), connect=group.connect) as scaler:
        served: list[str] = []

        async def run(key: str, scope: anyio.CancelScope) -> None:
            with scope:
                async with scaler.acquire(key):
                    served.append(key)

        first, second = anyio.CancelScope(), anyio.CancelScope()
        async with anyio.create_task_group() as tasks, scaler.acquire("holder"):
            tasks.start_soon(run, "first", first)
            while scaler.capacity().waiting < 1:
                await checkpoint()
            tasks.start_soon(run, "second", second)
            while scaler.capacity().waiting < 2:
                await checkpoint()
            first.cancel()
        assert served == ["second"]
        assert_untouched(scaler)


async def test_a_cancellation_wins_over_a_loss_at_the_same_time() -> None:
    """A task that is cancelled while its instance is lost ends as cancelled."""
    group = FakeInstanceGroup()
    async with Taskscaler([group], connect=group.connect) as scaler:
        with anyio.CancelScope() as scope:
            async with scaler.acquire("a") as acquisition:
                inner = scope_of(scaler, "a")
                group.vanish(acquisition.instance)
                while not inner.cancel_called:
                    with anyio.CancelScope(shield=True):
                        await anyio.sleep(1)
                scope.cancel()
                await checkpoint()
        assert scope.cancelled_caught
        assert_untouched(scaler)


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_native_cancellation_wins_over_a_loss_too() -> None:
    """On asyncio, `Task.cancel` is not swallowed either."""
    group = FakeInstanceGroup()
    ends: list[BaseException] = []

    async def run() -> None:
        try:
            async with scaler.acquire("a") as acquisition:
                group.vanish(acquisition.instance)
                scope = scope_of(scaler, "a")
                while not scope.cancel_called:
                    with anyio.CancelScope(shield=True):
                        await anyio.sleep(1)
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await checkpoint()
        except BaseException as error:
            ends.append(error)
            raise

    async with Taskscaler([group], connect=group.connect) as scaler:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
        assert_untouched(scaler)
    (end,) = ends
    assert isinstance(end, asyncio.CancelledError)


async def test_leaving_while_a_call_of_the_provider_hangs() -> None:
    """A hanging listing does not delay leaving the block."""
    group = FakeInstanceGroup()
    group.always("update", Reply(before=Gate()))
    async with Taskscaler([group], connect=group.connect):
        await checkpoint()
