"""Groups that each break one promise, held to the contract; their tests must fail.

Not collected by itself: `test_contract_catches.py` runs it and reads the result.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest
from typing_extensions import override

from fleeting.errors import InstanceGone, OutOfCapacity, ProviderError
from fleeting.testing import FakeInstanceGroup, InstanceGroupContract
from fleeting.types import Accepted, Capability, Instance, State

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from fleeting.abc import Connection, InstanceGroup
    from fleeting.types import ConnectInfo, Listing


def _is_creating(instance: Instance) -> bool:
    return instance.state is State.CREATING


class _WrongContract(InstanceGroupContract):
    instance_timeout = timedelta(seconds=0.4)
    call_timeout = timedelta(seconds=0.4)
    repeats_operations = True
    Group: type[FakeInstanceGroup] = FakeInstanceGroup

    def make_group(self) -> FakeInstanceGroup:
        """Return the group that breaks a promise."""
        return self.Group(max_size=3)

    @pytest.fixture
    @override
    def open_group(self) -> Callable[[], AbstractAsyncContextManager[InstanceGroup]]:
        """Open the wrong group."""
        group = self.make_group()

        @asynccontextmanager
        async def open_group() -> AsyncGenerator[InstanceGroup]:
            yield group

        return open_group

    @override
    async def connect(self, group: InstanceGroup, info: ConnectInfo) -> Connection:
        assert isinstance(group, FakeInstanceGroup)
        return await group.connect(info)


class TestRight(_WrongContract):
    """No promise is broken: nothing may fail here, or the others prove nothing."""


class TestDecreaseRefusesUnknown(_WrongContract):
    class Group(FakeInstanceGroup):
        """It reports ids that it does not know as refused."""

        @override
        async def decrease(self, ids: Sequence[str]) -> Accepted:
            present = [id for id in ids if self._has(id, *State)]
            accepted = await super().decrease(present)
            if len(present) == len(set(ids)):
                return accepted
            return replace(accepted, error=ProviderError("no such instance"))


class TestListingHasDuplicate(_WrongContract):
    class Group(FakeInstanceGroup):
        """Its listing has the first instance twice."""

        @override
        async def update(self) -> Listing:
            listing = await super().update()
            return replace(listing, instances=listing.instances + listing.instances[:1])


class TestListingForgets(_WrongContract):
    class Group(FakeInstanceGroup):
        """Every second listing lacks an instance."""

        flips = 0

        @override
        async def update(self) -> Listing:
            listing = await super().update()
            self.flips += 1
            keep = len(listing.instances) - (self.flips % 2 and len(listing.instances) > 1)
            return replace(listing, instances=listing.instances[:keep])


class TestIncreaseWaits(_WrongContract):
    class Group(FakeInstanceGroup):
        """Its increase comes back when the instances run, which somebody else must see to."""

        @override
        async def increase(self, count: int, operation: str) -> Accepted:
            accepted = await super().increase(count, operation)
            await self.until(lambda: not any(map(_is_creating, self.listing.instances)))
            return accepted


class TestIncreaseLies(_WrongContract):
    class Group(FakeInstanceGroup):
        """Its increase creates one less than it accepts."""

        @override
        async def increase(self, count: int, operation: str) -> Accepted:
            await super().increase(max(1, count - 1), operation)
            return Accepted(count)


class TestIncreaseRaisesForPart(_WrongContract):
    class Group(FakeInstanceGroup):
        """Its increase raises when it has accepted a part."""

        @override
        async def increase(self, count: int, operation: str) -> Accepted:
            accepted = await super().increase(count, operation)
            if accepted.error is not None:
                raise OutOfCapacity("the group is full")
            return accepted


class TestIncreaseForgetsOperation(_WrongContract):
    @override
    def make_group(self) -> FakeInstanceGroup:
        return FakeInstanceGroup(max_size=3, idempotent=False)


class TestReplacesRemoved(_WrongContract):
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


class TestAcceptedIdsMissing(_WrongContract):
    class Group(FakeInstanceGroup):
        """Its decrease gives no ids."""

        @override
        async def decrease(self, ids: Sequence[str]) -> Accepted:
            return replace(await super().decrease(ids), ids=())


class TestKeyErrorForUnknown(_WrongContract):
    class Group(FakeInstanceGroup):
        """It lets a foreign exception through."""

        @override
        async def connect_info(self, id: str) -> ConnectInfo:
            try:
                return await super().connect_info(id)
            except InstanceGone:
                raise KeyError(id) from None


class TestInfoChanges(_WrongContract):
    class Group(FakeInstanceGroup):
        """Its size limit moves with its size."""

        @override
        async def update(self) -> Listing:
            listing = await super().update()
            self.info = replace(self.info, max_size=len(listing.instances) + 1)
            return listing


class TestCancellationLeaksTask(_WrongContract):
    class Group(FakeInstanceGroup):
        """Its heartbeat starts a task that a cancellation leaves behind."""

        @override
        async def heartbeat(self, id: str) -> None:
            answer = asyncio.create_task(asyncio.sleep(3600))
            await super().heartbeat(id)
            answer.cancel()


class TestCancellationKeepsLock(_WrongContract):
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


class TestSuspendsUndeclared(_WrongContract):
    class Group(FakeInstanceGroup):
        """It suspends although it does not say that it can."""

        @override
        async def suspend(self, ids: Sequence[str]) -> Accepted:
            await anyio.lowlevel.checkpoint()
            return Accepted(0)


class TestSuspendDoesNothing(_WrongContract):
    class Group(FakeInstanceGroup):
        """It says that it can suspend, accepts, and does nothing."""

        @override
        async def suspend(self, ids: Sequence[str]) -> Accepted:
            await anyio.lowlevel.checkpoint()
            return Accepted(len(ids), tuple(ids))

    @override
    def make_group(self) -> FakeInstanceGroup:
        return self.Group(max_size=3, capabilities=[Capability.SUSPEND])


class TestClosingRemoves(_WrongContract):
    @pytest.fixture
    @override
    def open_group(self) -> Callable[[], AbstractAsyncContextManager[InstanceGroup]]:
        """Open a new and empty group each time."""

        @asynccontextmanager
        async def open_group() -> AsyncGenerator[InstanceGroup]:
            yield FakeInstanceGroup(max_size=3)

        return open_group


class TestClosingLeavesFile(_WrongContract):
    @pytest.fixture
    @override
    def open_group(self) -> Callable[[], AbstractAsyncContextManager[InstanceGroup]]:
        """Open a file with the group, and keep it."""
        group, files = self.make_group(), list[object]()

        @asynccontextmanager
        async def open_group() -> AsyncGenerator[InstanceGroup]:
            files.append(await anyio.open_file(__file__))
            yield group

        return open_group
