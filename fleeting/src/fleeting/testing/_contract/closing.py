"""Tests of closing a group."""

from __future__ import annotations

from contextlib import suppress

import anyio

from fleeting.errors import FleetingError, InstanceError
from fleeting.testing._contract.base import ContractBase, OpenGroup
from fleeting.testing._contract.examination import Examination
from fleeting.testing._contract.expectations import expect, present
from fleeting.testing._contract.promises import Promise, shows
from fleeting.testing._contract.resources import Resources

__all__ = ("ClosingTests",)

ROUNDS = 5
ADDITIONS = 3


class ClosingTests(ContractBase):
    """Resources and instances after a group is closed."""

    @shows(Promise.CLOSING, adds=1)
    async def test_closing_touches_no_instance(self, open_group: OpenGroup) -> None:
        """After closing, instances stay, or are all gone if the group declares that."""
        async with self.opening(open_group) as group:
            before = present(await self.listed(group))
        try:
            async with self.opening(open_group) as group:
                first = Examination(group, self.terms)
                (id,) = await first.grow(1)
            async with self.opening(open_group) as group:
                kept = id in present(await self.listed(group))
                expect(kept or not self.keeps_instances, f"closing the group removed {id}")
                expect(
                    self.keeps_instances or not kept,
                    f"{id} still exists after closing, but keeps_instances is False",
                )
        finally:
            # An interruption must leave no instance behind either.
            limit = self.instance_timeout.total_seconds()
            with anyio.move_on_after(limit, shield=True):
                async with self.opening(open_group) as group:
                    last = Examination(group, self.terms)
                    await last.remove_new(before)

    @shows(Promise.CLOSING, adds=0)
    async def test_closing_after_an_exception(self, open_group: OpenGroup) -> None:
        """An exception inside the open group is passed on unchanged, and leaves nothing behind."""
        async with self.opening(open_group) as group:
            await self.listed(group)
        resources = await Resources.settled()
        failure = FleetingError("an error of the code that uses the group")
        seen: BaseException | None = None
        try:
            async with self.opening(open_group) as group:
                await self.listed(group)
                raise failure  # noqa: TRY301 - the test is about raising it here
        except BaseException as error:  # noqa: BLE001 - any error is a result
            seen = error
        expect(
            seen is failure,
            f"the open group passed on {seen!r} instead of the exception raised inside it",
        )
        await resources.restored(self.call_timeout, "a group that was closed by an exception")

    @shows(Promise.CLOSING, adds=0)
    async def test_closing_after_a_cancellation(self, open_group: OpenGroup) -> None:
        """A cancellation inside the open group closes it, and leaves nothing behind."""
        async with self.opening(open_group) as group:
            await self.listed(group)
        resources = await Resources.settled()
        with anyio.CancelScope() as scope:
            async with self.opening(open_group) as group:
                await self.listed(group)
                scope.cancel()
                await anyio.sleep_forever()
        expect(scope.cancelled_caught, "the group swallowed a cancellation inside it")
        await resources.restored(self.call_timeout, "a group that was closed by a cancellation")
        async with self.opening(open_group) as group:
            await self.listed(group)

    @shows(Promise.LEAKS, adds=1)
    async def test_closing_leaves_nothing_behind(self, open_group: OpenGroup) -> None:
        """After closing a used group, no task, thread, socket or process is left."""
        async with self.examined(open_group) as examination:
            await examination.listing()  # Open what stays open for the whole process.
        resources = await Resources.settled()
        async with self.examined(open_group, adds=1) as examination:
            (id,) = await examination.grow(1)
            await examination.call(examination.group.heartbeat, id)
            await examination.call(examination.group.connect_info, id)
        await resources.restored(self.call_timeout, "the closed group")

    @shows(Promise.LEAKS, adds=4)
    async def test_using_a_group_piles_nothing_up(self, open_group: OpenGroup) -> None:
        """The number of open resources does not grow with each call."""
        async with self.examined(open_group, adds=2) as examination:
            group = examination.group
            (id,) = await examination.grow(1)

            async def use() -> None:
                await examination.listing()
                await examination.call(group.heartbeat, id)
                await examination.call(group.connect_info, id)
                await examination.decrease([self.unknown_id])
                for ask in (group.heartbeat, group.connect_info):
                    with suppress(InstanceError):
                        await examination.call(ask, self.unknown_id)

            for _ in range(self.terms.times(ROUNDS)):
                await use()
            resources = await Resources.settled()
            for _ in range(self.terms.times(ROUNDS)):
                await use()
            await resources.restored(self.call_timeout, "repeated calls")
            before = present(await examination.listing())
            for _ in range(self.terms.times(ADDITIONS)):
                new = await examination.grow(1)
                await examination.remove(*new)
            await resources.restored(self.call_timeout, "repeated additions and removals")
            await examination.stays(before, "instances appeared")
