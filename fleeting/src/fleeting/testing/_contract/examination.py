"""An open group whose every answer is checked against the contract."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import anyio

from fleeting.errors import FleetingError, ProviderError
from fleeting.testing._contract.expectations import (
    check_accepted,
    check_ids,
    eventually,
    expect,
    new_operation,
    present,
    running,
)
from fleeting.types import Accepted, ConnectInfo, Listing, State

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
    from datetime import timedelta

    from fleeting.abc import InstanceGroup

__all__ = ("Examination", "examine")

P = ParamSpec("P")
T = TypeVar("T")

# In how many more listings a removed instance must not be replaced.
WATCHED_LISTINGS = 4


class Examination:
    """An open group whose every answer is checked against the contract.

    Args:
        group: the group.
        instance_timeout: how long an instance may take to start or to be removed.
        call_timeout: how long one call may take.
        learned: collects the secrets that `connect_info` returns.
    """

    def __init__(
        self,
        group: InstanceGroup,
        instance_timeout: timedelta,
        call_timeout: timedelta,
        learned: set[str] | None = None,
    ) -> None:
        self.group = group
        self._instance_timeout = instance_timeout
        self._call_timeout = call_timeout
        self._info = group.info
        self._learned = set[str]() if learned is None else learned
        self._removed: set[str] = set()

    async def call(self, method: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of the group, and check that it keeps to the time and errors allowed.

        Raises:
            FleetingError: the group raised it.
            AssertionError: the group raised another error, or did not return in time.
        """
        name = getattr(method, "__name__", "the call")
        try:
            with anyio.move_on_after(self._call_timeout.total_seconds()):
                result = await method(*args, **kwargs)
                if isinstance(result, ConnectInfo):
                    self._learned.update(filter(None, (result.password, result.private_key)))
                return result
        except FleetingError:
            raise
        except Exception as error:
            raise AssertionError(
                f"{name} raised {type(error).__name__}, which is not a FleetingError"
            ) from error
        finally:
            expect(self.group.info == self._info, f"{name} changed the group's info")
        raise AssertionError(
            f"{name} did not return within {self._call_timeout}; it must not wait for instances"
        )

    async def listing(self) -> Listing:
        """Return a listing, checked for ids and removed instances."""
        removed = set(self._removed)
        listing = await self.call(self.group.update)
        ids = [instance.id for instance in listing.instances]
        expect(len(ids) == len(set(ids)), f"update lists an id more than once: {sorted(ids)}")
        expect(all(ids), "update lists an instance without an id")
        expect(listing.pending >= 0, f"update counts {listing.pending} pending instances")
        self._removed &= set(ids)
        for instance in listing.instances:
            expect(
                instance.id not in removed or instance.state is State.DELETING,
                f"instance {instance.id} was removed, but is listed as {instance.state.value}",
            )
        return listing

    async def reconcile(self, listing: Listing) -> None:
        """Let the group take the steps that follow from a listing; a later one may succeed."""
        with suppress(ProviderError):
            await self.call(self.group.reconcile, listing)

    async def increase(self, count: int, operation: str | None = None) -> Accepted:
        """Ask for more instances."""
        operation = operation or new_operation()
        accepted = await self.call(self.group.increase, count, operation)
        check_accepted(accepted, count, "increase")
        expect(
            len(accepted.ids) in {0, accepted.count},
            f"increase accepted {accepted.count}, but returned {len(accepted.ids)} ids",
        )
        return accepted

    async def decrease(self, ids: Sequence[str]) -> Accepted:
        """Ask for the removal of instances."""
        accepted = await self.call(self.group.decrease, ids)
        check_ids(accepted, ids, "decrease")
        self._removed.update(accepted.ids)
        return accepted

    async def until(self, condition: Callable[[Listing], bool], sentence: str) -> Listing:
        """Wait until a listing meets a condition; the sentence is the failure if none does."""

        async def look() -> Listing | None:
            listing = await self.listing()
            await self.reconcile(listing)
            return listing if condition(listing) else None

        return await eventually(look, self._instance_timeout, sentence)

    async def becomes(self, id: str, state: State) -> None:
        """Wait until an instance is in a state."""
        await self.until(
            lambda listing: any(one.id == id and one.state is state for one in listing.instances),
            f"{id} did not become {state.value}",
        )

    async def goes_away(self, id: str) -> None:
        """Wait until an instance is not listed any more."""
        await self.until(lambda listing: id not in present(listing), f"{id} was not removed")

    async def remove(self, *ids: str) -> None:
        """Remove instances, and wait until they are not listed any more."""
        await self.decrease(ids)
        for id in ids:
            await self.goes_away(id)

    async def grow(self, count: int) -> list[str]:
        """Add instances, wait until they run, and return their ids."""
        before = present(await self.listing())
        accepted = await self.increase(count)
        expect(accepted.count == count, f"increase({count}) accepted only {accepted.count}")
        return await self.arrivals(before, count)

    async def arrivals(self, before: Collection[str], count: int) -> list[str]:
        """Wait until this many new instances run, and return their ids."""
        listing = await self.until(
            lambda listing: len(running(listing) - set(before)) >= count,
            f"fewer than {count} new instances were running",
        )
        new = running(listing) - set(before)
        expect(len(new) == count, f"{count} instances were requested, but {len(new)} appeared")
        return sorted(new)

    async def stays(self, ids: Collection[str], sentence: str) -> None:
        """Check in several listings that no instances other than these appear."""
        looks = iter(range(WATCHED_LISTINGS))

        async def look() -> bool | None:
            listing = await self.listing()
            await self.reconcile(listing)
            more = present(listing) - set(ids)
            expect(not more and not listing.pending, f"{sentence}: {sorted(more) or 'pending'}")
            return True if next(looks, None) is None else None

        await eventually(look, self._instance_timeout, "the group was not listed often enough")

    async def remove_new(self, before: Collection[str]) -> None:
        """Remove all instances except these, and wait until they are gone."""

        async def look() -> bool | None:
            listing = await self.call(self.group.update)
            await self.reconcile(listing)
            new = [one for one in listing.instances if one.id not in before]
            doomed = [one.id for one in new if one.state is not State.DELETING]
            if doomed:
                await self.call(self.group.decrease, doomed)
            return True if not new and not listing.pending else None

        await eventually(look, self._instance_timeout, "the instances of the test were not removed")


@asynccontextmanager
async def examine(
    group: InstanceGroup,
    instance_timeout: timedelta,
    call_timeout: timedelta,
    learned: set[str] | None = None,
) -> AsyncGenerator[Examination]:
    """Check the group while the block runs, and then remove the instances that it added."""
    examination = Examination(group, instance_timeout, call_timeout, learned)
    before = present(await examination.listing())
    try:
        yield examination
    except BaseException as found:
        # The failure of the test matters more than one of the clean-up. After an interruption
        # the instances have to be removed as well, hence the shield.
        limit = instance_timeout.total_seconds()
        with anyio.move_on_after(limit, shield=True) as cleaning:
            try:
                await examination.remove_new(before)
            except Exception as error:  # noqa: BLE001 - it becomes a note of the first error
                found.add_note(
                    f"The test may have left instances behind, so check the group: {error}"
                )
        if cleaning.cancelled_caught:
            found.add_note(
                "The test may have left instances behind, so check the group: clean-up timed out"
            )
        raise
    await examination.remove_new(before)
