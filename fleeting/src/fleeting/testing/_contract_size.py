"""Tests of what a group lists, and of how it grows and shrinks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fleeting.errors import InstanceGone, NotSupported, ProviderError
from fleeting.testing._contract_base import ContractBase, OpenGroup
from fleeting.testing._examination import expect, new_operation, present
from fleeting.testing._promises import Promise, shows
from fleeting.types import Accepted, Capability

if TYPE_CHECKING:
    from fleeting.testing._examination import Examination

__all__ = ("ListingTests", "SizeTests")

# More than a cloud takes in one call, as a rule of thumb.
MANY_IDS = 25
LISTINGS = 5


class ListingTests(ContractBase):
    """What the group says about itself and about its instances."""

    @shows(Promise.IDENTITY, adds=0)
    async def test_info_names_the_group(self, open_group: OpenGroup) -> None:
        """A group has a name and, if it has a limit at all, room for something."""
        async with self.examined(open_group) as examination:
            info = examination.group.info
            expect(info.id, "info.id is empty")
            expect(info.max_size is None or info.max_size > 0, f"max_size is {info.max_size}")

    @shows(Promise.IDENTITY, adds=0)
    async def test_info_names_the_same_group_again(self, open_group: OpenGroup) -> None:
        """A group that is opened again has the same id, by which others know it."""
        if not self.keeps_instances:
            pytest.skip("the group declares that it is another one each time")
        async with open_group() as group:
            first = group.info.id
        async with open_group() as group:
            expect(group.info.id == first, f"info.id was {first!r}, and is {group.info.id!r} now")

    @shows(Promise.IDENTITY, adds=0)
    async def test_undeclared_capabilities_are_refused(self, open_group: OpenGroup) -> None:
        """What a group does not say that it can do, it refuses with `NotSupported`."""
        async with self.examined(open_group) as examination:
            group = examination.group
            if Capability.SUSPEND not in group.info.capabilities:
                for refuse in (group.suspend, group.resume):
                    with pytest.raises(NotSupported):
                        await examination.call(refuse, [self.unknown_id])
            if Capability.WATCH not in group.info.capabilities:
                with pytest.raises(NotSupported):
                    await anext(group.watch())

    @shows(Promise.LISTING, adds=2)
    async def test_listing_is_stable(self, open_group: OpenGroup) -> None:
        """Listings of a group that nobody changes have the same instances, each once."""
        async with self.examined(open_group, adds=2) as examination:
            await examination.grow(2)
            first, second = await examination.listing(), await examination.listing()
            expect(
                present(first) == present(second),
                f"two listings in a row differ: {present(first) ^ present(second)}",
            )
            known = {one.id: one.incarnation for one in first.instances if one.incarnation}
            changed = [
                one.id
                for one in second.instances
                if one.id in known and one.incarnation != known[one.id]
            ]
            expect(not changed, f"{changed} have another incarnation in the next listing")

    @shows(Promise.LISTING, adds=0)
    async def test_update_changes_nothing(self, open_group: OpenGroup) -> None:
        """However often the group is listed, that adds and removes nothing."""
        async with self.examined(open_group) as examination:
            before = present(await examination.listing())
            for _ in range(LISTINGS):
                listing = await examination.listing()
                expect(
                    present(listing) == before and not listing.pending,
                    f"listing the group changed it by {present(listing) ^ before or 'pending'}",
                )

    @shows(Promise.PAGINATION, adds=0, affordable=True)
    async def test_pages_are_listed_whole(self, open_group: OpenGroup) -> None:
        """A group of more than one page is listed whole, each once, and can be removed at once."""
        count = self.page_size + 1 if self.page_size else self.affordable
        if count > self.affordable:
            pytest.skip(f"a page has {self.page_size} instances; affordable is {self.affordable}")
        async with self.examined(open_group, adds=1) as examination:
            before = present(await examination.listing())
            limit = examination.group.info.max_size
            if not self.page_size and limit is not None:
                count = min(count, limit - len(before))
            new = await examination.grow(count)
            for _ in range(2):
                missing = {*before, *new} - present(await examination.listing())
                expect(not missing, f"{len(before) + count} were there; {missing} are not listed")
            await examination.decrease(new)
            await examination.until(
                lambda listing: not present(listing) & set(new), f"{new} did not all go away"
            )
        if self.page_size is None:
            pytest.skip(f"all of {count} were listed; whether that is a page, page_size says not")

    @shows(Promise.UNKNOWN_IDS, adds=0)
    async def test_unknown_instance_is_gone(self, open_group: OpenGroup) -> None:
        """Asking about an instance that does not exist raises `InstanceGone`."""
        async with self.examined(open_group) as examination:
            group = examination.group
            with pytest.raises(InstanceGone):
                await examination.call(group.connect_info, self.unknown_id)
            with pytest.raises(InstanceGone):
                await examination.call(group.heartbeat, self.unknown_id)

    @shows(Promise.UNKNOWN_IDS, adds=1)
    async def test_removed_instance_is_gone(self, open_group: OpenGroup) -> None:
        """Asking about an instance that was there and is not listed any more says the same."""
        async with self.examined(open_group, adds=1) as examination:
            (id,) = await examination.grow(1)
            await _remove(examination, id)
            for ask in (examination.group.connect_info, examination.group.heartbeat):
                with pytest.raises(InstanceGone):
                    await examination.call(ask, id)

    @shows(Promise.UNKNOWN_IDS, adds=1)
    async def test_decrease_accepts_unknown_instances(self, open_group: OpenGroup) -> None:
        """Removing what was never there is accepted, also beside what is there."""
        async with self.examined(open_group, adds=1) as examination:
            (id,) = await examination.grow(1)
            accepted = await examination.decrease([self.unknown_id, id])
            expect(
                set(accepted.ids) == {self.unknown_id, id},
                f"decrease accepted {accepted.ids}, not all of {(self.unknown_id, id)}",
            )
            await examination.goes_away(id)

    @shows(Promise.UNKNOWN_IDS, adds=1)
    async def test_decrease_of_many_unknown_instances(self, open_group: OpenGroup) -> None:
        """Removing many that were never there is accepted, and touches nothing that is there."""
        async with self.examined(open_group, adds=1) as examination:
            (id,) = await examination.grow(1)
            before = present(await examination.listing())
            unknown = [one for one in self.unknown_ids(MANY_IDS) if one not in before]
            accepted = await examination.decrease(unknown)
            expect(accepted.count == len(unknown), f"{accepted.count} of {len(unknown)} accepted")
            await examination.stays(before, "instances came")
            expect(
                id in present(await examination.listing()),
                f"{id} went away, though only others were to be removed",
            )


class SizeTests(ContractBase):
    """Making the group larger and smaller."""

    @shows(Promise.SIZE, adds=2)
    async def test_increase_brings_running_instances(self, open_group: OpenGroup) -> None:
        """An accepted increase brings as many running instances as it accepted, and no more."""
        async with self.examined(open_group, adds=2) as examination:
            before = present(await examination.listing())
            new = await examination.grow(2)
            await examination.stays({*before, *new}, "more instances came than were asked for")

    @shows(Promise.SIZE, adds=1)
    async def test_increase_names_the_instances_that_come(self, open_group: OpenGroup) -> None:
        """Where an increase gives ids at once, those are the ids of the new instances."""
        async with self.examined(open_group, adds=1) as examination:
            before = present(await examination.listing())
            accepted = await examination.increase(1)
            new = await examination.arrivals(before, 1)
            expect(
                not accepted.ids or list(accepted.ids) == new,
                f"increase named {accepted.ids}, and {new} came",
            )

    @shows(Promise.SIZE, adds=1)
    async def test_heartbeat_of_running_instance(self, open_group: OpenGroup) -> None:
        """The heartbeat of an instance that has just come up finds nothing wrong."""
        async with self.examined(open_group, adds=1) as examination:
            (id,) = await examination.grow(1)
            await examination.call(examination.group.heartbeat, id)

    @shows(Promise.SIZE, adds=2)
    async def test_decrease_removes_without_replacement(self, open_group: OpenGroup) -> None:
        """A removed instance goes away, is not replaced, and the others stay."""
        async with self.examined(open_group, adds=2) as examination:
            before = present(await examination.listing())
            removed, kept = await examination.grow(2)
            accepted = await examination.decrease([removed])
            expect(accepted.count == 1, "decrease did not accept a running instance")
            await examination.goes_away(removed)
            await examination.stays({*before, kept}, "the removed instance was replaced")
            expect(
                kept in present(await examination.listing()),
                f"{kept} is gone, though only {removed} was removed",
            )

    @shows(Promise.SIZE, adds=1)
    async def test_decrease_of_an_instance_that_comes(self, open_group: OpenGroup) -> None:
        """An instance can be removed as soon as it has an id, running or not."""
        async with self.examined(open_group, adds=1) as examination:
            before = present(await examination.listing())
            await examination.increase(1)
            listing = await examination.until(
                lambda listing: bool(present(listing) - before), "no new instance was listed"
            )
            await _remove(examination, *(present(listing) - before))
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
        """Asking for more than there is room for is accepted in part and says why, as a value."""
        async with self.examined(open_group) as examination:
            before = present(await examination.listing())
            limit = examination.group.info.max_size
            if limit is None or limit - len(before) > self.affordable:
                pytest.skip(f"filling the group takes more than {self.affordable} instances")
            room = limit - len(before)
            accepted = await examination.increase(room + 1)
            expect(accepted.count == room, f"there was room for {room}, not for {accepted.count}")
            await examination.arrivals(before, room)
            try:
                accepted = await examination.increase(1)
            except ProviderError:
                return
            expect(accepted.count == 0, "a full group accepted one instance more")

    @shows(Promise.PARTIAL_FAILURE, adds=3)
    async def test_mixed_decrease_removes_what_is_there(self, open_group: OpenGroup) -> None:
        """Ids that are there, gone, unknown or given twice do not keep each other from removal."""
        async with self.examined(open_group, adds=3) as examination:
            gone, removed, kept = await examination.grow(3)
            await _remove(examination, gone)
            ids = [gone, removed, self.unknown_id, removed]
            accepted = await examination.decrease(ids)
            expect(
                set(accepted.ids) == set(ids),
                f"decrease accepted {accepted.ids}, not all of {sorted(set(ids))}",
            )
            await examination.goes_away(removed)
            expect(
                kept in present(await examination.listing()),
                f"{kept} is gone, though {removed} was removed (its id was given twice)",
            )

    @shows(Promise.IDEMPOTENCY, adds=1)
    async def test_decrease_is_idempotent(self, open_group: OpenGroup) -> None:
        """Removing what is being removed, or is gone already, is accepted each time."""
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
        """Removing an instance again takes no other one with it."""
        async with self.examined(open_group, adds=2) as examination:
            before = present(await examination.listing())
            removed, kept = await examination.grow(2)
            await examination.decrease([removed])
            await examination.decrease([removed])
            await examination.goes_away(removed)
            await examination.decrease([removed])
            await examination.stays({*before, kept}, "instances came")
            expect(
                kept in present(await examination.listing()),
                f"{kept} went away when {removed} was removed repeatedly",
            )

    @shows(Promise.IDEMPOTENCY, adds=1)
    async def test_repeated_operation_adds_nothing(self, open_group: OpenGroup) -> None:
        """An increase that is repeated with the same operation is accepted and adds nothing."""
        if not self.repeats_operations:
            pytest.skip("the group does not declare that it recognizes repeated operations")
        async with self.examined(open_group, adds=1) as examination:
            before = present(await examination.listing())
            operation = new_operation()
            for _ in range(2):
                accepted = await examination.increase(1, operation)
                expect(accepted.count == 1, "a repeated increase was not accepted")
            new = await examination.arrivals(before, 1)
            await examination.stays({*before, *new}, "the repeated operation added instances")


async def _remove(examination: Examination, *ids: str) -> None:
    """Remove instances, and wait until they are not listed any more."""
    await examination.decrease(ids)
    for id in ids:
        await examination.goes_away(id)
