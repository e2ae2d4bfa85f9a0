"""Tests of growing and shrinking a group."""

from __future__ import annotations

import pytest

from fleeting.errors import ProviderError
from fleeting.testing._contract.base import ContractBase, OpenGroup
from fleeting.testing._contract.expectations import expect, new_operation, present
from fleeting.testing._contract.promises import Promise, shows
from fleeting.types import Accepted

__all__ = ("SizeTests",)


class SizeTests(ContractBase):
    """Growing and shrinking the group."""

    @shows(Promise.SIZE, adds=2)
    async def test_increase_brings_running_instances(self, open_group: OpenGroup) -> None:
        """An increase adds exactly as many running instances as it accepted."""
        async with self.examined(open_group, adds=2) as examination:
            before = present(await examination.listing())
            new = await examination.grow(2)
            await examination.stays({*before, *new}, "more instances appeared than were requested")

    @shows(Promise.SIZE, adds=1)
    async def test_increase_names_the_instances_that_come(self, open_group: OpenGroup) -> None:
        """If an increase returns ids, they are those of the new instances."""
        async with self.examined(open_group, adds=1) as examination:
            before = present(await examination.listing())
            accepted = await examination.increase(1)
            new = await examination.arrivals(before, 1)
            expect(
                not accepted.ids or list(accepted.ids) == new,
                f"increase returned {accepted.ids}, but {new} appeared",
            )

    @shows(Promise.SIZE, adds=1)
    async def test_heartbeat_of_running_instance(self, open_group: OpenGroup) -> None:
        """The heartbeat of a new running instance succeeds."""
        async with self.examined(open_group, adds=1) as examination:
            (id,) = await examination.grow(1)
            await examination.call(examination.group.heartbeat, id)

    @shows(Promise.SIZE, adds=2)
    async def test_decrease_removes_without_replacement(self, open_group: OpenGroup) -> None:
        """A removed instance disappears and is not replaced, and the others stay."""
        async with self.examined(open_group, adds=2) as examination:
            before = present(await examination.listing())
            removed, kept = await examination.grow(2)
            accepted = await examination.decrease([removed])
            expect(accepted.count == 1, "decrease did not accept a running instance")
            await examination.goes_away(removed)
            await examination.stays({*before, kept}, "the removed instance was replaced")
            expect(
                kept in present(await examination.listing()),
                f"{kept} is gone, but only {removed} was removed",
            )

    @shows(Promise.SIZE, adds=1)
    async def test_decrease_of_an_instance_that_comes(self, open_group: OpenGroup) -> None:
        """An instance can be removed as soon as it has an id."""
        async with self.examined(open_group, adds=1) as examination:
            before = present(await examination.listing())
            await examination.increase(1)
            listing = await examination.until(
                lambda listing: bool(present(listing) - before), "no new instance was listed"
            )
            await examination.remove(*(present(listing) - before))
            await examination.stays(before, "the removed instance was replaced")

    @shows(Promise.SIZE, adds=1)
    async def test_decrease_of_nothing_does_nothing(self, open_group: OpenGroup) -> None:
        """Removing no instances is accepted and changes nothing."""
        async with self.examined(open_group, adds=1) as examination:
            new = await examination.grow(1)
            accepted = await examination.decrease([])
            expect(accepted == Accepted(0), f"decrease of nothing returned {accepted}")
            expect(
                set(new) <= present(await examination.listing()),
                "decrease of nothing removed an instance",
            )

    @shows(Promise.PARTIAL_FAILURE, adds=0, affordable=True)
    async def test_full_group_accepts_in_part(self, open_group: OpenGroup) -> None:
        """An increase beyond the limit is accepted in part, with the reason as a value."""
        async with self.examined(open_group) as examination:
            before = present(await examination.listing())
            limit = examination.group.info.max_size
            if limit is None or limit - len(before) > self.affordable:
                pytest.skip(
                    f"filling the group needs more instances than affordable ({self.affordable})"
                )
            room = limit - len(before)
            accepted = await examination.increase(room + 1)
            expect(
                accepted.count == room,
                f"the group had room for {room}, but accepted {accepted.count}",
            )
            await examination.arrivals(before, room)
            try:
                accepted = await examination.increase(1)
            except ProviderError:
                return
            expect(accepted.count == 0, "a full group accepted another instance")

    @shows(Promise.PARTIAL_FAILURE, adds=3)
    async def test_mixed_decrease_removes_what_is_there(self, open_group: OpenGroup) -> None:
        """Existing, removed, unknown and repeated ids can be removed in one call."""
        async with self.examined(open_group, adds=3) as examination:
            gone, removed, kept = await examination.grow(3)
            await examination.remove(gone)
            ids = [gone, removed, self.unknown_id, removed]
            accepted = await examination.decrease(ids)
            expect(
                set(accepted.ids) == set(ids),
                f"decrease accepted {accepted.ids}, not all of {sorted(set(ids))}",
            )
            await examination.goes_away(removed)
            expect(
                kept in present(await examination.listing()),
                f"{kept} is gone, but only {removed} was removed (its id was given twice)",
            )

    @shows(Promise.IDEMPOTENCY, adds=1)
    async def test_decrease_is_idempotent(self, open_group: OpenGroup) -> None:
        """Removing an instance again is accepted, during its removal and afterwards."""
        async with self.examined(open_group, adds=1) as examination:
            (id,) = await examination.grow(1)
            for _ in range(2):
                accepted = await examination.decrease([id])
                expect(accepted.ids == (id,), f"decrease accepted {accepted.ids}, not {id}")
            await examination.goes_away(id)
            accepted = await examination.decrease([id])
            expect(accepted.ids == (id,), f"decrease did not accept {id}, which is gone")

    @shows(Promise.IDEMPOTENCY, adds=2)
    async def test_repeated_decrease_lowers_the_size_once(self, open_group: OpenGroup) -> None:
        """Removing an instance again removes no other instance."""
        async with self.examined(open_group, adds=2) as examination:
            before = present(await examination.listing())
            removed, kept = await examination.grow(2)
            await examination.decrease([removed])
            await examination.decrease([removed])
            await examination.goes_away(removed)
            await examination.decrease([removed])
            await examination.stays({*before, kept}, "new instances appeared")
            expect(
                kept in present(await examination.listing()),
                f"{kept} is gone after {removed} was removed repeatedly",
            )

    @shows(Promise.IDEMPOTENCY, adds=1)
    async def test_repeated_operation_adds_nothing(self, open_group: OpenGroup) -> None:
        """Repeating an increase with the same operation is accepted and adds nothing."""
        if not self.repeats_operations:
            pytest.skip("the group does not declare repeats_operations")
        async with self.examined(open_group, adds=1) as examination:
            before = present(await examination.listing())
            operation = new_operation()
            for _ in range(2):
                accepted = await examination.increase(1, operation)
                expect(accepted.count == 1, "a repeated increase was not accepted")
            new = await examination.arrivals(before, 1)
            await examination.stays({*before, *new}, "the repeated operation added instances")
