"""More groups that each break one promise: suspended, watched, cancelled, closed, checked.

pytest does not collect this file; `test_contract_catches.py` runs it.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
from typing_extensions import override

from fleeting.errors import InstanceGone, OutOfCapacity, ProviderError
from fleeting.testing import FakeInstanceGroup, Fault
from fleeting.types import Accepted, Capability, Finding, Listing, Severity, State
from wrong_contract import WARNING, WrongContract

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    from fleeting.abc import InstanceGroup
    from fleeting.types import ConnectInfo, Instance, Notice

SECRET = WrongContract.secrets[0]

logger = logging.getLogger(__name__)


class TestSuspendNotTwice(WrongContract):
    class Group(FakeInstanceGroup):
        """Refuses to suspend an instance twice."""

        @override
        async def suspend(self, ids: Sequence[str]) -> Accepted:
            if any(self._has(id, State.SUSPENDED) for id in ids):
                raise ProviderError("wrong state")
            return await super().suspend(ids)


class TestSuspendedNotListed(WrongContract):
    class Group(FakeInstanceGroup):
        """Lists a suspended instance only once."""

        seen = frozenset[str]()

        @override
        async def update(self) -> Listing:
            listing = await super().update()
            left = tuple(one for one in listing.instances if one.id not in self.seen)
            self.seen |= {one.id for one in left if one.state is State.SUSPENDED}
            return replace(listing, instances=left)


class TestResumeForgets(WrongContract):
    class Group(FakeInstanceGroup):
        """Resumes an instance with another incarnation."""

        @override
        async def resume(self, ids: Sequence[str]) -> Accepted:
            for id in ids:
                if self._has(id, State.SUSPENDED):
                    self.recreate(id)
            return await super().resume(ids)


class TestSuspendIgnoresCancellation(WrongContract):
    class Group(FakeInstanceGroup):
        """Swallows the cancellation of `suspend`."""

        @override
        async def suspend(self, ids: Sequence[str]) -> Accepted:
            try:
                return await super().suspend(ids)
            except anyio.get_cancelled_exc_class():
                return Accepted(0, (), ProviderError("interrupted"))


class TestReaderTakesFailures(WrongContract):
    class Group(FakeInstanceGroup):
        """Forgets a failure as soon as a second reader has seen it."""

        openings = 0

        @override
        async def update(self) -> Listing:
            listing = await super().update()
            if self.openings > 1:
                self._failures.clear()
            return listing

    @override
    def make_group(self) -> FakeInstanceGroup:
        group = self.Group(max_size=3, capabilities=list(Capability), pending_updates=None)
        group._pending.append((None, None))
        group.give_up(OutOfCapacity("none left"))
        group._pending_updates = 0
        return group

    @override
    @asynccontextmanager
    async def opened(self, group: FakeInstanceGroup) -> AsyncGenerator[None]:
        assert isinstance(group, self.Group)
        group.openings += 1
        yield
        group.openings -= 1


class TestGoalsAreForgotten(WrongContract):
    class Group(FakeInstanceGroup):
        """Remembers in the process alone which instances are to be suspended in the end."""

        goals: frozenset[str] = frozenset()

        @override
        async def suspend(self, ids: Sequence[str]) -> Accepted:
            accepted = await super().suspend(ids)
            for id in accepted.ids:
                if self._has(id, State.SUSPENDING):
                    self.set_state(id, State.SUSPENDING)
            self.goals = frozenset(accepted.ids)
            return accepted

        @override
        async def reconcile(self, listing: Listing) -> None:
            await super().reconcile(listing)
            for id in self.goals:
                if self._has(id, State.SUSPENDING):
                    self.set_state(id, State.SUSPENDED)

    @override
    @asynccontextmanager
    async def opened(self, group: FakeInstanceGroup) -> AsyncGenerator[None]:
        assert isinstance(group, self.Group)
        yield
        group.goals = frozenset()


class TestWatchHangs(WrongContract):
    class Group(FakeInstanceGroup):
        """Restarts a watch that was cancelled."""

        @override
        async def watch(self) -> AsyncIterator[Notice]:
            while True:
                try:
                    async for notice in super().watch():
                        yield notice
                except anyio.get_cancelled_exc_class():
                    pass


class TestWatchTellsNothing(WrongContract):
    class Group(FakeInstanceGroup):
        """Declares that it can be watched, but sends no notices."""

        @override
        async def watch(self) -> AsyncIterator[Notice]:
            await anyio.sleep_forever()
            async for notice in super().watch():
                yield notice


class TestListingsMix(WrongContract):
    class Group(FakeInstanceGroup):
        """Mixes the pages of concurrent listings."""

        pages: tuple[Instance, ...] = ()

        @override
        async def update(self) -> Listing:
            self.pages = ()
            listing = await super().update()
            self.pages += listing.instances
            await anyio.lowlevel.checkpoint()
            return replace(listing, instances=self.pages)


class TestIncreasesMix(WrongContract):
    class Group(FakeInstanceGroup):
        """Loses one of two concurrent increases."""

        @override
        async def increase(self, count: int, operation: str) -> Accepted:
            wanted = self.size + count
            await anyio.lowlevel.checkpoint()
            for _ in range(wanted - self.size):
                self.add()
            return Accepted(count)


class TestSecondOpeningDisturbs(WrongContract):
    """Removes existing instances when it is opened."""

    @override
    @asynccontextmanager
    async def opened(self, group: FakeInstanceGroup) -> AsyncGenerator[None]:
        group.vanish(*[one.id for one in group.listing.instances])
        yield


class TestSwallowsCancellation(WrongContract):
    class Group(FakeInstanceGroup):
        """Swallows the cancellation of a heartbeat."""

        @override
        async def heartbeat(self, id: str) -> None:
            try:
                await super().heartbeat(id)
            except anyio.get_cancelled_exc_class():
                return


class TestGoesOnWhenCancelled(WrongContract):
    class Group(FakeInstanceGroup):
        """Ignores the cancellation of `connect_info`."""

        @override
        async def connect_info(self, id: str) -> ConnectInfo:
            while True:
                try:
                    await anyio.sleep(0.01)
                    return await super().connect_info(id)
                except anyio.get_cancelled_exc_class():
                    continue


class TestCancellationBecomesError(WrongContract):
    class Group(FakeInstanceGroup):
        """Turns a cancellation into an error."""

        @override
        async def decrease(self, ids: Sequence[str]) -> Accepted:
            try:
                return await super().decrease(ids)
            except BaseException as error:
                raise ProviderError(f"decrease failed: {error!r}") from error


class TestCancelledIncreaseRepeats(WrongContract):
    class Group(FakeInstanceGroup):
        """Repeats an increase that was cancelled."""

        @override
        async def increase(self, count: int, operation: str) -> Accepted:
            try:
                return await super().increase(count, operation)
            except anyio.get_cancelled_exc_class():
                with anyio.CancelScope(shield=True):
                    await super().increase(count, f"{operation} again")
                    await super().increase(count, f"{operation} and again")
                raise


class TestOpeningLeaves(WrongContract):
    """Leaves a file open if the opening is cancelled."""

    @override
    @asynccontextmanager
    async def opened(self, group: FakeInstanceGroup) -> AsyncGenerator[None]:
        file = os.open(__file__, os.O_RDONLY)
        await anyio.lowlevel.checkpoint()
        try:
            yield
        finally:
            os.close(file)


class TestClosingWraps(WrongContract):
    """Wraps an exception of the block in an exception group."""

    @override
    @asynccontextmanager
    async def opened(self, group: FakeInstanceGroup) -> AsyncGenerator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.lowlevel.checkpoint)
            yield


class TestCancelledUseLeaves(WrongContract):
    """Leaves a file open if the block is cancelled."""

    @override
    @asynccontextmanager
    async def opened(self, group: FakeInstanceGroup) -> AsyncGenerator[None]:
        file = os.open(__file__, os.O_RDONLY)
        try:
            yield
        finally:
            await anyio.lowlevel.checkpoint()
            os.close(file)


class TestLeavesThread(WrongContract):
    """Leaves a thread running after the group is closed."""

    @override
    @asynccontextmanager
    async def opened(self, group: FakeInstanceGroup) -> AsyncGenerator[None]:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        yield


class TestLeavesProcess(WrongContract):
    """Leaves a process running after the group is closed."""

    @override
    @asynccontextmanager
    async def opened(self, group: FakeInstanceGroup) -> AsyncGenerator[None]:
        os.posix_spawn("/bin/sleep", ["sleep", "5"], os.environ)  # noqa: ASYNC221 - it does not block
        yield


class TestPilesSocketsUp(WrongContract):
    class Group(FakeInstanceGroup):
        """Opens a socket for each heartbeat and never closes it."""

        @override
        async def heartbeat(self, id: str) -> None:
            await super().heartbeat(id)
            socket.socket().detach()


class TestSecretInError(WrongContract):
    class Group(FakeInstanceGroup):
        """Shows a secret in an error message."""

        @override
        async def heartbeat(self, id: str) -> None:
            try:
                await super().heartbeat(id)
            except InstanceGone as error:
                raise InstanceGone(id, f"{error}: GET /{id} Authorization: {SECRET}") from None


class TestSecretInCause(WrongContract):
    class Group(FakeInstanceGroup):
        """Shows a secret in the cause of an error."""

        @override
        async def heartbeat(self, id: str) -> None:
            try:
                await super().heartbeat(id)
            except InstanceGone as error:
                raise error from ValueError(f"401 for {SECRET!r}")


class TestSecretInLog(WrongContract):
    class Group(FakeInstanceGroup):
        """Logs a secret."""

        @override
        async def connect_info(self, id: str) -> ConnectInfo:
            info = replace(await super().connect_info(id), password="open-sesame")  # noqa: S106
            logger.debug("%s: password %s", id, info.password)
            return info


class TestCheckStarts(WrongContract):
    """Starts an instance in a check."""

    @override
    async def checked(self, group: FakeInstanceGroup) -> Sequence[Finding]:
        await group.increase(1, "try")
        return []


class TestCheckCriesWolf(WrongContract):
    """Reports an error in a group that works."""

    @override
    async def checked(self, group: FakeInstanceGroup) -> Sequence[Finding]:
        await anyio.lowlevel.checkpoint()
        return [WARNING, Finding(Severity.ERROR, "gone", f"there is no group {group.info.id}")]


class TestCheckLeaves(WrongContract):
    """Leaves a file open if a check is cancelled."""

    @override
    async def checked(self, group: FakeInstanceGroup) -> Sequence[Finding]:
        file = os.open(__file__, os.O_RDONLY)
        await anyio.lowlevel.checkpoint()
        os.close(file)
        return [] if Capability.WATCH in group.info.capabilities else [WARNING]


class TestGoneGroupIsEmpty(WrongContract):
    class Group(FakeInstanceGroup):
        """Returns an empty listing if the group does not exist any more."""

        is_gone = False

        @override
        async def update(self) -> Listing:
            listing = await super().update()
            return Listing() if self.is_gone else listing

    @override
    async def fault(self, group: InstanceGroup | None, kind: Fault) -> bool:
        assert isinstance(group, self.Group)
        group.is_gone = kind is Fault.GROUP_GONE
        return True
