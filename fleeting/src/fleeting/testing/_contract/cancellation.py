"""Tests of calls that are cancelled at each of their awaits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fleeting.testing._contract.base import CheckProvider, ContractBase, OpenGroup
from fleeting.testing._contract.expectations import expect, heed, new_operation, present
from fleeting.testing._contract.promises import Promise, shows
from fleeting.testing._contract.resources import Resources
from fleeting.types import Capability, State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ("CancellationTests",)


class CancellationTests(ContractBase):
    """Calls that are cancelled at each of their awaits."""

    @shows(Promise.CANCELLATION, adds=1)
    @pytest.mark.parametrize(
        "method",
        [
            *("update", "reconcile", "outcome", "connect_info", "heartbeat"),
            *("decrease", "suspend", "resume"),
        ],
    )
    async def test_cancelled_call(self, open_group: OpenGroup, method: str) -> None:
        """A call that is cancelled at any of its awaits leaves no resources behind."""
        async with self.examined(open_group, adds=1) as examination:
            group = examination.group
            suspends = Capability.SUSPEND in group.info.capabilities
            if method in {"suspend", "resume"} and not suspends:
                pytest.skip(f"the group does not declare that it can {method} instances")
            (id,) = await examination.grow(1)
            listing = await examination.listing()
            calls: dict[str, Callable[[], Awaitable[object]]] = {
                "update": group.update,
                "reconcile": lambda: group.reconcile(listing),
                "outcome": lambda: group.outcome(new_operation()),
                "connect_info": lambda: group.connect_info(id),
                "heartbeat": lambda: group.heartbeat(id),
                "decrease": lambda: group.decrease([id]),
                "suspend": lambda: group.suspend([id]),
                "resume": lambda: group.resume([id]),
            }
            if method == "resume":
                await examination.change(group.suspend, [id])
                await examination.becomes(id, State.SUSPENDED)
            await examination.call(group.decrease, [self.unknown_id])
            if method not in {"decrease", "suspend", "resume"}:
                await examination.call(calls[method])
            resources = await Resources.settled()
            for point in self.points:
                reached = await self.cancelled(point, calls[method], name=method)
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
            added = set[str]()
            for point in self.points:
                reached = await self.cancelled(
                    point,
                    lambda: examination.group.increase(1, new_operation()),
                    name="increase",
                )
                examination.note_change()
                await examination.caught_up()
                # An earlier request may have reached the cloud late, so count all of them.
                added |= present(await examination.listing()) - before
                expect(
                    len(added) <= point,
                    f"{point} increases of 1, each cancelled, added {sorted(added)}",
                )
                await examination.remove_new(before)
                if not reached:
                    break
            await resources.restored(self.call_timeout, "a cancelled increase")
            await examination.grow(1)

    @shows(Promise.CANCELLATION, adds=0)
    async def test_cancelled_opening(self, open_group: OpenGroup) -> None:
        """A group whose opening or closing was cancelled leaves nothing and opens again."""

        async def open_and_close() -> None:
            async with open_group():
                pass

        await heed(
            open_and_close, self.instance_timeout
        )  # Open what stays open for the whole process.
        resources = await Resources.settled()
        for point in self.points:
            if not await self.cancelled(point, open_and_close, name="opening"):
                break
        await resources.restored(self.call_timeout, "a cancelled opening")
        async with self.opening(open_group) as group:
            await self.listed(group)

    @shows(Promise.CANCELLATION, adds=0)
    async def test_cancelled_check(self, check_provider: CheckProvider | None) -> None:
        """A check that is cancelled at any of its awaits leaves nothing behind."""
        if check_provider is None:
            pytest.skip("the fixture check_provider is not overridden")
        await check_provider()
        resources = await Resources.settled()
        for point in self.points:
            if not await self.cancelled(point, check_provider, name="check"):
                break
        await resources.restored(self.call_timeout, "a cancelled check")
