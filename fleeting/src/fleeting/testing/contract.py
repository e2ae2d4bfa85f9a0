"""The tests that every group of instances must pass; for the authors of providers.

A test file of a provider is this class with one fixture::

    import pytest
    from fleeting.testing import InstanceGroupContract
    from fleeting.types import GroupSettings

    class TestContract(InstanceGroupContract):
        @pytest.fixture
        def open_group(self):
            provider = MyProvider()
            return lambda: provider.open(MyConfig(region="..."), GroupSettings())

It needs pytest, as `fleeting[testing]` brings it, and runs against whatever
that opens: the real cloud, or a fake of it. Instances that are there already
are left alone; those that a test adds, it removes. No test has more than
`affordable` of them at a time, but a real cloud bills each.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
import pytest

import fleeting
from fleeting.errors import InstanceGone, NotSupported, ProviderError
from fleeting.testing._examination import (
    Examination,
    Resources,
    cancelled_at,
    check_ids,
    examine,
    expect,
    new_operation,
    present,
)
from fleeting.types import Accepted, Capability, State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from typing import TypeAlias

    from fleeting.abc import Connection, InstanceGroup
    from fleeting.types import ConnectInfo

__all__ = ("InstanceGroupContract",)

_OpenGroup: TypeAlias = "Callable[[], AbstractAsyncContextManager[InstanceGroup]]"


@pytest.mark.anyio
class InstanceGroupContract:
    """The promises of `fleeting.abc.InstanceGroup`, a test for each.

    Override `open_group`, and what else does not fit.

    Attributes:
        instance_timeout: how long an instance may take to come up or to go away.
        call_timeout: how long a single call may take; a call that waits for
            instances takes longer.
        affordable: how many instances a test may add at most; tests that need more,
            such as that of a full group, are skipped.
        cancellation_points: at how many of its awaits each method is cancelled, from
            the first on; each time with a call of its own.
        repeats_operations: whether an increase that is repeated with the same
            operation adds nothing.
        keeps_instances: whether instances are still there when their group is
            closed and opened again.
        can_connect: whether the instances can be reached from here.
        command: a command that every instance can run with success.
        unknown_id: the id of no instance, in the form that the cloud demands.
    """

    instance_timeout = timedelta(minutes=10)
    call_timeout = timedelta(minutes=1)
    affordable = 5
    cancellation_points = 20
    repeats_operations = False
    keeps_instances = True
    can_connect = True
    command = "true"
    unknown_id = "no-such-instance"

    @pytest.fixture
    def anyio_backend(self) -> str:
        """Return the event loop to run on; override it as you like."""
        return "asyncio"

    @pytest.fixture
    def open_group(self) -> _OpenGroup:
        """Return what opens the group; override this.

        It is called without arguments, more than once in some tests, and returns an
        async context manager, such as `Provider.open` does.
        """
        raise NotImplementedError("override the fixture open_group in your subclass")

    async def connect(self, group: InstanceGroup, info: ConnectInfo) -> Connection:  # noqa: ARG002 - a fake's own way needs it
        """Connect to an instance; override it if that needs more than `fleeting.connect`."""
        return await fleeting.connect(info)

    @asynccontextmanager
    async def examined(self, open_group: _OpenGroup) -> AsyncGenerator[Examination]:
        """Open the group for a test, and remove in the end what the test has added."""
        async with (
            open_group() as group,
            examine(group, self.instance_timeout, self.call_timeout) as examination,
        ):
            yield examination

    # What the group says about itself and about its instances.

    async def test_info_names_the_group(self, open_group: _OpenGroup) -> None:
        """A group has a name and, if it has a limit at all, room for something."""
        async with self.examined(open_group) as examination:
            info = examination.group.info
            expect(info.id, "info.id is empty")
            expect(info.max_size is None or info.max_size > 0, f"max_size is {info.max_size}")

    async def test_listing_is_stable(self, open_group: _OpenGroup) -> None:
        """Listings of a group that nobody changes have the same instances, each once."""
        async with self.examined(open_group) as examination:
            await examination.grow(2)
            first, second = await examination.listing(), await examination.listing()
            expect(
                present(first) == present(second),
                f"two listings in a row differ: {present(first) ^ present(second)}",
            )

    async def test_heartbeat_of_running_instance(self, open_group: _OpenGroup) -> None:
        """The heartbeat of an instance that has just come up finds nothing wrong."""
        async with self.examined(open_group) as examination:
            (id,) = await examination.grow(1)
            await examination.call(examination.group.heartbeat, id)

    async def test_unknown_instance_is_gone(self, open_group: _OpenGroup) -> None:
        """Asking about an instance that does not exist raises `InstanceGone`."""
        async with self.examined(open_group) as examination:
            group = examination.group
            with pytest.raises(InstanceGone):
                await examination.call(group.connect_info, self.unknown_id)
            with pytest.raises(InstanceGone):
                await examination.call(group.heartbeat, self.unknown_id)

    # Making it larger.

    async def test_increase_brings_running_instances(self, open_group: _OpenGroup) -> None:
        """An accepted increase brings as many running instances as it accepted, and no more."""
        async with self.examined(open_group) as examination:
            before = present(await examination.listing())
            new = await examination.grow(2)
            await examination.stays({*before, *new}, "more instances came than were asked for")

    async def test_increase_names_the_instances_that_come(self, open_group: _OpenGroup) -> None:
        """Where an increase gives ids at once, those are the ids of the new instances."""
        async with self.examined(open_group) as examination:
            before = present(await examination.listing())
            accepted = await examination.increase(1)
            new = await examination.arrivals(before, 1)
            expect(
                not accepted.ids or list(accepted.ids) == new,
                f"increase named {accepted.ids}, and {new} came",
            )

    async def test_repeated_operation_adds_nothing(self, open_group: _OpenGroup) -> None:
        """An increase that is repeated with the same operation is accepted and adds nothing."""
        if not self.repeats_operations:
            pytest.skip("the group does not declare that it recognizes repeated operations")
        async with self.examined(open_group) as examination:
            before = present(await examination.listing())
            operation = new_operation()
            for _ in range(2):
                accepted = await examination.increase(1, operation)
                expect(accepted.count == 1, "a repeated increase was not accepted")
            new = await examination.arrivals(before, 1)
            await examination.stays({*before, *new}, "the repeated operation added instances")

    async def test_full_group_accepts_in_part(self, open_group: _OpenGroup) -> None:
        """Asking for more than there is room for is accepted in part and says why, as a value."""
        async with self.examined(open_group) as examination:
            before = present(await examination.listing())
            limit = examination.group.info.max_size
            if limit is None or limit - len(before) > self.affordable:
                pytest.skip(f"filling the group takes more than {self.affordable} instances")
            room = limit - len(before)
            accepted = await examination.increase(room + 1)
            expect(accepted.count == room, f"there was room for {room}, not for {accepted.count}")
            await examination.arrivals(before, room)
            try:
                accepted = await examination.increase(1)
            except ProviderError:
                return
            expect(accepted.count == 0, "a full group accepted one instance more")

    # Making it smaller.

    async def test_decrease_removes_without_replacement(self, open_group: _OpenGroup) -> None:
        """A removed instance goes away, is not replaced, and the others stay."""
        async with self.examined(open_group) as examination:
            before = present(await examination.listing())
            removed, kept = await examination.grow(2)
            accepted = await examination.decrease([removed])
            expect(accepted.count == 1, "decrease did not accept a running instance")
            await examination.until(
                lambda listing: removed not in present(listing), f"{removed} did not go away"
            )
            await examination.stays({*before, kept}, "the removed instance was replaced")
            expect(
                kept in present(await examination.listing()),
                f"{kept} is gone, though only {removed} was removed",
            )

    async def test_decrease_is_idempotent(self, open_group: _OpenGroup) -> None:
        """Removing what is being removed, or is gone already, is accepted each time."""
        async with self.examined(open_group) as examination:
            (id,) = await examination.grow(1)
            for _ in range(2):
                accepted = await examination.decrease([id])
                expect(accepted.ids == (id,), f"decrease accepted {accepted.ids}, not {id}")
            await examination.until(
                lambda listing: id not in present(listing), f"{id} did not go away"
            )
            accepted = await examination.decrease([id])
            expect(accepted.ids == (id,), f"decrease did not accept {id}, which is gone")

    async def test_decrease_accepts_unknown_instances(self, open_group: _OpenGroup) -> None:
        """Removing what was never there is accepted, also beside what is there."""
        async with self.examined(open_group) as examination:
            (id,) = await examination.grow(1)
            accepted = await examination.decrease([self.unknown_id, id])
            expect(
                set(accepted.ids) == {self.unknown_id, id},
                f"decrease accepted {accepted.ids}, not all of {(self.unknown_id, id)}",
            )
            await examination.until(
                lambda listing: id not in present(listing), f"{id} did not go away"
            )

    async def test_decrease_of_nothing_does_nothing(self, open_group: _OpenGroup) -> None:
        """Removing no instances is accepted and changes nothing."""
        async with self.examined(open_group) as examination:
            new = await examination.grow(1)
            accepted = await examination.decrease([])
            expect(accepted == Accepted(0), f"decrease of nothing returned {accepted}")
            expect(
                set(new) <= present(await examination.listing()),
                "decrease of nothing removed an instance",
            )

    # Reaching an instance.

    async def test_connect_info_leads_to_the_instance(self, open_group: _OpenGroup) -> None:
        """With the answer of `connect_info`, a command runs on the instance; it shows no secret."""
        async with self.examined(open_group) as examination:
            (id,) = await examination.grow(1)
            info = await examination.call(examination.group.connect_info, id)
            expect(info.id == id, f"connect_info({id!r}) is about {info.id!r}")
            for secret in (info.password, info.private_key):
                expect(secret is None or secret not in repr(info), "repr shows a secret")
            if not self.can_connect:
                return
            async with await self.connect(examination.group, info) as connection:
                completed = await connection.run(self.command)
            expect(completed.succeeded, f"{self.command!r} on the instance: {completed}")

    # What only some groups can do.

    async def test_suspend_and_resume(self, open_group: _OpenGroup) -> None:
        """A group suspends and resumes an instance if it says so, and refuses otherwise."""
        async with self.examined(open_group) as examination:
            group = examination.group
            if Capability.SUSPEND not in group.info.capabilities:
                for refuse in (group.suspend, group.resume):
                    with pytest.raises(NotSupported):
                        await examination.call(refuse, [self.unknown_id])
                return
            (id,) = await examination.grow(1)
            for change, state in (
                (group.suspend, State.SUSPENDED),
                (group.suspend, State.SUSPENDED),
                (group.resume, State.RUNNING),
                (group.resume, State.RUNNING),
            ):
                accepted = await examination.call(change, [id])
                check_ids(accepted, [id], change.__name__)
                expect(accepted.count == 1, f"{change.__name__} did not accept {id}")
                await examination.becomes(id, state)

    async def test_watch(self, open_group: _OpenGroup) -> None:
        """A group can be watched, until that is cancelled, if it says so, and refuses otherwise."""
        async with self.examined(open_group) as examination:
            group = examination.group
            resources = await Resources.settled()
            if Capability.WATCH not in group.info.capabilities:
                with pytest.raises(NotSupported):
                    await anext(group.watch())
                return
            for point in range(1, self.cancellation_points + 1):
                async with anyio.create_task_group() as watching:
                    watching.start_soon(_watch, group, point)
                    await anyio.wait_all_tasks_blocked()
                    watching.cancel_scope.cancel()
            await resources.restored(self.call_timeout, "a cancelled watch")
            await examination.listing()

    # Several at once, cancelled, closed.

    async def test_calls_at_the_same_time(self, open_group: _OpenGroup) -> None:
        """Calls that are under way at the same time do not disturb each other."""
        async with self.examined(open_group) as examination:
            group = examination.group
            (first,) = await examination.grow(1)
            before = present(await examination.listing())

            async def ask() -> None:
                await examination.call(group.heartbeat, first)
                await examination.call(group.connect_info, first)

            async with anyio.create_task_group() as calls:
                for _ in range(2):
                    calls.start_soon(examination.listing)
                    calls.start_soon(examination.increase, 1)
                    calls.start_soon(ask)
            new = await examination.arrivals(before, 2)
            async with anyio.create_task_group() as calls:
                for id in new:
                    calls.start_soon(examination.decrease, [id])
                calls.start_soon(examination.listing)
            await examination.until(
                lambda listing: present(listing) <= before, f"{new} did not go away"
            )

    @pytest.mark.parametrize("method", ["update", "connect_info", "heartbeat", "decrease"])
    async def test_cancelled_call(self, open_group: _OpenGroup, method: str) -> None:
        """A call that is cancelled at any of its awaits leaves nothing behind but its effect."""
        async with self.examined(open_group) as examination:
            (id,) = await examination.grow(1)
            group = examination.group
            calls: dict[str, Callable[[], Awaitable[object]]] = {
                "update": group.update,
                "connect_info": lambda: group.connect_info(id),
                "heartbeat": lambda: group.heartbeat(id),
                "decrease": lambda: group.decrease([id]),
            }
            await examination.call(group.decrease, [self.unknown_id])
            if method != "decrease":
                await examination.call(calls[method])
            resources = await Resources.settled()
            for point in range(1, self.cancellation_points + 1):
                reached = await cancelled_at(point, calls[method]())
                await examination.listing()
                if not reached:
                    break
            await resources.restored(self.call_timeout, f"a cancelled {method}")
            await examination.decrease([id])
            await examination.until(
                lambda listing: id not in present(listing), f"{id} did not go away"
            )

    async def test_cancelled_increase(self, open_group: _OpenGroup) -> None:
        """An increase that is cancelled at any of its awaits adds one instance or none."""
        async with self.examined(open_group) as examination:
            before = present(await examination.listing())
            await examination.grow(1)
            await examination.remove_new(before)
            resources = await Resources.settled()
            for point in range(1, self.cancellation_points + 1):
                increase = examination.group.increase(1, new_operation())
                reached = await cancelled_at(point, increase)
                new = present(await examination.listing()) - before
                expect(len(new) <= 1, f"a cancelled increase of 1 added {sorted(new)}")
                await examination.remove_new(before)
                if not reached:
                    break
            await resources.restored(self.call_timeout, "a cancelled increase")
            await examination.grow(1)

    async def test_closing_leaves_nothing_behind(self, open_group: _OpenGroup) -> None:
        """After a group that was used is closed, no task and no open file of it is left."""
        async with self.examined(open_group) as examination:
            await examination.listing()  # What is opened once and kept for ever, is now.
        resources = await Resources.settled()
        async with self.examined(open_group) as examination:
            (id,) = await examination.grow(1)
            await examination.call(examination.group.heartbeat, id)
            await examination.call(examination.group.connect_info, id)
        await resources.restored(self.call_timeout, "the closed group")

    async def test_closing_touches_no_instance(self, open_group: _OpenGroup) -> None:
        """Instances are there when their group is opened again, or all gone if it says so."""
        async with open_group() as group:
            before = present(await group.update())
        try:
            async with open_group() as group:
                first = Examination(group, self.instance_timeout, self.call_timeout)
                (id,) = await first.grow(1)
            async with open_group() as group:
                kept = id in present(await group.update())
                expect(kept or not self.keeps_instances, f"closing the group removed {id}")
                expect(self.keeps_instances or not kept, f"{id} outlived its group")
        finally:
            async with open_group() as group:
                last = Examination(group, self.instance_timeout, self.call_timeout)
                await last.remove_new(before)


async def _watch(group: InstanceGroup, point: int) -> None:
    """Wait for a notice, and cancel that at one of its awaits."""
    watch = group.watch()
    try:
        await cancelled_at(point, anext(watch))
    finally:
        if isinstance(watch, AsyncGenerator):
            with anyio.CancelScope(shield=True):
                await watch.aclose()
