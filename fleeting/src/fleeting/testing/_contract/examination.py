"""An open group whose every answer is checked against the contract."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast

import anyio

from fleeting.errors import FleetingError, ProviderError, Throttled
from fleeting.testing._contract.expectations import (
    check_accepted,
    check_ids,
    eventually,
    expect,
    heed,
    new_operation,
    present,
    running,
)
from fleeting.types import Accepted, ConnectInfo, Listing, State

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence

    from fleeting.abc import InstanceGroup
    from fleeting.testing._contract.terms import Terms

__all__ = ("Examination", "examine")

P = ParamSpec("P")
T = TypeVar("T")

# In how many more listings a removed instance must not be replaced.
WATCHED_LISTINGS = 4


class Examination:
    """An open group whose every answer is checked against the contract.

    Args:
        group: the group.
        terms: the limits of the test.
    """

    def __init__(self, group: InstanceGroup, terms: Terms) -> None:
        self.group = group
        self._terms = terms
        self._info = group.info
        self._removed: set[str] = set()
        self._changed_at = float("-inf")

    async def call(self, method: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of the group, again if the cloud throttles it, as a scaler does.

        Raises:
            FleetingError: the group raised it.
            AssertionError: the group raised another error, or did not return in time.
        """
        return await heed(lambda: self.once(method, *args, **kwargs), self._terms.instance_timeout)

    async def once(self, method: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of the group, and check that it keeps to the time and errors allowed.

        Raises:
            FleetingError: the group raised it.
            AssertionError: the group raised another error, or did not return in time.
        """
        name = getattr(method, "__name__", "the call")
        self._terms.calls[name] += 1
        limit = self._terms.call_timeout
        try:
            with anyio.move_on_after(limit.total_seconds()):
                result = await method(*args, **kwargs)
                if isinstance(result, ConnectInfo):
                    secrets = filter(None, (result.password, result.private_key))
                    self._terms.learned.update(secrets)
                return result
        except FleetingError:
            raise
        except Exception as error:
            first: Exception = error
            while isinstance(first, ExceptionGroup):
                first = cast("ExceptionGroup[Exception]", first).exceptions[0]
            grouped = "" if first is error else " in a group"
            raise AssertionError(
                f"{name} raised {type(first).__name__}{grouped}, which is not a FleetingError: "
                f"{first}"
            ) from error
        finally:
            expect(self.group.info == self._info, f"{name} changed the group's info")
        raise AssertionError(
            f"{name} did not return within {limit}; it must wait neither for instances nor until "
            "the cloud takes requests again"
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
        """Ask for more instances; if the cloud throttles a part, ask for the rest later."""
        whole = Accepted(0)
        while True:
            left = count - whole.count
            part = await self.call(self.group.increase, left, operation or new_operation())
            check_accepted(part, left, "increase")
            expect(
                len(part.ids) in {0, part.count},
                f"increase accepted {part.count}, but returned {len(part.ids)} ids",
            )
            self.note_change()
            whole = Accepted(whole.count + part.count, (*whole.ids, *part.ids), part.error)
            if operation or not await self._throttled(part):
                return whole

    async def decrease(self, ids: Sequence[str]) -> Accepted:
        """Ask for the removal of instances."""
        accepted = await self.change(self.group.decrease, ids)
        self.note_change()
        self._removed.update(accepted.ids)
        return accepted

    async def change(
        self, method: Callable[[Sequence[str]], Awaitable[Accepted]], ids: Sequence[str]
    ) -> Accepted:
        """Remove, suspend or resume; if the cloud throttles a part, ask for the rest later."""
        name = getattr(method, "__name__", "the call")
        first: tuple[str, ...] = ()
        asked = ids
        while True:
            part = await self.call(method, asked)
            check_ids(part, asked, name)
            first += part.ids
            if not await self._throttled(part):
                return replace(part, count=len(first), ids=first)
            asked = [id for id in dict.fromkeys(asked) if id not in part.ids]

    async def _throttled(self, part: Accepted) -> bool:
        """Return whether the cloud throttled the rest, after the pause that it asks for."""
        error, looks = part.error, iter((False, True))

        async def look() -> bool:
            if isinstance(error, Throttled) and not next(looks):
                raise error
            return isinstance(error, Throttled)

        return await heed(look, self._terms.instance_timeout)

    def note_change(self) -> None:
        """Note that the group changed just now, so that a listing may be behind."""
        self._changed_at = anyio.current_time()

    async def caught_up(self) -> None:
        """Wait until a listing shows the last change, however far the cloud's listing lags."""
        await anyio.sleep_until(self._changed_at + self._terms.lag.total_seconds())

    async def until(self, condition: Callable[[Listing], bool], sentence: str) -> Listing:
        """Wait until a listing meets a condition; the sentence is the failure if none does."""

        async def look() -> Listing | None:
            listing = await self.listing()
            await self.reconcile(listing)
            return listing if condition(listing) else None

        return await self.eventually(look, sentence)

    async def eventually(self, look: Callable[[], Awaitable[T | None]], sentence: str) -> T:
        """Call `look` until it returns something; the sentence is the failure if it never does."""
        return await eventually(
            look, self._terms.instance_timeout, sentence, first_pause=self._terms.first_pause
        )

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

    async def grow(self, count: int, hint: str = "") -> list[str]:
        """Add instances, wait until they run, and return their ids.

        Args:
            count: how many.
            hint: the end of the message if they do not appear.
        """
        before = present(await self.listing())
        accepted = await self.increase(count)
        expect(accepted.count == count, f"increase({count}) accepted only {accepted.count}")
        return await self.arrivals(before, count, hint)

    async def arrivals(self, before: Collection[str], count: int, hint: str = "") -> list[str]:
        """Wait until this many new instances run, and return their ids."""
        listing = await self.until(
            lambda listing: len(running(listing) - set(before)) >= count,
            f"fewer than {count} new instances were running{hint}",
        )
        await self.caught_up()
        if self._terms.lag:
            listing = await self.listing()
        new = running(listing) - set(before)
        expect(len(new) == count, f"{count} instances were requested, but {len(new)} appeared")
        return sorted(new)

    async def stays(self, ids: Collection[str], sentence: str) -> None:
        """Check in several listings that no instances other than these appear."""
        looks = iter(range(self._terms.times(WATCHED_LISTINGS)))
        await self.caught_up()

        async def look() -> bool | None:
            listing = await self.listing()
            await self.reconcile(listing)
            more = present(listing) - set(ids)
            expect(not more and not listing.pending, f"{sentence}: {sorted(more) or 'pending'}")
            return True if next(looks, None) is None else None

        await self.eventually(look, "the group was not listed often enough")

    async def remove_new(self, before: Collection[str]) -> None:
        """Remove all instances except these, and wait until they are gone."""
        left: set[str] = set()

        async def look() -> bool | None:
            await self.caught_up()
            listing = await self.call(self.group.update)
            await self.reconcile(listing)
            new = [one for one in listing.instances if one.id not in before]
            left.clear()
            left.update(one.id for one in new)
            doomed = [one.id for one in new if one.state is not State.DELETING]
            if doomed:
                await self.change(self.group.decrease, doomed)
                self.note_change()
            return True if not new and not listing.pending else None

        try:
            await self.eventually(look, "the instances of the test were not removed")
        except BaseException as error:
            if left:
                error.add_note(f"These instances are left, so remove them: {', '.join(left)}")
            raise


@asynccontextmanager
async def examine(group: InstanceGroup, terms: Terms) -> AsyncGenerator[Examination]:
    """Check the group while the block runs, and then remove the instances that it added."""
    examination = Examination(group, terms)
    before = present(await examination.listing())
    try:
        yield examination
    except BaseException as found:
        # The failure of the test matters more than one of the clean-up. After an interruption
        # the instances have to be removed as well, hence the shield.
        limit = terms.instance_timeout.total_seconds()
        with anyio.move_on_after(limit, shield=True) as cleaning:
            try:
                examination.note_change()
                await examination.remove_new(before)
            except Exception as error:  # noqa: BLE001 - it becomes a note of the first error
                notes = "".join(f" {note}" for note in getattr(error, "__notes__", ()))
                found.add_note(
                    f"The test may have left instances behind, so check the group: {error}{notes}"
                )
        if cleaning.cancelled_caught:
            found.add_note(
                "The test may have left instances behind, so check the group: clean-up timed out"
            )
        raise
    await examination.remove_new(before)
