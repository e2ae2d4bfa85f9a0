"""Tests of what only some groups can do: suspending instances and watching."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import partial
from typing import TYPE_CHECKING

import anyio
import pytest

from fleeting.errors import FleetingError
from fleeting.testing._contract.base import ContractBase, OpenGroup
from fleeting.testing._contract.expectations import expect, present, running
from fleeting.testing._contract.promises import Promise, shows
from fleeting.testing._contract.resources import Resources
from fleeting.types import Capability, Notice, State

if TYPE_CHECKING:
    from fleeting.abc import InstanceGroup
    from fleeting.testing._contract.examination import Examination

__all__ = ("CapabilityTests",)


class CapabilityTests(ContractBase):
    """Capabilities that a group may declare."""

    @shows(Promise.SUSPENDING, adds=1)
    async def test_suspend_and_resume(self, open_group: OpenGroup) -> None:
        """An instance can be suspended and resumed, and both are idempotent."""
        async with self.examined(open_group, adds=1) as examination:
            group = _suspending(examination)
            (id,) = await examination.grow(1)
            for change, state in (
                (group.suspend, State.SUSPENDED),
                (group.suspend, State.SUSPENDED),
                (group.resume, State.RUNNING),
                (group.resume, State.RUNNING),
            ):
                accepted = await examination.change(change, [id])
                expect(accepted.count == 1, f"{change.__name__} did not accept {id}")
                await examination.becomes(id, state)

    @shows(Promise.SUSPENDING, adds=2)
    async def test_suspended_instance_stays_listed(self, open_group: OpenGroup) -> None:
        """A suspended instance stays listed and can be removed; the others keep running."""
        async with self.examined(open_group, adds=2) as examination:
            group = _suspending(examination)
            before = present(await examination.listing())
            id, other = await examination.grow(2)
            await examination.change(group.suspend, [id])
            await examination.becomes(id, State.SUSPENDED)
            await examination.stays({*before, id, other}, "the suspended instance was replaced")
            listing = await examination.listing()
            expect(id in present(listing), f"{id} is not listed after it was suspended")
            expect(
                other in running(listing), f"{other} is not running, but only {id} was suspended"
            )
            await examination.decrease([id])
            await examination.goes_away(id)

    @shows(Promise.SUSPENDING, adds=1)
    async def test_suspend_and_resume_without_the_first_handle(self, open_group: OpenGroup) -> None:
        """Another opening finishes a suspension and a resumption from its listings alone."""
        if not self.keeps_instances:
            pytest.skip("the group declares that each opening creates a new one")
        async with self.examined(open_group, adds=1) as examination:
            _suspending(examination)
            (id,) = await examination.grow(1)
            for verb, state in (("suspend", State.SUSPENDED), ("resume", State.RUNNING)):
                # As by a process that is killed after the first step.
                try:
                    async with self.opening(open_group) as first:
                        await examination.change(getattr(first, verb), [id])
                except FleetingError as error:
                    pytest.skip(f"the group cannot be opened twice: {error}")
                async with self.examined(open_group) as successor:
                    await successor.becomes(id, state)

    @shows(Promise.SUSPENDING, adds=1)
    async def test_resumed_instance_is_the_same(self, open_group: OpenGroup) -> None:
        """A resumed instance has the same incarnation as before, and works."""
        async with self.examined(open_group, adds=1) as examination:
            group = _suspending(examination)
            (id,) = await examination.grow(1)
            before = {one.id: one.incarnation for one in (await examination.listing()).instances}
            await examination.change(group.suspend, [id])
            await examination.becomes(id, State.SUSPENDED)
            await examination.change(group.resume, [id])
            await examination.becomes(id, State.RUNNING)
            after = {one.id: one.incarnation for one in (await examination.listing()).instances}
            expect(
                before[id] in {None, after.get(id)},
                f"{id} has incarnation {after.get(id)} after resuming, but had {before[id]}",
            )
            await examination.call(group.heartbeat, id)

    @shows(Promise.WATCHING, adds=0)
    async def test_watch_can_be_cancelled(self, open_group: OpenGroup) -> None:
        """A watch can be cancelled at any await, and leaves nothing behind."""
        async with self.examined(open_group) as examination:
            group = _watchable(examination)
            resources = await Resources.settled()
            for point in self.points:
                watch = group.watch()
                try:
                    reached = await self.cancelled(
                        point, partial(anext, watch), name="watch", may_block=True
                    )
                finally:
                    if isinstance(watch, AsyncGenerator):
                        with anyio.CancelScope(shield=True):
                            await watch.aclose()
                await examination.listing()
                if not reached:
                    break
            await resources.restored(self.call_timeout, "a cancelled watch")

    @shows(Promise.WATCHING, adds=1)
    async def test_watch_reports_an_interruption(self, open_group: OpenGroup) -> None:
        """A watch reports which instance will be interrupted."""
        async with self.examined(open_group, adds=1) as examination:
            group = _watchable(examination)
            (id,) = await examination.grow(1)
            seen: list[Notice] = []

            async def watch() -> None:
                async for notice in group.watch():
                    seen.append(notice)
                    if notice.id == id:
                        return

            interrupted = False
            with anyio.move_on_after(self.instance_timeout.total_seconds()):
                async with anyio.create_task_group() as watching:
                    watching.start_soon(watch)
                    interrupted = await self.interrupt(group, id)
                    if not interrupted:
                        watching.cancel_scope.cancel()
            if not interrupted:
                pytest.skip("`interrupt` is not overridden, so no interruption can be caused")
            expect(id in {one.id for one in seen}, f"the watch did not report {id}, only {seen}")


def _suspending(examination: Examination) -> InstanceGroup:
    """Return the group, or skip the test if it cannot suspend instances."""
    return _capable(examination, Capability.SUSPEND, "suspend instances")


def _watchable(examination: Examination) -> InstanceGroup:
    """Return the group, or skip the test if it cannot be watched."""
    return _capable(examination, Capability.WATCH, "announce interruptions")


def _capable(examination: Examination, capability: Capability, what: str) -> InstanceGroup:
    if capability not in examination.group.info.capabilities:
        pytest.skip(f"the group does not declare that it can {what}")
    return examination.group
