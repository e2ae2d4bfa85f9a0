"""More groups that each break one promise: suspended, watched, cancelled, closed, checked.

Not collected by itself: `test_contract_catches.py` runs it and reads the result.
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

from fleeting.errors import InstanceGone, ProviderError
from fleeting.testing import FakeInstanceGroup
from fleeting.types import Accepted, Capability, Finding, Listing, Severity, State
from wrong_contract import WARNING, WrongContract

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    from fleeting.types import ConnectInfo, Instance, Notice

SECRET = WrongContract.secrets[0]

logger = logging.getLogger(__name__)


class TestSuspendNotTwice(WrongContract):
    class Group(FakeInstanceGroup):
        """It refuses to suspend what is suspended."""

        @override
        async def suspend(self, ids: Sequence[str]) -> Accepted:
            if any(self._has(id, State.SUSPENDED) for id in ids):
                raise ProviderError("wrong state")
            return await super().suspend(ids)


class TestSuspendedNotListed(WrongContract):
    class Group(FakeInstanceGroup):
        """It lists a suspended instance once, and then no more."""

        seen = frozenset[str]()

        @override
        async def update(self) -> Listing:
            listing = await super().update()
            left = tuple(one for one in listing.instances if one.id not in self.seen)
            self.seen |= {one.id for one in left if one.state is State.SUSPENDED}
            return replace(listing, instances=left)


class TestResumeForgets(WrongContract):
    class Group(FakeInstanceGroup):
        """It resumes an instance as a new machine of the same name."""

        @override
        async def resume(self, ids: Sequence[str]) -> Accepted:
            for id in ids:
                if self._has(id, State.SUSPENDED):
                    self.recreate(id)
            return await super().resume(ids)


class TestSuspendIgnoresCancellation(WrongContract):
    class Group(FakeInstanceGroup):
        """It returns what it has when its suspending is cancelled."""

        @override
        async def suspend(self, ids: Sequence[str]) -> Accepted:
            try:
                return await super().suspend(ids)
            except anyio.get_cancelled_exc_class():
                return Accepted(0, (), ProviderError("interrupted"))


class TestWatchHangs(WrongContract):
    class Group(FakeInstanceGroup):
        """Its watching starts again whatever ends it, and be it a cancellation."""

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
        """It says that it can be watched, and has nothing to say."""

        @override
        async def watch(self) -> AsyncIterator[Notice]:
            await anyio.sleep_forever()
            async for notice in super().watch():
                yield notice


class TestListingsMix(WrongContract):
    class Group(FakeInstanceGroup):
        """Listings at the same time collect their pages in one place."""

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
        """It sets the size that it has seen plus what is asked for, as if it were alone."""

        @override
        async def increase(self, count: int, operation: str) -> Accepted:
            wanted = self.size + count
            await anyio.lowlevel.checkpoint()
            for _ in range(wanted - self.size):
                self.add()
            return Accepted(count)


class TestSecondOpeningDisturbs(WrongContract):
    """Whoever opens the group takes what is there for rubbish of a former run."""

    @override
    @asynccontextmanager
    async def opened(self, group: FakeInstanceGroup) -> AsyncGenerator[None]:
        group.vanish(*[one.id for one in group.listing.instances])
        yield


class TestSwallowsCancellation(WrongContract):
    class Group(FakeInstanceGroup):
        """Its heartbeat takes a cancellation for an answer."""

        @override
        async def heartbeat(self, id: str) -> None:
            try:
                await super().heartbeat(id)
            except anyio.get_cancelled_exc_class():
                return


class TestGoesOnWhenCancelled(WrongContract):
    class Group(FakeInstanceGroup):
        """It asks until it gets an answer, cancelled or not."""

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
        """It turns whatever ends its call into an error of the cloud."""

        @override
        async def decrease(self, ids: Sequence[str]) -> Accepted:
            try:
                return await super().decrease(ids)
            except BaseException as error:
                raise ProviderError(f"decrease failed: {error!r}") from error


class TestCancelledIncreaseRepeats(WrongContract):
    class Group(FakeInstanceGroup):
        """It makes sure of an increase whose cancellation it sees, twice."""

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
    """It closes what it has opened only if it comes so far."""

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
    """What is raised inside of its group comes out in an exception group."""

    @override
    @asynccontextmanager
    async def opened(self, group: FakeInstanceGroup) -> AsyncGenerator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.lowlevel.checkpoint)
            yield


class TestCancelledUseLeaves(WrongContract):
    """It closes properly, unless it is cancelled."""

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
    """Its helper goes on when the group is closed."""

    @override
    @asynccontextmanager
    async def opened(self, group: FakeInstanceGroup) -> AsyncGenerator[None]:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        yield


class TestLeavesProcess(WrongContract):
    """Its helper program goes on when the group is closed."""

    @override
    @asynccontextmanager
    async def opened(self, group: FakeInstanceGroup) -> AsyncGenerator[None]:
        os.posix_spawn("/bin/sleep", ["sleep", "5"], os.environ)  # noqa: ASYNC221 - it is there at once
        yield


class TestPilesSocketsUp(WrongContract):
    class Group(FakeInstanceGroup):
        """Each heartbeat has a socket of its own, for ever."""

        @override
        async def heartbeat(self, id: str) -> None:
            await super().heartbeat(id)
            socket.socket().detach()


class TestSecretInError(WrongContract):
    class Group(FakeInstanceGroup):
        """An error shows the request with all its headers."""

        @override
        async def heartbeat(self, id: str) -> None:
            try:
                await super().heartbeat(id)
            except InstanceGone as error:
                raise InstanceGone(id, f"{error}: GET /{id} Authorization: {SECRET}") from None


class TestSecretInCause(WrongContract):
    class Group(FakeInstanceGroup):
        """An error is clean, and has its library's error as the cause, which is not."""

        @override
        async def heartbeat(self, id: str) -> None:
            try:
                await super().heartbeat(id)
            except InstanceGone as error:
                raise error from ValueError(f"401 for {SECRET!r}")


class TestSecretInLog(WrongContract):
    class Group(FakeInstanceGroup):
        """It logs how to reach an instance, for the sake of debugging."""

        @override
        async def connect_info(self, id: str) -> ConnectInfo:
            info = replace(await super().connect_info(id), password="open-sesame")  # noqa: S106
            logger.debug("%s: password %s", id, info.password)
            return info


class TestCheckStarts(WrongContract):
    """It finds out by trying."""

    @override
    async def checked(self, group: FakeInstanceGroup) -> Sequence[Finding]:
        await group.increase(1, "try")
        return []


class TestCheckCriesWolf(WrongContract):
    """It finds an error in a group that works."""

    @override
    async def checked(self, group: FakeInstanceGroup) -> Sequence[Finding]:
        await anyio.lowlevel.checkpoint()
        return [WARNING, Finding(Severity.ERROR, "gone", f"there is no group {group.info.id}")]


class TestCheckLeaves(WrongContract):
    """It closes what it has opened for the check only if it comes so far."""

    @override
    async def checked(self, group: FakeInstanceGroup) -> Sequence[Finding]:
        file = os.open(__file__, os.O_RDONLY)
        await anyio.lowlevel.checkpoint()
        os.close(file)
        return [] if Capability.WATCH in group.info.capabilities else [WARNING]
