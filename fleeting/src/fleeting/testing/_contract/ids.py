"""Tests that instances are not mistaken for others."""

from __future__ import annotations

from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING

import pytest

from fleeting.errors import FleetingError, InstanceGone
from fleeting.testing._contract.base import ContractBase, OpenGroup
from fleeting.testing._contract.expectations import expect, present
from fleeting.testing._contract.promises import Promise, shows

if TYPE_CHECKING:
    from fleeting.testing._contract.examination import Examination

__all__ = ("IdTests",)


class IdTests(ContractBase):
    """Similar ids, instances of others, and other handles."""

    @shows(Promise.UNKNOWN_IDS, adds=1)
    async def test_similar_id_is_unknown(self, open_group: OpenGroup) -> None:
        """An id that differs by a character from that of an instance is not this instance."""
        async with self.examined(open_group, adds=1) as examination:
            (id,) = await examination.grow(1)
            listed = present(await examination.listing())
            similar = [one for one in (id[:-1], f"{id}0", f"0{id}") if one and one not in listed]
            for ask in (examination.group.heartbeat, examination.group.connect_info):
                for one in similar:
                    try:
                        await examination.call(ask, one)
                    except InstanceGone:
                        continue
                    except FleetingError as error:
                        found = type(error).__name__
                        raise AssertionError(
                            f"{ask.__name__}({one!r}) raised {found} instead of InstanceGone"
                        ) from error
                    raise AssertionError(f"{ask.__name__}({one!r}) found instance {id!r}")
            if id.isdecimal():
                return  # The similar number may be that of another instance of the account.
            await examination.decrease(similar)
            await examination.stays(listed, "new instances appeared")
            expect(
                id in present(await examination.listing()),
                f"{id} was removed, but decrease was asked for {similar}",
            )

    @shows(Promise.SIZE, adds=0, affordable=True)
    async def test_decrease_removes_exactly_these(self, open_group: OpenGroup) -> None:
        """Of many instances, a decrease removes those that it names, and no others."""
        async with self.examined(open_group, adds=2) as examination:
            before = present(await examination.listing())
            limit = examination.group.info.max_size
            room = self.affordable if limit is None else limit - len(before)
            new = set(await examination.grow(min(self.affordable, room)))
            # First those whose ids are contained in others, then every second one.
            inner = {one for one in new if any(one in other and one != other for other in new)}
            for doomed in (inner, set(sorted(new - inner)[::2])):
                await examination.remove(*doomed)
                new -= doomed
                gone = new - present(await examination.listing())
                expect(not gone, f"{gone} are gone, but only {doomed} were removed")
            await examination.stays({*before, *new}, "removed instances were replaced")

    @shows(Promise.CLOSING, adds=1)
    async def test_another_opening_takes_over(self, open_group: OpenGroup) -> None:
        """Another opening lists, reaches and removes an instance that the first one added."""
        if not self.keeps_instances:
            pytest.skip("the group declares that each opening creates a new one")
        async with self.examined(open_group, adds=1) as examination:
            (id,) = await examination.grow(1)
            await examination.caught_up()
            async with AsyncExitStack() as stack:
                try:
                    successor = await stack.enter_async_context(self.examined(open_group))
                except FleetingError as error:
                    pytest.skip(f"the group cannot be opened twice: {error}")
                try:
                    await self._use(successor, id)
                except FleetingError as error:
                    raise AssertionError(
                        f"another opening of the group cannot use {id}, which the first one added; "
                        f"a manager that starts again has to: {error}"
                    ) from error

    async def _use(self, examination: Examination, id: str) -> None:
        """Ask about an instance, reach it, and remove it."""
        group = examination.group
        await examination.call(group.heartbeat, id)
        info = await examination.call(group.connect_info, id)
        if self.can_connect:
            async with await self.connect(group, info) as connection:
                completed = await connection.run(self.command)
            expect(completed.succeeded, f"{self.command!r} on {id}: {completed}")
        await examination.remove(id)

    @shows(Promise.FOREIGN, adds=0)
    async def test_foreign_instance_is_not_ours(self, open_group: OpenGroup) -> None:
        """An instance of the account that is not in the group is neither listed nor reachable."""
        async with self.examined(open_group) as examination:
            id = self._foreign()
            for _ in range(2):
                expect(
                    id not in present(await examination.listing()),
                    f"update lists {id}, which is not in the group; list only its own instances, "
                    "by a label for example",
                )
            for ask in (examination.group.heartbeat, examination.group.connect_info):
                try:
                    await examination.call(ask, id)
                except InstanceGone:
                    continue
                raise AssertionError(f"{ask.__name__}({id!r}) answers for a foreign instance")

    @shows(Promise.FOREIGN, adds=1)
    async def test_foreign_instance_is_left_alone(self, open_group: OpenGroup) -> None:
        """A decrease accepts the id of a foreign instance, and does not touch it."""
        async with self.examined(open_group, adds=1) as examination:
            foreign = self._foreign()
            if not await self.exists(foreign):
                pytest.skip(
                    "to show it, add `async def exists(self, id)`, which asks the cloud whether "
                    "an instance exists, without the provider"
                )
            (id,) = await examination.grow(1)
            accepted = await examination.decrease([foreign, id])
            expect(
                set(accepted.ids) == {foreign, id},
                f"decrease accepted {accepted.ids}; an id that is not in the group is accepted",
            )
            await examination.goes_away(id)
            with suppress(FleetingError):
                await examination.group.reconcile(await examination.listing())
            expect(
                await self.exists(foreign),
                f"decrease removed {foreign}, which is not in the group; check that before",
            )

    def _foreign(self) -> str:
        """Return the id of an instance that is not in the group, or skip the test."""
        if not self.foreign_id:
            pytest.skip("to show it, set `foreign_id` to an instance that is not in the group")
        return self.foreign_id
