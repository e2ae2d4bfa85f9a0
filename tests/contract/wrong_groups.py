"""Groups that each break one promise in ordinary use, so a test of the contract fails.

Groups that fail only under stress are in `wrong_groups_in_trouble.py`. pytest does not collect
this file; `test_contract_catches.py` runs it.
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
    """A group that keeps every promise, so that failures of the others mean something."""


class TestDecreaseRefusesUnknown(WrongContract):
    class Group(FakeInstanceGroup):
        """Refuses to remove unknown ids."""

        @override
        async def decrease(self, ids: Sequence[str]) -> Accepted:
            present = [id for id in ids if self._has(id, *State)]
            accepted = await super().decrease(present)
            if len(present) == len(set(ids)):
                return accepted
            return replace(accepted, error=ProviderError("no such instance"))


class TestListingHasDuplicate(WrongContract):
    class Group(FakeInstanceGroup):
        """Lists the first instance twice."""

        @override
        async def update(self) -> Listing:
            listing = await super().update()
            return replace(listing, instances=listing.instances + listing.instances[:1])


class TestListingForgets(WrongContract):
    class Group(FakeInstanceGroup):
        """Omits an instance from every second listing."""

        flips = 0

        @override
        async def update(self) -> Listing:
            listing = await super().update()
            self.flips += 1
            keep = len(listing.instances) - (self.flips % 2 and len(listing.instances) > 1)
            return replace(listing, instances=listing.instances[:keep])


class TestIncreaseWaits(WrongContract):
    class Group(FakeInstanceGroup):
        """Waits in `increase` until the instances run."""

        @override
        async def increase(self, count: int, operation: str) -> Accepted:
            accepted = await super().increase(count, operation)
            await self.until(lambda: not any(map(_is_creating, self.listing.instances)))
            return accepted


class TestIncreaseLies(WrongContract):
    class Group(FakeInstanceGroup):
        """Creates one instance less than it accepted."""

        @override
        async def increase(self, count: int, operation: str) -> Accepted:
            await super().increase(max(1, count - 1), operation)
            return Accepted(count)


class TestIncreaseRaisesForPart(WrongContract):
    class Group(FakeInstanceGroup):
        """Raises an error after accepting a part of an increase."""

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
        """Replaces removed instances."""

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
        """Returns no ids from `decrease`."""

        @override
        async def decrease(self, ids: Sequence[str]) -> Accepted:
            return replace(await super().decrease(ids), ids=())


class TestKeyErrorForUnknown(WrongContract):
    class Group(FakeInstanceGroup):
        """Raises an exception that is not a `FleetingError`."""

        @override
        async def connect_info(self, id: str) -> ConnectInfo:
            try:
                return await super().connect_info(id)
            except InstanceGone:
                raise KeyError(id) from None


class TestInfoChanges(WrongContract):
    class Group(FakeInstanceGroup):
        """Changes its size limit with its size."""

        @override
        async def update(self) -> Listing:
            listing = await super().update()
            self.info = replace(self.info, max_size=len(listing.instances) + 1)
            return listing


class TestCancellationLeaksTask(WrongContract):
    class Group(FakeInstanceGroup):
        """Leaves a task behind when a heartbeat is cancelled."""

        @override
        async def heartbeat(self, id: str) -> None:
            answer = asyncio.create_task(asyncio.sleep(3600))
            await super().heartbeat(id)
            answer.cancel()


class TestCancellationKeepsLock(WrongContract):
    class Group(FakeInstanceGroup):
        """Keeps a lock when an update is cancelled."""

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
        """Suspends instances without declaring the capability."""

        @override
        async def suspend(self, ids: Sequence[str]) -> Accepted:
            await anyio.lowlevel.checkpoint()
            return Accepted(0)


class TestSuspendDoesNothing(WrongContract):
    class Group(FakeInstanceGroup):
        """Accepts a suspension, but does nothing."""

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
    """Leaves a file open after the group is closed."""

    @override
    @asynccontextmanager
    async def opened(self, group: FakeInstanceGroup) -> AsyncGenerator[None]:
        os.open(__file__, os.O_RDONLY)
        yield


class TestPageLost(WrongContract):
    class Group(FakeInstanceGroup):
        """Lists only the first page."""

        @override
        async def update(self) -> Listing:
            listing = await super().update()
            return replace(listing, instances=listing.instances[:2])


class TestPageBorderTwice(WrongContract):
    class Group(FakeInstanceGroup):
        """Lists the last instance of a page again on the next page."""

        @override
        async def update(self) -> Listing:
            listing = await super().update()
            first, second = listing.instances[:2], listing.instances[2:]
            return replace(listing, instances=first + (first[-1:] + second if second else ()))


class TestUpdateAdds(WrongContract):
    class Group(FakeInstanceGroup):
        """Adds an instance at the third listing."""

        listings = 0

        @override
        async def update(self) -> Listing:
            self.listings += 1
            if self.listings == 3:
                self.add()
            return await super().update()


class TestIncarnationChanges(WrongContract):
    class Group(FakeInstanceGroup):
        """Reports a new incarnation in each listing."""

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
    """Has another id each time it is opened."""

    @override
    @asynccontextmanager
    async def opened(self, group: FakeInstanceGroup) -> AsyncGenerator[None]:
        group.info = replace(group.info, id=f"{group.info.id}'")
        yield


class TestUnknownIsCloudsError(WrongContract):
    class Group(FakeInstanceGroup):
        """Reports an unknown id as an error of the cloud."""

        @override
        async def heartbeat(self, id: str) -> None:
            try:
                await super().heartbeat(id)
            except InstanceGone:
                raise ProviderError(f"404 for {id}") from None


class TestGoneIsSick(WrongContract):
    class Group(FakeInstanceGroup):
        """Reports a removed instance as unhealthy."""

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
        """Passes on more ids in one call than the cloud accepts."""

        @override
        async def decrease(self, ids: Sequence[str]) -> Accepted:
            if len(ids) > 10:
                raise ProviderError("at most 10 in one call")
            return await super().decrease(ids)


class TestDuplicateRefused(WrongContract):
    class Group(FakeInstanceGroup):
        """Passes on repeated ids, which the cloud refuses."""

        @override
        async def decrease(self, ids: Sequence[str]) -> Accepted:
            if len(set(ids)) < len(ids):
                raise ProviderError("an id was given more than once")
            return await super().decrease(ids)


class TestDecreaseLowersTooMuch(WrongContract):
    class Group(FakeInstanceGroup):
        """Lowers the size for an instance that is already gone, so another one is removed."""

        @override
        async def decrease(self, ids: Sequence[str]) -> Accepted:
            known = [one for one in ids if one.startswith("i-")]
            running = [one.id for one in self.listing.instances if one.id not in known]
            if known and running and not any(self._has(one, *State) for one in known):
                self.vanish(running[0])
            return await super().decrease(ids)


class TestComingStays(WrongContract):
    class Group(FakeInstanceGroup):
        """Accepts the removal of an instance that is being created, but does nothing."""

        @override
        async def decrease(self, ids: Sequence[str]) -> Accepted:
            await super().decrease([one for one in ids if not self._has(one, State.CREATING)])
            return Accepted(len(set(ids)), tuple(dict.fromkeys(ids)))

    @override
    def make_group(self) -> FakeInstanceGroup:
        return self.Group(max_size=3, boot_updates=3)


class TestConnectLoses(WrongContract):
    class Group(FakeInstanceGroup):
        """Loses an instance after a connection to it."""

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
        """Truncates files that are copied."""

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
        """Returns ids that do not exist."""

        @override
        async def increase(self, count: int, operation: str) -> Accepted:
            accepted = await super().increase(count, operation)
            return replace(accepted, ids=tuple(f"new-{id}" for id in accepted.ids))


class TestRunningIsSick(WrongContract):
    class Group(FakeInstanceGroup):
        """Reports an instance as unhealthy until a connection was made."""

        @override
        async def heartbeat(self, id: str) -> None:
            await super().heartbeat(id)
            raise InstanceUnhealthy(id, f"{id} has never answered")


class TestNothingIsAll(WrongContract):
    class Group(FakeInstanceGroup):
        """Passes on an empty list, which the cloud reads as all."""

        @override
        async def decrease(self, ids: Sequence[str]) -> Accepted:
            if not ids:
                self.vanish(*[one.id for one in self.listing.instances])
            return await super().decrease(ids)


class TestConnectInfoOfAnother(WrongContract):
    class Group(FakeInstanceGroup):
        """Returns connection details with another id."""

        @override
        async def connect_info(self, id: str) -> ConnectInfo:
            return replace(await super().connect_info(id), id=f"{id}.internal")
