"""Tests of what a group reports about itself and its instances."""

from __future__ import annotations

import pytest

from fleeting.errors import FleetingError, InstanceGone, NotSupported
from fleeting.testing._contract.base import ContractBase, OpenGroup
from fleeting.testing._contract.expectations import expect, present
from fleeting.testing._contract.promises import Promise, shows
from fleeting.types import Capability

__all__ = ("ListingTests",)

# More ids than most clouds take in one call.
MANY_IDS = 25
LISTINGS = 5


class ListingTests(ContractBase):
    """The info and the listings of a group."""

    @shows(Promise.IDENTITY, adds=0)
    async def test_info_names_the_group(self, open_group: OpenGroup) -> None:
        """A group has an id, and room for an instance if it has a limit."""
        async with self.examined(open_group) as examination:
            info = examination.group.info
            expect(info.id, "info.id is empty")
            expect(info.max_size is None or info.max_size > 0, f"max_size is {info.max_size}")

    @shows(Promise.IDENTITY, adds=0)
    async def test_info_names_the_same_group_again(self, open_group: OpenGroup) -> None:
        """A group has the same id when it is opened again."""
        if not self.keeps_instances:
            pytest.skip("the group declares that each opening creates a new one")
        async with self.opening(open_group) as group:
            first = group.info.id
        async with self.opening(open_group) as group:
            expect(group.info.id == first, f"info.id was {first!r}, and is now {group.info.id!r}")

    @shows(Promise.IDENTITY, adds=0)
    async def test_undeclared_capabilities_are_refused(self, open_group: OpenGroup) -> None:
        """A group refuses undeclared capabilities with `NotSupported`."""
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
        """Listings of an unchanged group have the same instances, each once."""
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
        """Listing the group adds and removes nothing, however often it is done."""
        async with self.examined(open_group) as examination:
            before = present(await examination.listing())
            for _ in range(self.terms.times(LISTINGS)):
                listing = await examination.listing()
                expect(
                    present(listing) == before and not listing.pending,
                    f"listing the group changed it by {present(listing) ^ before or 'pending'}",
                )

    @shows(Promise.LISTING, adds=1)
    async def test_second_reader_changes_nothing(self, open_group: OpenGroup) -> None:
        """Listings of another opening change nothing, and take nothing away from the first."""
        if not self.keeps_instances:
            pytest.skip("the group declares that each opening creates a new one")
        async with self.examined(open_group, adds=1) as examination:
            await examination.grow(1)
            before = await examination.listing()
            try:
                async with self.opening(open_group) as reader:
                    for _ in range(self.terms.times(LISTINGS)):
                        seen = present(await self.listed(reader))
                        expect(
                            seen == present(before),
                            "another opening lists other instances; the group has to be read from "
                            f"the cloud: {sorted(seen ^ present(before))}",
                        )
            except FleetingError as error:
                pytest.skip(f"the group cannot be opened twice: {error}")
            after = await examination.listing()
            expect(
                present(after) == present(before) and not after.pending,
                f"reading changed the group by {present(after) ^ present(before) or 'pending'}",
            )
            known = {one.id for one in before.failures}
            taken = known - {one.id for one in after.failures}
            expect(not taken, f"after another reader, the failures {taken} are not listed any more")

    @shows(Promise.PAGINATION, adds=0, affordable=True)
    async def test_pages_are_listed_whole(self, open_group: OpenGroup) -> None:
        """A group of more than one page is listed completely, and can be removed in one call."""
        count = self.page_size + 1 if self.page_size else self.affordable
        if count > self.affordable:
            pytest.skip(
                f"a page has {self.page_size} instances, but affordable is {self.affordable}"
            )
        async with self.examined(open_group, adds=1) as examination:
            before = present(await examination.listing())
            limit = examination.group.info.max_size
            if not self.page_size and limit is not None:
                count = min(count, limit - len(before))
            new = await examination.grow(count, " (does update read all pages?)")
            for _ in range(2):
                missing = {*before, *new} - present(await examination.listing())
                expect(not missing, f"of {len(before) + count} instances, {missing} are not listed")
            await examination.decrease(new)
            await examination.until(
                lambda listing: not present(listing) & set(new), f"{new} were not all removed"
            )
        if self.page_size is None:
            pytest.skip(
                f"all {count} were listed, but page_size does not say whether that is a page"
            )

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
        """Asking about an instance that was removed raises `InstanceGone` as well."""
        async with self.examined(open_group, adds=1) as examination:
            (id,) = await examination.grow(1)
            await examination.remove(id)
            for ask in (examination.group.connect_info, examination.group.heartbeat):
                with pytest.raises(InstanceGone):
                    await examination.call(ask, id)

    @shows(Promise.UNKNOWN_IDS, adds=1)
    async def test_decrease_accepts_unknown_instances(self, open_group: OpenGroup) -> None:
        """Removing an unknown instance is accepted, also together with an existing one."""
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
        """Removing many unknown instances is accepted, and does not affect existing ones."""
        async with self.examined(open_group, adds=1) as examination:
            (id,) = await examination.grow(1)
            before = present(await examination.listing())
            unknown = [one for one in self.unknown_ids(MANY_IDS) if one not in before]
            accepted = await examination.decrease(unknown)
            expect(accepted.count == len(unknown), f"{accepted.count} of {len(unknown)} accepted")
            await examination.stays(before, "new instances appeared")
            expect(
                id in present(await examination.listing()),
                f"{id} was removed, but only unknown ids were given",
            )
