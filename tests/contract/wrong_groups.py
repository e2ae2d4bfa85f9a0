"""Groups that each break one promise, held to the contract; their tests must fail.

These go wrong in plain use; those of `wrong_groups_in_trouble.py` need some to show it.

Not collected by itself: `test_contract_catches.py` runs it and reads the result.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest
from typing_extensions import override

from fleeting.errors import InstanceGone, InstanceUnhealthy, OutOfCapacity, ProviderError
from fleeting.testing import FakeInstanceGroup
from fleeting.types import Accepted, Instance, State
from wrong_contract import WrongContract

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from fleeting.abc import InstanceGroup
    from fleeting.testing import FakeConnection
    from fleeting.types import ConnectInfo, Listing


def _is_creating(instance: Instance) -> bool:
    return instance.state is State.CREATING


class TestRight(WrongContract):
    """No promise is broken: nothing may fail here, or the others prove nothing."""


class TestDecreaseRefusesUnknown(WrongContract):
    class Group(FakeInstanceGroup):
        """It reports ids that it does not know as refused."""

        @override
        async def decrease(self, ids: Sequence[str]) -> Accepted:
            present = [id for id in ids if self._has(id, *State)]
            accepted = await super().decrease(present)
            if len(present) == len(set(ids)):
                return accepted
            return replace(accepted, error=ProviderError("no such instance"))


class TestListingHasDuplicate(WrongContract):
    class Group(FakeInstanceGroup):
        """Its listing has the first instance twice."""

        @override
        async def update(self) -> Listing:
            listing = await super().update()
            return replace(listing, instances=listing.instances + listing.instances[:1])


class TestListingForgets(WrongContract):
    class Group(FakeInstanceGroup):
        """Every second listing lacks an instance."""

        flips = 0

        @override
        async def update(self) -> Listing:
            listing = await super().update()
            self.flips += 1
            keep = len(listing.instances) - (self.flips % 2 and len(listing.instances) > 1)
            return replace(listing, instances=listing.instances[:keep])


class TestIncreaseWaits(WrongContract):
    class Group(FakeInstanceGroup):
        """Its increase comes back when the instances run, which somebody else must see to."""

        @override
        async def increase(self, count: int, operation: str) -> Accepted:
            accepted = await super().increase(count, operation)
            await self.until(lambda: not any(map(_is_creating, self.listing.instances)))
            return accepted


class TestIncreaseLies(WrongContract):
    class Group(FakeInstanceGroup):
        """Its increase creates one less than it accepts."""

        @override
        async def increase(self, count: int, operation: str) -> Accepted:
            await super().increase(max(1, count - 1), operation)
            return Accepted(count)


class TestIncreaseRaisesForPart(WrongContract):
    class Group(FakeInstanceGroup):
        """Its increase raises when it has accepted a part."""

        @override
        async def increase(self, count: int, operation: str) -> Accepted:
            accepted = await super().increase(count, operation)
            if accepted.error is not None:
                raise OutOfCapacity("the group is full")
            return accepted


class TestIncreaseForgetsOperation(WrongContract):
    @override
    def make_group(self) -> FakeInstanceGroup:
        return FakeInstanceGroup(max_size=3, idempotent=False)


class TestReplacesRemoved(WrongContract):
    class Group(FakeInstanceGroup):
        """It replaces what is removed."""

        @override
        async def decrease(self, ids: Sequence[str]) -> Accepted:
            running = [one.id for one in self.listing.instances if one.id in ids]
            accepted = await super().decrease(ids)
            if len(self.listing.instances) > 1:
                self.vanish(*running)
                self.add()
            return accepted


class TestAcceptedIdsMissing(WrongContract):
    class Group(FakeInstanceGroup):
        """Its decrease gives no ids."""

        @override
        async def decrease(self, ids: Sequence[str]) -> Accepted:
            return replace(await super().decrease(ids), ids=())


class TestKeyErrorForUnknown(WrongContract):
    class Group(FakeInstanceGroup):
        """It lets a foreign exception through."""

        @override
        async def connect_info(self, id: str) -> ConnectInfo:
            try:
                return await super().connect_info(id)
            except InstanceGone:
                raise KeyError(id) from None


class TestInfoChanges(WrongContract):
    class Group(FakeInstanceGroup):
        """Its size limit moves with its size."""

        @override
        async def update(self) -> Listing:
            listing = await super().update()
            self.info = replace(self.info, max_size=len(listing.instances) + 1)
            return listing


class TestCancellationLeaksTask(WrongContract):
    class Group(FakeInstanceGroup):
        """Its heartbeat starts a task that a cancellation leaves behind."""

        @override
        async def heartbeat(self, id: str) -> None:
            answer = asyncio.create_task(asyncio.sleep(3600))
            await super().heartbeat(id)
            answer.cancel()


class TestCancellationKeepsLock(WrongContract):
    class Group(FakeInstanceGroup):
        """Its update takes a lock that a cancellation leaves taken."""

        gate = 1

        @override
        async def update(self) -> Listing:
            await self.until(lambda: self.gate == 1)
            self.gate = 0
            listing = await super().update()
            self.gate = 1
            return listing


class TestSuspendsUndeclared(WrongContract):
    @override
    def make_group(self) -> FakeInstanceGroup:
        return self.Group(max_size=3)

    class Group(FakeInstanceGroup):
        """It suspends although it does not say that it can."""

        @override
        async def suspend(self, ids: Sequence[str]) -> Accepted:
            await anyio.lowlevel.checkpoint()
            return Accepted(0)


class TestSuspendDoesNothing(WrongContract):
    class Group(FakeInstanceGroup):
        """It says that it can suspend, accepts, and does nothing."""

        @override
        async def suspend(self, ids: Sequence[str]) -> Accepted:
            await anyio.lowlevel.checkpoint()
            return Accepted(len(ids), tuple(ids))


class TestClosingRemoves(WrongContract):
    @pytest.fixture
    @override
    def open_group(self) -> Callable[[], AbstractAsyncContextManager[InstanceGroup]]:
        """Open a new and empty group each time."""

        @asynccontextmanager
        async def open_group() -> AsyncGenerator[InstanceGroup]:
            yield FakeInstanceGroup(max_size=3)

        return open_group


class TestClosingLeavesFile(WrongContract):
    """It opens a file with the group, and keeps it."""

    @override
    @asynccontextmanager
    async def opened(self, group: FakeInstanceGroup) -> AsyncGenerator[None]:
        os.open(__file__, os.O_RDONLY)
        yield


class TestPageLost(WrongContract):
    class Group(FakeInstanceGroup):
        """It lists the first page only."""

        @override
        async def update(self) -> Listing:
            listing = await super().update()
            return replace(listing, instances=listing.instances[:2])


class TestPageBorderTwice(WrongContract):
    class Group(FakeInstanceGroup):
        """The last instance of a page is the first of the next one, too."""

        @override
        async def update(self) -> Listing:
            listing = await super().update()
            first, second = listing.instances[:2], listing.instances[2:]
            return replace(listing, instances=first + (first[-1:] + second if second else ()))


class TestUpdateAdds(WrongContract):
    class Group(FakeInstanceGroup):
        """It takes being listed for a third time for a wish."""

        listings = 0

        @override
        async def update(self) -> Listing:
            self.listings += 1
            if self.listings == 3:
                self.add()
            return await super().update()


class TestIncarnationChanges(WrongContract):
    class Group(FakeInstanceGroup):
        """It makes a new incarnation up for each listing."""

        listings = 0

        @override
        async def update(self) -> Listing:
            listing = await super().update()
            self.listings += 1
            new = str(self.listings)
            return replace(
                listing,
                instances=tuple(replace(one, incarnation=new) for one in listing.instances),
            )


class TestIdChanges(WrongContract):
    """It has another name whenever it is opened."""

    @override
    @asynccontextmanager
    async def opened(self, group: FakeInstanceGroup) -> AsyncGenerator[None]:
        group.info = replace(group.info, id=f"{group.info.id}'")
        yield


class TestUnknownIsCloudsError(WrongContract):
    class Group(FakeInstanceGroup):
        """It takes an id that it does not know for the cloud's mistake."""

        @override
        async def heartbeat(self, id: str) -> None:
            try:
                await super().heartbeat(id)
            except InstanceGone:
                raise ProviderError(f"404 for {id}") from None


class TestGoneIsSick(WrongContract):
    class Group(FakeInstanceGroup):
        """It says of an instance that it has had once that it is sick."""

        @override
        async def heartbeat(self, id: str) -> None:
            try:
                await super().heartbeat(id)
            except InstanceGone:
                if id.startswith("i-"):
                    raise InstanceUnhealthy(id, f"{id} does not answer") from None
                raise


class TestDecreaseOfManyRefused(WrongContract):
    class Group(FakeInstanceGroup):
        """It hands on at once what the cloud takes in pieces."""

        @override
        async def decrease(self, ids: Sequence[str]) -> Accepted:
            if len(ids) > 10:
                raise ProviderError("at most 10 in one call")
            return await super().decrease(ids)


class TestDuplicateRefused(WrongContract):
    class Group(FakeInstanceGroup):
        """It hands on ids that are given twice, which the cloud refuses."""

        @override
        async def decrease(self, ids: Sequence[str]) -> Accepted:
            if len(set(ids)) < len(ids):
                raise ProviderError("an id was given more than once")
            return await super().decrease(ids)


class TestDecreaseLowersTooMuch(WrongContract):
    class Group(FakeInstanceGroup):
        """It lowers the size by an instance that is gone already, so that another one goes."""

        @override
        async def decrease(self, ids: Sequence[str]) -> Accepted:
            known = [one for one in ids if one.startswith("i-")]
            running = [one.id for one in self.listing.instances if one.id not in known]
            if known and running and not any(self._has(one, *State) for one in known):
                self.vanish(running[0])
            return await super().decrease(ids)


class TestComingStays(WrongContract):
    class Group(FakeInstanceGroup):
        """It accepts the removal of an instance that is being created, and forgets it."""

        @override
        async def decrease(self, ids: Sequence[str]) -> Accepted:
            await super().decrease([one for one in ids if not self._has(one, State.CREATING)])
            return Accepted(len(set(ids)), tuple(dict.fromkeys(ids)))

    @override
    def make_group(self) -> FakeInstanceGroup:
        return self.Group(max_size=3, boot_updates=3)


class TestConnectLoses(WrongContract):
    class Group(FakeInstanceGroup):
        """An instance that somebody connects to goes away after that."""

        lost = ""

        @override
        async def connect(self, info: ConnectInfo) -> FakeConnection:
            self.lost = info.id
            return await super().connect(info)

        @override
        async def update(self) -> Listing:
            if self._has(self.lost, *State):
                self.vanish(self.lost)
            return await super().update()


class TestConnectTruncates(WrongContract):
    class Group(FakeInstanceGroup):
        """Its instances keep no more than the beginning of a file."""

        @override
        async def connect(self, info: ConnectInfo) -> FakeConnection:
            connection = await super().connect(info)
            get = connection.get

            async def get_less(source: str, destination: Path) -> None:
                await get(source, destination)
                await anyio.to_thread.run_sync(os.truncate, destination, 1000)

            setattr(connection, "get", get_less)  # noqa: B010 - type checkers refuse the plain form
            return connection


class TestNameless(WrongContract):
    @override
    def make_group(self) -> FakeInstanceGroup:
        return FakeInstanceGroup(id="", max_size=3)


class TestNamesOthers(WrongContract):
    class Group(FakeInstanceGroup):
        """Its increase makes names up."""

        @override
        async def increase(self, count: int, operation: str) -> Accepted:
            accepted = await super().increase(count, operation)
            return replace(accepted, ids=tuple(f"new-{id}" for id in accepted.ids))


class TestRunningIsSick(WrongContract):
    class Group(FakeInstanceGroup):
        """It expects an answer that an instance cannot give before it is connected to."""

        @override
        async def heartbeat(self, id: str) -> None:
            await super().heartbeat(id)
            raise InstanceUnhealthy(id, f"{id} has never answered")


class TestNothingIsAll(WrongContract):
    class Group(FakeInstanceGroup):
        """It passes an empty list on, which the cloud takes for all."""

        @override
        async def decrease(self, ids: Sequence[str]) -> Accepted:
            if not ids:
                self.vanish(*[one.id for one in self.listing.instances])
            return await super().decrease(ids)


class TestConnectInfoOfAnother(WrongContract):
    class Group(FakeInstanceGroup):
        """It names an instance otherwise than its group does."""

        @override
        async def connect_info(self, id: str) -> ConnectInfo:
            return replace(await super().connect_info(id), id=f"{id}.internal")
