"""Tests of calls at the same time, of cancellation, and of what is left after closing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from fleeting.errors import FleetingError
from fleeting.testing._cancelling import cancelled_at
from fleeting.testing._contract_base import CheckProvider, ContractBase, OpenGroup
from fleeting.testing._examination import Examination, expect, new_operation, present
from fleeting.testing._promises import Promise, shows
from fleeting.testing._resources import Resources
from fleeting.types import Capability, Listing, State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ("CancellationTests", "ClosingTests", "ConcurrencyTests")

LISTINGS_AT_ONCE = 5


class ConcurrencyTests(ContractBase):
    """Several calls at once."""

    @shows(Promise.CONCURRENCY, adds=3)
    async def test_calls_at_the_same_time(self, open_group: OpenGroup) -> None:
        """Calls that are under way at the same time do not disturb each other."""
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
                lambda listing: present(listing) <= before, f"{new} did not go away"
            )

    @shows(Promise.CONCURRENCY, adds=2)
    async def test_listings_at_the_same_time(self, open_group: OpenGroup) -> None:
        """Listings that are asked for at the same time are each whole, with each instance once."""
        async with self.examined(open_group, adds=2) as examination:
            await examination.grow(2)
            expected = present(await examination.listing())
            listings: list[Listing] = []

            async def list_it() -> None:
                listings.append(await examination.listing())

            async with anyio.create_task_group() as calls:
                for _ in range(LISTINGS_AT_ONCE):
                    calls.start_soon(list_it)
            for listing in listings:
                expect(
                    present(listing) == expected,
                    f"a listing among others differs by {present(listing) ^ expected}",
                )

    @shows(Promise.CONCURRENCY, adds=1)
    async def test_opening_a_second_time(self, open_group: OpenGroup) -> None:
        """A group that is opened while it is open works, or refuses; the first is not disturbed."""
        async with self.examined(open_group, adds=1) as examination:
            (id,) = await examination.grow(1)
            try:
                async with open_group() as second:
                    await second.update()
            except FleetingError:
                pass  # That it is in use already is a good reason.
            expect(
                id in present(await examination.listing()),
                f"{id} went away when the group was opened a second time",
            )
            await examination.call(examination.group.heartbeat, id)


class CancellationTests(ContractBase):
    """Calls that are cancelled, at each of their awaits."""

    @shows(Promise.CANCELLATION, adds=1)
    @pytest.mark.parametrize(
        "method", ["update", "connect_info", "heartbeat", "decrease", "suspend", "resume"]
    )
    async def test_cancelled_call(self, open_group: OpenGroup, method: str) -> None:
        """A call that is cancelled at any of its awaits leaves nothing behind but its effect."""
        async with self.examined(open_group, adds=1) as examination:
            group = examination.group
            suspends = Capability.SUSPEND in group.info.capabilities
            if method in {"suspend", "resume"} and not suspends:
                pytest.skip(f"the group does not declare that it can {method} its instances")
            (id,) = await examination.grow(1)
            calls: dict[str, Callable[[], Awaitable[object]]] = {
                "update": group.update,
                "connect_info": lambda: group.connect_info(id),
                "heartbeat": lambda: group.heartbeat(id),
                "decrease": lambda: group.decrease([id]),
                "suspend": lambda: group.suspend([id]),
                "resume": lambda: group.resume([id]),
            }
            if method == "resume":
                await examination.call(group.suspend, [id])
                await examination.becomes(id, State.SUSPENDED)
            await examination.call(group.decrease, [self.unknown_id])
            if method in {"update", "connect_info", "heartbeat"}:
                await examination.call(calls[method])
            resources = await Resources.settled()
            for point in range(1, self.cancellation_points + 1):
                reached = await cancelled_at(
                    point, calls[method](), limit=self.call_timeout, name=method
                )
                await examination.listing()
                if not reached:
                    break
            await resources.restored(self.call_timeout, f"a cancelled {method}")
            await examination.decrease([id])
            await examination.goes_away(id)

    @shows(Promise.CANCELLATION, adds=2, each_await=True)
    async def test_cancelled_increase(self, open_group: OpenGroup) -> None:
        """An increase that is cancelled at any of its awaits adds one instance or none."""
        async with self.examined(open_group, adds=1) as examination:
            before = present(await examination.listing())
            await examination.grow(1)
            await examination.remove_new(before)
            resources = await Resources.settled()
            for point in range(1, self.cancellation_points + 1):
                increase = examination.group.increase(1, new_operation())
                reached = await cancelled_at(
                    point, increase, limit=self.call_timeout, name="increase"
                )
                new = present(await examination.listing()) - before
                expect(len(new) <= 1, f"a cancelled increase of 1 added {sorted(new)}")
                await examination.remove_new(before)
                if not reached:
                    break
            await resources.restored(self.call_timeout, "a cancelled increase")
            await examination.grow(1)

    @shows(Promise.CANCELLATION, adds=0)
    async def test_cancelled_opening(self, open_group: OpenGroup) -> None:
        """A group whose opening or closing is cancelled leaves nothing, and can be opened again."""

        async def open_and_close() -> None:
            async with open_group():
                pass

        await open_and_close()  # What is opened once and kept for ever, is now.
        resources = await Resources.settled()
        for point in range(1, self.cancellation_points + 1):
            if not await cancelled_at(
                point, open_and_close(), limit=self.call_timeout, name="opening"
            ):
                break
        await resources.restored(self.call_timeout, "a cancelled opening")
        async with open_group() as group:
            await group.update()

    @shows(Promise.CANCELLATION, adds=0)
    async def test_cancelled_check(self, check_provider: CheckProvider | None) -> None:
        """A check that is cancelled at any of its awaits leaves nothing behind."""
        if check_provider is None:
            pytest.skip("the fixture check_provider is not overridden")
        await check_provider()
        resources = await Resources.settled()
        for point in range(1, self.cancellation_points + 1):
            if not await cancelled_at(
                point, check_provider(), limit=self.call_timeout, name="check"
            ):
                break
        await resources.restored(self.call_timeout, "a cancelled check")


class ClosingTests(ContractBase):
    """What is left when a group has been closed."""

    @shows(Promise.CLOSING, adds=1)
    async def test_closing_touches_no_instance(self, open_group: OpenGroup) -> None:
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
            # An interruption too must leave no instance behind.
            limit = self.instance_timeout.total_seconds()
            with anyio.move_on_after(limit, shield=True):
                async with open_group() as group:
                    last = Examination(group, self.instance_timeout, self.call_timeout)
                    await last.remove_new(before)

    @shows(Promise.CLOSING, adds=0)
    async def test_closing_after_an_exception(self, open_group: OpenGroup) -> None:
        """An exception inside of the open group comes out as it is, and leaves nothing behind."""
        async with open_group() as group:
            await group.update()
        resources = await Resources.settled()
        mistake = FleetingError("a mistake of whoever uses the group")
        seen: BaseException | None = None
        try:
            async with open_group() as group:
                await group.update()
                raise mistake  # noqa: TRY301 - to be raised there is what it is for
        except BaseException as error:  # noqa: BLE001 - whatever came of it
            seen = error
        expect(seen is mistake, f"instead of the exception, {seen!r} came out of the open group")
        await resources.restored(self.call_timeout, "a group that was left by an exception")

    @shows(Promise.CLOSING, adds=0)
    async def test_closing_after_a_cancellation(self, open_group: OpenGroup) -> None:
        """A cancellation inside of the open group ends it, and leaves nothing behind."""
        async with open_group() as group:
            await group.update()
        resources = await Resources.settled()
        with anyio.CancelScope() as scope:
            async with open_group() as group:
                await group.update()
                scope.cancel()
                await anyio.sleep_forever()
        expect(scope.cancelled_caught, "a cancellation inside of the open group was swallowed")
        await resources.restored(self.call_timeout, "a group that was left by a cancellation")
        async with open_group() as group:
            await group.update()

    @shows(Promise.LEAKS, adds=1)
    async def test_closing_leaves_nothing_behind(self, open_group: OpenGroup) -> None:
        """After a group that was used is closed, no task, thread, socket or process is left."""
        async with self.examined(open_group) as examination:
            await examination.listing()  # What is opened once and kept for ever, is now.
        resources = await Resources.settled()
        async with self.examined(open_group, adds=1) as examination:
            (id,) = await examination.grow(1)
            await examination.call(examination.group.heartbeat, id)
            await examination.call(examination.group.connect_info, id)
        await resources.restored(self.call_timeout, "the closed group")

    @shows(Promise.LEAKS, adds=1)
    async def test_using_a_group_piles_nothing_up(self, open_group: OpenGroup) -> None:
        """What a group has open does not become more with each call."""
        async with self.examined(open_group, adds=1) as examination:
            group = examination.group
            (id,) = await examination.grow(1)

            async def use() -> None:
                await examination.listing()
                await examination.call(group.heartbeat, id)
                await examination.call(group.connect_info, id)

            for _ in range(LISTINGS_AT_ONCE):
                await use()
            resources = await Resources.settled()
            for _ in range(LISTINGS_AT_ONCE):
                await use()
            await resources.restored(self.call_timeout, "repeated calls")
