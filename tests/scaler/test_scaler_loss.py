"""An instance goes away under a task, or does not."""

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
    """Take it away."""
    group.vanish(id)


def fail(group: FakeInstanceGroup, id: str) -> None:
    """Let the cloud say that it failed."""
    group.set_state(id, State.FAILED, "its disk died")


def delete(group: FakeInstanceGroup, id: str) -> None:
    """Let the cloud say that it is being taken away."""
    group.set_state(id, State.DELETING)


def recreate(group: FakeInstanceGroup, id: str) -> None:
    """Put another one in its place."""
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
async def test_a_lost_instance_cancels_what_runs_on_it(
    lose: Callable[[FakeInstanceGroup, str], None], cause: str
) -> None:
    """Gone, failed, being deleted, replaced: the body is cancelled, and the exception says why."""
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


async def test_every_task_of_a_lost_instance_is_told() -> None:
    """Both tasks on it are cancelled, and the one on another instance is not."""
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


async def test_the_body_own_exception_comes_through() -> None:
    """While the instance is fine, an exception of the body is the body's, with its cause."""
    group = FakeInstanceGroup()
    async with Taskscaler([group], connect=group.connect) as scaler:
        with pytest.raises(ValueError, match="mine") as caught:
            async with scaler.acquire("a"):
                raise ValueError("mine") from KeyError("why")
        assert isinstance(caught.value.__cause__, KeyError)
        assert scaler.capacity().slots_used == 0


async def test_what_fails_because_of_the_loss_is_told_as_the_loss() -> None:
    """When the body fails after the instance was lost, that failure is the cause of the loss's."""
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


async def test_a_body_that_ends_by_itself_has_not_lost_anything() -> None:
    """A body that is done when the loss comes, and does not wait, ends well."""
    group = FakeInstanceGroup()
    async with Taskscaler([group], connect=group.connect) as scaler:
        async with scaler.acquire("a") as acquisition:
            group.vanish(acquisition.instance)
            with anyio.CancelScope(shield=True):
                await anyio.sleep(600)
        assert scaler.capacity().slots_used == 0


@pytest.mark.parametrize("grouped", [False, True])
async def test_a_lost_connection_retires_the_instance(grouped: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """The instance gets no further task, the other one there goes on, and then it is removed."""
    group = FakeInstanceGroup()
    settings = Settings(capacity_per_instance=2, max_instances=2, policy=LAZY)
    kinds = (ConnectionLost, BaseExceptionGroup)
    async with Taskscaler([group], settings, connect=group.connect) as scaler:
        async with scaler.acquire("survivor") as survivor:
            with pytest.raises(kinds[grouped]):
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


async def test_an_instance_that_cannot_be_reached_is_retired() -> None:
    """Failing to connect on entering is the instance's fault, and a next task gets another."""
    group = FakeInstanceGroup()
    async with Taskscaler([group], TWO_SLOTS, connect=group.connect) as scaler:
        async with scaler.acquire("a") as first:
            group.connector.break_(first.instance)
            group.script("connect", Reply(error=Unreachable("nobody listens")))
            with pytest.raises(Unreachable, match="nobody listens"):
                async with first.connect():
                    pytest.fail("the body must not run")
            async with scaler.acquire("b") as second:
                assert second.instance != first.instance


@pytest.mark.parametrize(
    "error",
    [
        TransferFailed("no such file"),
        NotSupported("no TCP here"),
        Unreachable("nobody listens on port 80 of the instance"),
        ConnectionLost("the connection to quite another instance is lost"),
        ValueError("mine"),
    ],
)
async def test_an_error_that_leaves_the_connection_intact_retires_nothing(error: Exception) -> None:
    """A failed transfer, a closed port, another connection's loss: the instance stays."""
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


async def test_what_the_connector_cannot_do_retires_nothing() -> None:
    """The same with a connection that opens no streams."""
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
    """What broke with the predecessor is not reported as the successor's failure."""
    group = FakeInstanceGroup()
    async with Taskscaler([group], TWO_SLOTS, connect=group.connect) as scaler:
        with pytest.raises(AcquisitionLost):
            async with scaler.acquire("a") as acquisition, acquisition.connect():
                group.recreate(acquisition.instance)
                with anyio.CancelScope(shield=True):
                    # The predecessor and the successor.
                    while len(scaler.instances()) < 2 or not scaler.capacity().instances["ready"]:
                        await anyio.sleep(1)
                await anyio.sleep_forever()
        assert scaler.capacity().instances["ready"] == 1
        async with scaler.acquire("b", timeout=timedelta(seconds=1)) as successor:
            assert successor.instance == "i-1"
            async with successor.connect() as connection:
                assert (await connection.run("true")).succeeded


async def test_a_slot_that_was_given_back_connects_no_more() -> None:
    """An acquisition is of no use outside of its block, and says so."""
    group = FakeInstanceGroup()
    async with Taskscaler([group], connect=group.connect) as scaler:
        async with scaler.acquire("a") as acquisition:
            pass
        with pytest.raises(IllegalEvent, match="'a' cannot connect: it does not hold its slot"):
            async with acquisition.connect():
                pytest.fail("the body must not run")


async def test_a_slot_that_was_lost_connects_no_more() -> None:
    """A body that goes on in its clean-up does not reach the instance any more."""
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


async def test_nothing_is_kept_of_an_instance_that_vanished() -> None:
    """What nobody asked to remove is hung up like what was removed."""
    group = FakeInstanceGroup()
    async with Taskscaler([group], TWO_SLOTS, connect=group.connect) as scaler:
        async with scaler.acquire("a") as acquisition, acquisition.connect():
            pass
        assert len(scaler._connections._shared) == 1
        group.vanish("i-1")
        while scaler.instances()[0].removed_at is None:
            await anyio.sleep(1)
        assert scaler._connections._shared == {}


async def test_who_is_connecting_when_the_instance_is_lost_gets_no_connection() -> None:
    """A connection that comes about too late is closed, though its task could not be cancelled."""
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
