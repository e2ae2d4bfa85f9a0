"""Instances and connections that are lost while tasks use them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
import pytest

from fleeting.errors import ConnectionLost, InstanceGone, NotSupported, TransferFailed, Unreachable
from fleeting.testing import FakeInstanceGroup, Gate, Reply
from fleeting.types import State
from taskscaler import Acquisition, AcquisitionLost, IllegalEvent, Policy, Settings, Taskscaler

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio

LAZY = Policy(idle_time=timedelta(hours=1))
TWO_SLOTS = Settings(capacity_per_instance=2, policy=LAZY)


def vanish(group: FakeInstanceGroup, id: str) -> None:
    """Remove the instance without being asked."""
    group.vanish(id)


def fail(group: FakeInstanceGroup, id: str) -> None:
    """List the instance as failed."""
    group.set_state(id, State.FAILED, "its disk died")


def delete(group: FakeInstanceGroup, id: str) -> None:
    """List the instance as being deleted."""
    group.set_state(id, State.DELETING)


def recreate(group: FakeInstanceGroup, id: str) -> None:
    """Recreate the instance with the same id."""
    group.recreate(id)


@pytest.mark.parametrize(
    ("lose", "cause"),
    [
        (vanish, "it is no longer listed"),
        (fail, "its disk died"),
        (delete, "the cloud takes it away"),
        (recreate, "it was recreated under the same id"),
    ],
)
async def test_a_lost_instance_cancels_its_tasks(
    lose: Callable[[FakeInstanceGroup, str], None], cause: str
) -> None:
    """Gone, failed, being deleted, recreated: the body is cancelled; the error says why."""
    group = FakeInstanceGroup()
    async with Taskscaler([group], connect=group.connect) as scaler:
        with pytest.raises(AcquisitionLost, match=cause) as caught:
            async with scaler.acquire("a") as acquisition:
                lose(group, acquisition.instance)
                await anyio.sleep_forever()
        assert caught.value.instance == "i-1"
        assert caught.value.cause == cause
        assert scaler.capacity().slots_used == 0
        async with scaler.acquire("a") as acquisition:
            states = {one.id: one.state for one in group.listing.instances}
            assert states[acquisition.instance] is State.RUNNING


async def test_every_task_of_a_lost_instance_is_cancelled() -> None:
    """Both of its tasks are cancelled, and the task on another instance is not."""
    group = FakeInstanceGroup()
    ends: dict[str, str] = {}
    release = anyio.Event()

    async def run(key: str) -> None:
        try:
            async with scaler.acquire(key) as acquisition:
                ends[key] = acquisition.instance
                await release.wait()
            ends[key] = "done"
        except AcquisitionLost:
            ends[key] = "lost"

    async with (
        Taskscaler([group], TWO_SLOTS, connect=group.connect) as scaler,
        anyio.create_task_group() as tasks,
    ):
        for key in "abc":
            tasks.start_soon(run, key)
        while len(ends) < 3:
            await anyio.sleep(1)
        shared = next(id for id in ends.values() if list(ends.values()).count(id) == 2)
        group.set_state(shared, State.FAILED)
        while list(ends.values()).count("lost") < 2:
            await anyio.sleep(1)
        release.set()
    assert sorted(ends.values()) == ["done", "lost", "lost"]


async def test_an_exception_of_the_body_is_unchanged() -> None:
    """Without a loss, the exception of the body comes out with its cause."""
    group = FakeInstanceGroup()
    async with Taskscaler([group], connect=group.connect) as scaler:
        with pytest.raises(ValueError, match="mine") as caught:
            async with scaler.acquire("a"):
                raise ValueError("mine") from KeyError("why")
        assert isinstance(caught.value.__cause__, KeyError)
        assert scaler.capacity().slots_used == 0


async def test_a_loss_replaces_the_error_that_it_caused() -> None:
    """If the body fails after a loss, `AcquisitionLost` is raised, with that error as cause."""
    group = FakeInstanceGroup()
    async with Taskscaler([group], connect=group.connect) as scaler:
        with pytest.raises(AcquisitionLost) as caught:
            async with scaler.acquire("a") as acquisition:
                group.vanish(acquisition.instance)
                try:
                    await anyio.sleep_forever()
                finally:
                    raise RuntimeError("the upload failed")
        assert isinstance(caught.value.__cause__, RuntimeError)


async def test_a_body_that_ends_before_the_cancellation_succeeds() -> None:
    """A body that does not wait after the loss ends without an error."""
    group = FakeInstanceGroup()
    async with Taskscaler([group], connect=group.connect) as scaler:
        async with scaler.acquire("a") as acquisition:
            group.vanish(acquisition.instance)
            with anyio.CancelScope(shield=True):
                await anyio.sleep(600)
        assert scaler.capacity().slots_used == 0


@pytest.mark.parametrize("grouped", [False, True])
async def test_a_lost_connection_retires_the_instance(grouped: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """The instance gets no further task, and is removed when its other task has ended."""
    group = FakeInstanceGroup()
    settings = Settings(capacity_per_instance=2, max_instances=2, policy=LAZY)
    async with Taskscaler([group], settings, connect=group.connect) as scaler:
        async with scaler.acquire("survivor") as survivor:
            # Whether the scaler or the body notices the loss first, it is the same error.
            with pytest.raises(AcquisitionLost, match="a shark bit the cable"):
                async with (
                    scaler.acquire("victim") as victim,
                    victim.connect() as connection,
                ):
                    assert victim.instance == survivor.instance
                    group.connector.break_(victim.instance, "a shark bit the cable")
                    if grouped:
                        async with anyio.create_task_group() as tasks:
                            tasks.start_soon(connection.run, "true")
                    else:
                        await connection.run("true")
            assert scaler.capacity().instances["draining"] == 1
            async with scaler.acquire("next") as other:
                assert other.instance != survivor.instance
            async with survivor.connect() as connection:
                assert (await connection.run("true")).succeeded
            assert group.calls_of("decrease") == []
        await group.until(lambda: bool(group.calls_of("decrease")))
        assert group.calls_of("decrease")[0].ids == (survivor.instance,)
        await group.until(lambda: group.size < 2)
        gone = scaler.instances()[0]
        assert gone.id == survivor.instance
        assert "a shark bit the cable" in str(gone.removal_reason)


async def test_an_error_after_a_handled_loss_is_unchanged() -> None:
    """A body that copes with the loss, and then fails for a reason of its own, fails for that."""
    group = FakeInstanceGroup()
    async with Taskscaler([group], connect=group.connect) as scaler:
        with pytest.raises(LookupError, match="no such commit"):
            async with scaler.acquire("a") as acquisition:
                await _lose_connection(group, acquisition)
                raise LookupError("no such commit")


async def test_an_error_that_wraps_a_loss_is_the_loss() -> None:
    """Libraries wrap the errors of the streams that they are given."""
    group = FakeInstanceGroup()
    async with Taskscaler([group], connect=group.connect) as scaler:
        with pytest.raises(AcquisitionLost, match="a shark bit the cable") as caught:
            async with scaler.acquire("a") as acquisition:
                try:
                    await _lose_connection(group, acquisition, handle=False)
                except ConnectionLost as error:
                    wrapped = LookupError("no answer")
                    wrapped.__context__ = wrapped  # A loop in the chain must not hang.
                    raise ExceptionGroup("both", [wrapped, RuntimeError("x")]) from error
        assert isinstance(caught.value.__cause__, ExceptionGroup)


async def _lose_connection(
    group: FakeInstanceGroup, acquisition: Acquisition, *, handle: bool = True
) -> None:
    """Break the connection while it is in use."""
    try:
        async with acquisition.connect() as connection:
            group.connector.break_(acquisition.instance, "a shark bit the cable")
            await connection.run("true")
    except ConnectionLost:
        if not handle:
            raise


async def test_an_instance_that_cannot_be_reached_is_retired() -> None:
    """If connecting fails on entering, the next task gets another instance."""
    group = FakeInstanceGroup()
    async with Taskscaler([group], TWO_SLOTS, connect=group.connect) as scaler:
        async with scaler.acquire("a") as first:
            group.connector.break_(first.instance)
            group.script("connect", Reply(error=Unreachable("no answer")))
            with pytest.raises(Unreachable, match="no answer"):
                async with first.connect():
                    pytest.fail("the body must not run")
            async with scaler.acquire("b") as second:
                assert second.instance != first.instance


@pytest.mark.parametrize(
    "error",
    [
        TransferFailed("no such file"),
        NotSupported("no TCP here"),
        Unreachable("no answer on port 80 of the instance"),
        ConnectionLost("the connection to quite another instance is lost"),
        ValueError("mine"),
    ],
)
async def test_an_error_that_leaves_the_connection_intact_retires_nothing(error: Exception) -> None:
    """After a failed transfer or a closed port, the instance stays."""
    group = FakeInstanceGroup()
    async with Taskscaler([group], TWO_SLOTS, connect=group.connect) as scaler:
        async with scaler.acquire("a") as first:
            with pytest.raises(type(error)):
                async with first.connect():
                    raise error
            assert scaler.capacity().instances["ready"] == 1
            async with scaler.acquire("b") as second:
                assert second.instance == first.instance
        assert len(group.calls_of("increase")) == 1


async def test_an_unsupported_operation_retires_nothing() -> None:
    """The instance stays if its connector does not support an operation."""
    group = FakeInstanceGroup()
    async with (
        Taskscaler([group], TWO_SLOTS, connect=group.connect) as scaler,
        scaler.acquire("a") as acquisition,
    ):
        with pytest.raises(NotSupported):
            async with acquisition.connect() as connection:
                await connection.open_tcp("localhost", 80)
        assert scaler.capacity().instances["ready"] == 1


async def test_a_successor_under_the_same_id_does_not_inherit_the_loss() -> None:
    """A broken connection to the predecessor is not a failure of the successor."""
    group = FakeInstanceGroup()
    async with Taskscaler([group], TWO_SLOTS, connect=group.connect) as scaler:
        with pytest.raises(AcquisitionLost):
            async with scaler.acquire("a") as acquisition, acquisition.connect():
                group.recreate(acquisition.instance)
                with anyio.CancelScope(shield=True):
                    # One for the predecessor, one for the successor.
                    while len(scaler.instances()) < 2 or not scaler.capacity().instances["ready"]:
                        await anyio.sleep(1)
                await anyio.sleep_forever()
        assert scaler.capacity().instances["ready"] == 1
        async with scaler.acquire("b", timeout=timedelta(seconds=1)) as successor:
            assert successor.instance == "i-1"
            async with successor.connect() as connection:
                assert (await connection.run("true")).succeeded


async def test_connecting_after_giving_back_is_refused() -> None:
    """An acquisition cannot be used outside of its block."""
    group = FakeInstanceGroup()
    async with Taskscaler([group], connect=group.connect) as scaler:
        async with scaler.acquire("a") as acquisition:
            pass
        with pytest.raises(IllegalEvent, match="'a' cannot connect: it does not hold its slot"):
            async with acquisition.connect():
                pytest.fail("the body must not run")


async def test_connecting_after_a_loss_is_refused() -> None:
    """The clean-up of a body cannot connect to the instance any more."""
    group = FakeInstanceGroup()
    async with Taskscaler([group], connect=group.connect) as scaler:
        with pytest.raises(AcquisitionLost):
            async with scaler.acquire("a") as acquisition:
                group.vanish(acquisition.instance)
                try:
                    await anyio.sleep_forever()
                finally:
                    with anyio.CancelScope(shield=True), pytest.raises(AcquisitionLost):
                        async with acquisition.connect():
                            pytest.fail("the body must not run")


async def test_nothing_of_an_instance_that_vanished_is_kept() -> None:
    """Its connection is closed, although its removal was never requested."""
    group = FakeInstanceGroup()
    async with Taskscaler([group], TWO_SLOTS, connect=group.connect) as scaler:
        async with scaler.acquire("a") as acquisition, acquisition.connect():
            pass
        assert len(scaler._connections._shared) == 1
        group.vanish("i-1")
        while scaler.instances()[0].removed_at is None:
            await anyio.sleep(1)
        assert scaler._connections._shared == {}


async def test_connecting_fails_if_the_instance_is_lost_meanwhile() -> None:
    """A connection that is made too late is closed, even in a task that is shielded."""
    group = FakeInstanceGroup()
    gate = Gate()
    async with Taskscaler([group], TWO_SLOTS, connect=group.connect) as scaler:

        async def reach(acquisition: Acquisition) -> None:
            with anyio.CancelScope(shield=True), pytest.raises(InstanceGone, match="given up"):
                async with acquisition.connect():
                    pytest.fail("the body must not run")

        with pytest.raises(AcquisitionLost):
            async with scaler.acquire("a") as acquisition, anyio.create_task_group() as tasks:
                group.connector.break_("i-1")
                group.script("connect", Reply(before=gate))
                tasks.start_soon(reach, acquisition)
                await gate.reached()
                group.recreate("i-1")
                with anyio.CancelScope(shield=True):
                    while len(scaler.instances()) < 2 or not scaler.capacity().instances["ready"]:
                        await anyio.sleep(1)
                gate.open()
                await anyio.sleep_forever()
        assert len(group.connector.connections) == 1
