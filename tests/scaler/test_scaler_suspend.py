"""Suspending and resuming tasks, and their instances with them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.lowlevel import checkpoint
from typing_extensions import override

from fleeting.errors import ProviderError, Unreachable
from fleeting.testing import FakeInstanceGroup, Gate, Reply
from fleeting.types import Capability, State
from taskscaler import (
    AcquireTimeout,
    AcquisitionLost,
    AcquisitionSuspended,
    IllegalEvent,
    NotSuspendable,
    Policy,
    ScalerClosed,
    Settings,
    Taskscaler,
)
from taskscaler.core import effects, events
from taskscaler.runtime.claims import Claim
from taskscaler.storage import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskscaler.core import Grant, Record

pytestmark = pytest.mark.anyio

LAZY = Policy(idle_time=timedelta(hours=10))
ONE = Settings(policy=LAZY, max_instances=1)
TWO_SLOTS = Settings(capacity_per_instance=2, policy=LAZY, max_instances=1)
# A suspension or a resumption takes fewer checkpoints than this.
CHECKPOINTS = 80


class GatedStore(MemoryStore):
    """A store whose commits can be held."""

    gate: Gate | None = None

    @override
    async def commit(
        self, epoch: int, put: Sequence[Record], drop: Sequence[tuple[str, str, str]]
    ) -> None:
        if self.gate is not None:
            await self.gate.pass_through()
        await super().commit(epoch, put, drop)


def suspendable() -> FakeInstanceGroup:
    """Return a group that can suspend its instances."""
    return FakeInstanceGroup(capabilities=[Capability.SUSPEND])


async def run_until_suspended(scaler: Taskscaler, key: str) -> None:
    """Hold a slot until the task is suspended."""
    with pytest.raises(AcquisitionSuspended):
        async with scaler.acquire(key):
            await anyio.sleep_forever()


async def suspend(scaler: Taskscaler, key: str) -> None:
    """Start a task, and suspend it."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_until_suspended, scaler, key)
        while "it holds slot" not in scaler.explain(key):
            await anyio.sleep(1)
        await scaler.suspend(key)


async def until_state(group: FakeInstanceGroup, state: State) -> None:
    """Wait until the only instance is in a state."""
    await group.until(lambda: [one.state for one in group.listing.instances] == [state])


async def test_a_suspended_task_resumes_in_its_slot() -> None:
    """Its body is cancelled and its instance stopped; resuming returns the same slot."""
    group = suspendable()
    async with Taskscaler([group], ONE, connect=group.connect) as scaler:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run_until_suspended, scaler, "a")
            while not scaler.capacity().slots_used:
                await anyio.sleep(1)
            await scaler.suspend("a")
            (task,) = scaler.suspended()
            assert (task.key, task.group, task.instance, task.slot) == ("a", "fake/group", "i-1", 0)
        await until_state(group, State.SUSPENDED)
        assert group.connector.connections == []
        assert scaler.capacity().slots_used == 0
        assert "is suspended and keeps slot 0 of instance i-1" in scaler.explain("a")
        async with scaler.resume("a") as acquisition:
            assert (acquisition.instance, acquisition.slot) == ("i-1", 0)
            assert scaler.suspended() == ()
            async with acquisition.connect() as connection:
                assert (await connection.run("true")).succeeded
        assert scaler.capacity().slots_used == 0
    assert [call.method for call in group.calls if call.method in ("suspend", "resume")] == [
        "suspend",
        "resume",
    ]
    assert len(group.calls_of("connect_info")) == 2, "an address may change meanwhile"


async def test_a_task_can_suspend_itself() -> None:
    """The call does not return, and the instance is stopped after the body's clean-up."""
    group = suspendable()
    async with Taskscaler([group], ONE, connect=group.connect) as scaler:
        with pytest.raises(AcquisitionSuspended):
            async with scaler.acquire("a") as acquisition, acquisition.connect() as connection:
                try:
                    await scaler.suspend("a")
                    pytest.fail("the body was not cancelled")
                finally:
                    with anyio.CancelScope(shield=True):
                        await anyio.sleep(60)
                        assert (await connection.run("true")).succeeded
                        assert group.calls_of("suspend") == []
        await until_state(group, State.SUSPENDED)


async def test_a_body_that_ends_before_the_cancellation_is_suspended_too() -> None:
    """If `suspend` returns, the task is suspended."""
    group = suspendable()
    async with Taskscaler([group], ONE, connect=group.connect) as scaler:
        async with anyio.create_task_group() as tasks:
            with pytest.raises(AcquisitionSuspended):
                async with scaler.acquire("a"):
                    tasks.start_soon(scaler.suspend, "a")
                    with anyio.CancelScope(shield=True):
                        await anyio.sleep(1)
        assert [one.key for one in scaler.suspended()] == ["a"]


async def test_a_suspension_replaces_the_error_that_it_caused() -> None:
    """`AcquisitionSuspended` is raised, with the exception of the body as cause."""
    group = suspendable()
    async with Taskscaler([group], ONE, connect=group.connect) as scaler:
        with pytest.raises(AcquisitionSuspended) as caught:
            async with scaler.acquire("a"):
                try:
                    await scaler.suspend("a")
                finally:
                    raise RuntimeError("the upload failed")
        assert isinstance(caught.value.__cause__, RuntimeError)
        assert [one.key for one in scaler.suspended()] == ["a"]


async def test_a_group_that_cannot_suspend_refuses() -> None:
    """`NotSuspendable` is raised, and the task goes on."""
    group = FakeInstanceGroup()
    async with (
        Taskscaler([group], ONE, connect=group.connect) as scaler,
        scaler.acquire("a") as acquisition,
    ):
        with pytest.raises(NotSuspendable, match="fake/group cannot suspend"):
            await scaler.suspend("a")
        async with acquisition.connect():
            pass


async def test_tasks_without_a_slot_cannot_be_suspended_or_resumed() -> None:
    """Unknown, waiting, not suspended: `IllegalEvent` is raised, and nothing changes."""
    group, gate = suspendable(), Gate()
    group.script("increase", Reply(before=gate))
    async with (
        Taskscaler([group], ONE, connect=group.connect) as scaler,
        anyio.create_task_group() as tasks,
    ):
        with pytest.raises(IllegalEvent, match="holds no slot"):
            await scaler.suspend("unknown")
        with pytest.raises(IllegalEvent, match="is not suspended"):
            async with scaler.resume("unknown"):
                pytest.fail("the body must not run")
        with pytest.raises(IllegalEvent, match="is not suspended"):
            scaler.release("unknown")

        async def run() -> None:
            async with scaler.acquire("a"):
                pass

        tasks.start_soon(run)
        await gate.reached()
        with pytest.raises(IllegalEvent, match="holds no slot"):
            await scaler.suspend("a")
        gate.open()


async def test_suspending_between_the_grant_and_the_body(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The task is suspended, and its body does not run."""
    group = suspendable()
    deliver = Claim.deliver

    def deliver_and_suspend(claim: Claim, effect: Grant) -> None:
        deliver(claim, effect)
        if claim.key == "a":
            assert claim.scope is None, "the body has begun already"
            claim.suspend()

    async with Taskscaler([group], TWO_SLOTS, connect=group.connect) as scaler:
        async with scaler.acquire("holder"):
            with monkeypatch.context() as patched:
                patched.setattr(Claim, "deliver", deliver_and_suspend)
                with pytest.raises(AcquisitionSuspended):
                    async with scaler.acquire("a"):
                        pytest.fail("the body must not run")
            assert [one.key for one in scaler.suspended()] == ["a"]
        async with scaler.resume("a") as acquisition:
            assert acquisition.slot == 1


async def test_other_tasks_of_its_instance_go_on() -> None:
    """An instance on which one task is suspended and another runs is not stopped."""
    group = suspendable()
    async with Taskscaler([group], TWO_SLOTS, connect=group.connect) as scaler:
        async with scaler.acquire("runs"):
            await suspend(scaler, "a")
            await anyio.sleep(600)
            assert group.calls_of("suspend") == []
            with anyio.move_on_after(5) as scope:
                async with scaler.acquire("third"):
                    pytest.fail("the slot of a suspended task was given away")
            assert scope.cancelled_caught
        await until_state(group, State.SUSPENDED)


async def test_a_cancelled_resumption_leaves_the_task_suspended() -> None:
    """After a cancellation or a timeout while the instance starts, resuming works again."""
    group = suspendable()
    async with Taskscaler([group], ONE, connect=group.connect) as scaler:
        await suspend(scaler, "a")
        await until_state(group, State.SUSPENDED)
        group.always("resume", Reply(error=ProviderError("not now")))
        with pytest.raises(AcquireTimeout, match="is waiting to resume in slot 0"):
            async with scaler.resume("a", timeout=timedelta(seconds=30)):
                pytest.fail("the body must not run")
        with anyio.move_on_after(30) as scope:
            async with scaler.resume("a"):
                pytest.fail("the body must not run")
        assert scope.cancelled_caught
        assert [one.key for one in scaler.suspended()] == ["a"]
        group.always("resume", Reply())
        async with scaler.resume("a") as acquisition:
            assert acquisition.instance == "i-1"


async def test_cancelling_a_resumption_at_any_checkpoint_loses_nothing() -> None:
    """Cancelled after 0, 1, 2 ... checkpoints, the task is still suspended, or has ended."""
    group = suspendable()
    async with Taskscaler([group], TWO_SLOTS, connect=group.connect) as scaler:
        async with scaler.acquire("keeps it running"):
            await suspend(scaler, "a")
            ended: list[int] = []
            for count in range(CHECKPOINTS):
                finished: list[int] = []

                async def run(count: int, finished: list[int]) -> None:
                    async with scaler.resume("a"):
                        pass
                    finished.append(count)

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(run, count, finished)
                    for _ in range(count):
                        await checkpoint()
                    tasks.cancel_scope.cancel()
                ended += finished
                known = bool(scaler.suspended())
                assert scaler.capacity().slots_used == 1
                if finished:
                    assert not known
                if not known:
                    await suspend(scaler, "a")
            assert 0 not in ended
            assert CHECKPOINTS - 1 in ended


async def test_a_resumption_that_times_out_before_its_grant_is_undone() -> None:
    """A task that times out while the store confirms its slot stays suspended."""
    group, store = suspendable(), GatedStore()
    async with Taskscaler([group], TWO_SLOTS, connect=group.connect, store=store) as scaler:
        async with scaler.acquire("keeps it running"):
            await suspend(scaler, "a")
            store.gate = gate = Gate()
            with pytest.raises(AcquireTimeout, match="has not confirmed it"):
                async with scaler.resume("a", timeout=timedelta(seconds=5)):
                    pytest.fail("the body must not run")
            assert [one.key for one in scaler.suspended()] == ["a"]
            gate.open()
            store.gate = None
            async with scaler.resume("a") as acquisition:
                assert acquisition.slot == 1


async def test_a_suspended_task_is_lost_with_its_instance() -> None:
    """A waiting `resume` raises `AcquisitionLost` with the instance and the reason."""
    group = suspendable()
    async with Taskscaler([group], ONE, connect=group.connect) as scaler:
        await suspend(scaler, "a")
        await until_state(group, State.SUSPENDED)
        group.script("resume", Reply(before=timedelta(seconds=10), error=ProviderError("gone")))

        async def vanish() -> None:
            await group.until(lambda: bool(group.calls_of("resume")))
            group.vanish("i-1")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(vanish)
            with pytest.raises(AcquisitionLost, match="no longer listed") as caught:
                async with scaler.resume("a"):
                    pytest.fail("the body must not run")
            assert caught.value.instance == "i-1"
        assert scaler.suspended() == ()


@pytest.mark.parametrize("how", ["it vanishes", "its time is up"])
async def test_resuming_a_task_that_was_lost_earlier_says_why(how: str) -> None:
    """`AcquisitionLost` is raised once, because the caller could not know; then `IllegalEvent`."""
    group = suspendable()
    settings = Settings(policy=LAZY, max_instances=1, suspend_time_to_live=timedelta(hours=1))
    async with Taskscaler([group], settings, connect=group.connect) as scaler:
        await suspend(scaler, "a")
        await until_state(group, State.SUSPENDED)
        if how == "it vanishes":
            group.vanish("i-1")
        while scaler.suspended():
            await anyio.sleep(60)
        cause = "no longer listed" if how == "it vanishes" else "not resumed within 1h"
        with pytest.raises(AcquisitionLost, match=cause):
            async with scaler.resume("a"):
                pytest.fail("the body must not run")
        with pytest.raises(IllegalEvent):
            async with scaler.resume("a"):
                pytest.fail("the body must not run")


async def test_a_task_whose_instance_is_lost_while_it_is_being_suspended() -> None:
    """Both `suspend` and the task raise `AcquisitionLost`."""
    group = suspendable()
    async with Taskscaler([group], ONE, connect=group.connect) as scaler:

        async def suspend_it() -> None:
            with pytest.raises(AcquisitionLost):
                await scaler.suspend("a")

        async with anyio.create_task_group() as tasks:
            with pytest.raises(AcquisitionLost, match="its disk died"):
                async with scaler.acquire("a"):
                    tasks.start_soon(suspend_it)
                    with anyio.CancelScope(shield=True):
                        await anyio.sleep(1)
                        group.set_state("i-1", State.FAILED, "its disk died")
                        await anyio.sleep(300)
        assert scaler.suspended() == ()
        assert scaler.capacity().slots_used == 0


async def test_a_suspended_task_can_be_given_up() -> None:
    """Its slot is free again; without suspended tasks, its stopped instance is removed."""
    group = suspendable()
    async with Taskscaler([group], ONE, connect=group.connect) as scaler:
        await suspend(scaler, "a")
        await until_state(group, State.SUSPENDED)
        scaler.release("a")
        assert scaler.suspended() == ()
        await group.until(lambda: bool(group.calls_of("decrease")))
        async with scaler.acquire("b") as acquisition:
            assert acquisition.instance == "i-2"


async def test_suspended_tasks_survive_a_restart() -> None:
    """The next scaler on the same store resumes them, and asks for the address again."""
    group, store = suspendable(), MemoryStore()
    settings = Settings(policy=LAZY, max_instances=1, delete_instances_on_shutdown=True)
    async with Taskscaler([group], settings, store=store, connect=group.connect) as scaler:
        await suspend(scaler, "a")
        await until_state(group, State.SUSPENDED)
    assert group.calls_of("decrease") == [], "a shutdown leaves what is suspended alone"
    before = len(group.calls_of("connect_info"))
    async with Taskscaler([group], settings, store=store, connect=group.connect) as scaler:
        assert [one.key for one in scaler.suspended()] == ["a"]
        async with scaler.resume("a") as acquisition:
            assert acquisition.instance == "i-1"
        assert len(group.calls_of("connect_info")) == before + 1
    assert group.size == 0


async def test_a_task_whose_instance_cannot_be_reached_can_be_resumed_another_time() -> None:
    """A network that is down for a while does not cost its work."""
    group = suspendable()
    settings = replace(ONE, instance_ready_timeout=timedelta(seconds=5))
    async with Taskscaler([group], settings, connect=group.connect) as scaler:
        await suspend(scaler, "a")
        await until_state(group, State.SUSPENDED)
        group.always("connect", Reply(error=Unreachable("no route")))
        with pytest.raises(AcquireTimeout, match="stays suspended"):
            async with scaler.resume("a"):
                raise AssertionError("it must not get its slot")
        group.always("connect", Reply())
        async with scaler.resume("a") as acquisition:
            assert acquisition.slot == 0


async def test_resuming_during_a_shutdown_leaves_the_task_suspended() -> None:
    """`ScalerClosed` is raised, and the next scaler can resume the task."""
    group, store = suspendable(), MemoryStore()
    scaler = Taskscaler([group], ONE, store=store, connect=group.connect)

    async def resume() -> None:
        with pytest.raises(ScalerClosed, match="shuts down"):
            async with scaler.resume("a"):
                pytest.fail("the body must not run")

    async with anyio.create_task_group() as tasks:
        async with scaler:
            await suspend(scaler, "a")
            await until_state(group, State.SUSPENDED)
            group.always("resume", Reply(error=ProviderError("not now")))
            tasks.start_soon(resume)
            await group.until(lambda: bool(group.calls_of("resume")))
    async with Taskscaler([group], ONE, store=store, connect=group.connect) as scaler:
        assert [one.key for one in scaler.suspended()] == ["a"]


async def test_a_suspended_key_belongs_to_its_task() -> None:
    """Acquiring with its key, or resuming it twice at the same time, is refused."""
    group = suspendable()
    async with Taskscaler([group], TWO_SLOTS, connect=group.connect) as scaler:
        await suspend(scaler, "a")
        with pytest.raises(IllegalEvent, match="already waits for or has a slot"):
            async with scaler.acquire("a"):
                pytest.fail("the body must not run")
        async with scaler.resume("a"):
            with pytest.raises(IllegalEvent, match="not suspended"):
                async with scaler.resume("a"):
                    pytest.fail("the body must not run")
            with pytest.raises(IllegalEvent, match="already waits for or has a slot"):
                async with scaler.acquire("a"):
                    pytest.fail("the body must not run")
            assert scaler.capacity().slots_used == 1
        assert scaler.capacity().slots_used == 0


async def test_a_resumption_does_not_cancel_a_later_preparation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A listing may show the instance running at once, and then it is prepared at once."""
    group = suspendable()
    async with Taskscaler([group], ONE, connect=group.connect) as scaler:
        async with scaler.acquire("a") as acquisition:
            runner, id = scaler._runner, acquisition.instance
            posted: list[type[events.Event]] = []
            real = runner.post

            def post(event: events.Event) -> list[effects.Effect]:
                posted.append(type(event))
                return real(event)

            monkeypatch.setattr(runner, "post", post)
            runner._outbox.append((effects.Resume(group.info.id, (id,), 9), None))
            runner._outbox.append((effects.Prepare(group.info.id, id, "", 9, 9), None))
            runner._outbox_filled.set()
            await anyio.sleep(10)
    assert {events.ResumeSettled, events.InstancePrepared} <= set(posted)
