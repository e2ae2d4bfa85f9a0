"""Tests of what a request leads to: boots, steps that follow, and its outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from fleeting.abc import InstanceGroup
from fleeting.testing._contract.base import ContractBase, OpenGroup
from fleeting.testing._contract.expectations import expect, new_operation, present
from fleeting.testing._contract.faults import Fault
from fleeting.testing._contract.promises import Promise, shows
from fleeting.types import State

if TYPE_CHECKING:
    from fleeting.testing._contract.examination import Examination

__all__ = ("SettlingTests",)

# So many complete listings of a running instance, and its request is still not done.
LATE_LISTINGS = 3


class SettlingTests(ContractBase):
    """Boots, `reconcile` and `outcome`."""

    @shows(Promise.SIZE, adds=1)
    async def test_increase_does_not_wait_for_the_boot(self, open_group: OpenGroup) -> None:
        """An increase returns before its instance has booted."""
        async with self.examined(open_group, adds=1) as examination:
            before = present(await examination.listing())
            running = 0
            with anyio.move_on_after(self.call_timeout.total_seconds()):
                async with anyio.create_task_group() as tasks:

                    async def increase() -> None:
                        await examination.increase(1)
                        tasks.cancel_scope.cancel()

                    tasks.start_soon(increase)
                    was_creating = False
                    while running < LATE_LISTINGS:
                        states = await _states(examination, before)
                        was_creating |= State.CREATING in states
                        running += was_creating and State.RUNNING in states
                        await anyio.sleep(self.terms.first_pause)
                    tasks.cancel_scope.cancel()
            expect(
                running < LATE_LISTINGS,
                "increase had not returned when its instance had booted; it must not wait for that",
            )
            await examination.arrivals(before, 1)

    @shows(Promise.SIZE, adds=1)
    async def test_boot_that_hangs(self, open_group: OpenGroup) -> None:
        """An instance that does not finish booting is listed as being created, and removable."""
        async with self.examined(open_group, adds=1) as examination:
            before = present(await examination.listing())
            await self.cause(examination.group, Fault.BOOT_HANGS)
            await examination.increase(1)
            await examination.until(
                lambda listing: bool(present(listing) - before) or listing.pending > 0,
                "an instance that is booting was not listed",
            )
            for state in await _states(examination, before):
                expect(
                    state in {State.CREATING, State.UNKNOWN},
                    f"an instance that has not booted is listed as {state.value}",
                )

    @shows(Promise.LISTING, adds=1)
    async def test_boot_that_fails(self, open_group: OpenGroup) -> None:
        """An instance whose creation failed is listed as failed, or is a failure of the listing."""
        async with self.examined(open_group, adds=1) as examination:
            listing = await examination.listing()
            before, known = present(listing), {one.id for one in listing.failures}
            await self.cause(examination.group, Fault.BOOT_FAILS)
            await examination.increase(1)

            async def look() -> bool | None:
                listing = await examination.listing()
                new = {one.state for one in listing.instances if one.id not in before}
                expect(State.RUNNING not in new, "an instance that failed is listed as running")
                failed = {one.id for one in listing.failures} - known
                return True if failed or State.FAILED in new else None

            await examination.eventually(look, "an instance that failed was not listed as failed")

    @shows(Promise.LISTING, adds=2)
    async def test_strange_state_is_unknown(self, open_group: OpenGroup) -> None:
        """Instances in a state that the provider does not know are listed as unknown."""
        async with self.examined(open_group, adds=2) as examination:
            new = set(await examination.grow(2))
            await self.cause(examination.group, Fault.STRANGE_STATE)
            listing = await examination.listing()
            missing = new - present(listing)
            expect(
                not missing,
                f"{missing} are missing in the listing because the provider does not know their "
                "state; list them as UNKNOWN",
            )
            states = {one.state for one in listing.instances if one.id in new}
            expect(
                states == {State.UNKNOWN},
                f"a state that no description has is listed as {sorted(s.value for s in states)} "
                "instead of UNKNOWN",
            )

    @shows(Promise.RECONCILING, adds=2)
    async def test_reconcile_changes_nothing_at_rest(self, open_group: OpenGroup) -> None:
        """Where nothing is under way, `reconcile` changes nothing, also with an old listing."""
        async with self.examined(open_group, adds=2) as examination:
            oldest = await examination.listing()
            before = present(oldest)
            removed, kept = await examination.grow(2)
            old = await examination.listing()
            await examination.remove(removed)
            for listing in (old, await examination.listing(), oldest, old):
                await examination.call(examination.group.reconcile, listing)
            await examination.stays({*before, kept}, "reconcile added instances")
            expect(
                kept in present(await examination.listing()),
                f"reconcile removed {kept}, although no step was left to take",
            )

    @shows(Promise.LOST_REPLIES, adds=2)
    async def test_outcome_is_right(self, open_group: OpenGroup) -> None:
        """`outcome` tells what an operation created, or None, and changes nothing."""
        async with self.examined(open_group, adds=2) as examination:
            group = examination.group
            if type(group).outcome is InstanceGroup.outcome:
                pytest.skip("the group does not have `outcome`, which is optional")
            before = present(await examination.listing())
            never = await examination.call(group.outcome, new_operation())
            expect(not never, f"outcome tells {never} for an operation that never was")
            operation = new_operation()
            accepted = await examination.increase(2, operation)
            told = await examination.call(group.outcome, operation)
            expect(
                told in {None, accepted.count},
                f"increase accepted {accepted.count}, but outcome tells {told}; if it is not sure, "
                "the answer is None",
            )
            new = await examination.arrivals(before, accepted.count)
            await examination.stays({*before, *new}, "outcome added instances")


async def _states(examination: Examination, before: set[str]) -> set[State]:
    """Return the states of the new instances."""
    listing = await examination.listing()
    return {one.state for one in listing.instances if one.id not in before}
