"""Tests of several calls at the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from fleeting.errors import FleetingError
from fleeting.testing._contract.base import ContractBase, OpenGroup
from fleeting.testing._contract.expectations import expect, present
from fleeting.testing._contract.promises import Promise, shows

if TYPE_CHECKING:
    from fleeting.types import Listing

__all__ = ("ConcurrencyTests",)

LISTINGS_AT_ONCE = 5


class ConcurrencyTests(ContractBase):
    """Several calls at the same time."""

    @shows(Promise.CONCURRENCY, adds=3)
    async def test_calls_at_the_same_time(self, open_group: OpenGroup) -> None:
        """Calls at the same time do not affect each other."""
        async with self.examined(open_group, adds=3) as examination:
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
                lambda listing: present(listing) <= before, f"{new} were not removed"
            )

    @shows(Promise.CONCURRENCY, adds=2)
    async def test_listings_at_the_same_time(self, open_group: OpenGroup) -> None:
        """Listings at the same time are each complete, with each instance once."""
        async with self.examined(open_group, adds=2) as examination:
            await examination.grow(2)
            expected = present(await examination.listing())
            listings: list[Listing] = []

            async def list_it() -> None:
                listings.append(await examination.listing())

            async with anyio.create_task_group() as calls:
                for _ in range(self.terms.times(LISTINGS_AT_ONCE)):
                    calls.start_soon(list_it)
            for listing in listings:
                expect(
                    present(listing) == expected,
                    f"concurrent listings differ by {present(listing) ^ expected}",
                )

    @shows(Promise.CONCURRENCY, adds=1)
    async def test_opening_a_second_time(self, open_group: OpenGroup) -> None:
        """Opening a group that is already open succeeds or fails, and does not affect the first."""
        async with self.examined(open_group, adds=1) as examination:
            (id,) = await examination.grow(1)
            try:
                async with self.opening(open_group) as second:
                    await second.update()
            except FleetingError:
                pass  # A provider may refuse a group that is in use.
            expect(
                id in present(await examination.listing()),
                f"{id} is gone after the group was opened a second time",
            )
            await examination.call(examination.group.heartbeat, id)
