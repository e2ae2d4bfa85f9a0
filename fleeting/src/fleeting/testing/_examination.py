"""Holds a group of instances to its contract while a test uses it.

A real cloud sends no events: what it has promised is awaited by asking it
again, with pauses that grow, until it has happened or the time for it is up.
"""

from __future__ import annotations

import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NoReturn, ParamSpec, TypeVar

import anyio

from fleeting.errors import FleetingError, ProviderError
from fleeting.types import Accepted, ConnectInfo, Listing, State

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
    from datetime import timedelta

    from fleeting.abc import InstanceGroup

__all__ = (
    "Examination",
    "check_ids",
    "eventually",
    "examine",
    "expect",
    "fail",
    "new_operation",
    "present",
    "running",
)

P = ParamSpec("P")
T = TypeVar("T")

FIRST_PAUSE_SECONDS = 0.01
LONGEST_PAUSE_SECONDS = 5.0
PAUSE_GROWTH = 1.5

# In how many more listings a removed instance must have found no successor.
WATCHED_LISTINGS = 4


def expect(condition: object, sentence: str) -> None:
    """Fail the test with a sentence for the author of the provider unless the condition holds."""
    __tracebackhide__ = True
    if not condition:
        fail(sentence)


def fail(sentence: str) -> NoReturn:
    """Fail the test."""
    __tracebackhide__ = True
    raise AssertionError(sentence)


async def eventually(look: Callable[[], Awaitable[T | None]], limit: timedelta, sentence: str) -> T:
    """Look again and again until there is something to see, and return that.

    Raises:
        AssertionError: nothing was to be seen in time; the sentence says what is missing.
    """
    deadline = anyio.current_time() + limit.total_seconds()
    pause = FIRST_PAUSE_SECONDS
    while True:
        is_last = anyio.current_time() >= deadline
        seen = await look()
        if seen is not None:
            return seen
        if is_last:
            fail(f"{sentence} within {limit}")
        await anyio.sleep(pause)
        pause = min(pause * PAUSE_GROWTH, LONGEST_PAUSE_SECONDS)


class Examination:
    """An open group whose every answer is checked against the contract.

    Args:
        group: the group.
        instance_timeout: how long an instance may take to come up or to go away.
        call_timeout: how long one call may take.
        learned: where to note the secrets that `connect_info` returns.
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
        """Call a method of the group, which may raise its errors but not just anything.

        Raises:
            FleetingError: what the group raised.
            AssertionError: it raised something else, or did not come back in time.
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
                f"{name} raised {type(error).__name__}, which is no FleetingError"
            ) from error
        finally:
            expect(self.group.info == self._info, f"{name} changed the group's info")
        fail(f"{name} did not return within {self._call_timeout}; it must not wait for instances")

    async def listing(self) -> Listing:
        """Return a listing in which nothing is wrong by itself."""
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
                f"instance {instance.id} was removed, and then was {instance.state.value}",
            )
        return listing

    async def increase(self, count: int, operation: str | None = None) -> Accepted:
        """Ask for more instances."""
        operation = operation or new_operation()
        accepted = await self.call(self.group.increase, count, operation)
        _check_accepted(accepted, count, "increase")
        expect(
            len(accepted.ids) in {0, accepted.count},
            f"increase accepted {accepted.count} but named {len(accepted.ids)} ids",
        )
        return accepted

    async def decrease(self, ids: Sequence[str]) -> Accepted:
        """Ask for the removal of instances."""
        accepted = await self.call(self.group.decrease, ids)
        check_ids(accepted, ids, "decrease")
        self._removed.update(accepted.ids)
        return accepted

    async def until(self, condition: Callable[[Listing], bool], sentence: str) -> Listing:
        """Wait until a listing meets a condition; the sentence says what else is missing."""

        async def look() -> Listing | None:
            listing = await self.listing()
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
        await self.until(lambda listing: id not in present(listing), f"{id} did not go away")

    async def grow(self, count: int) -> list[str]:
        """Add instances, wait until they run, and return their ids."""
        before = present(await self.listing())
        accepted = await self.increase(count)
        expect(accepted.count == count, f"increase({count}) accepted {accepted.count} only")
        return await self.arrivals(before, count)

    async def arrivals(self, before: Collection[str], count: int) -> list[str]:
        """Wait until as many instances run that were not there before; return their ids."""
        listing = await self.until(
            lambda listing: len(running(listing) - set(before)) >= count,
            f"fewer than {count} new instances came to run",
        )
        new = running(listing) - set(before)
        expect(len(new) == count, f"{count} instances were asked for, and {len(new)} came")
        return sorted(new)

    async def stays(self, ids: Collection[str], sentence: str) -> None:
        """Look for a while whether instances other than these appear."""
        looks = iter(range(WATCHED_LISTINGS))

        async def look() -> bool | None:
            listing = await self.listing()
            more = present(listing) - set(ids)
            expect(not more and not listing.pending, f"{sentence}: {sorted(more) or 'pending'}")
            return True if next(looks, None) is None else None

        await eventually(look, self._instance_timeout, "too few listings came")

    async def remove_new(self, before: Collection[str]) -> None:
        """Remove every instance that was not there before, and wait until they are gone."""

        async def look() -> bool | None:
            listing = await self.call(self.group.update)
            new = [one for one in listing.instances if one.id not in before]
            doomed = [one.id for one in new if one.state is not State.DELETING]
            if doomed:
                await self.call(self.group.decrease, doomed)
            return True if not new and not listing.pending else None

        await eventually(look, self._instance_timeout, "the test's instances did not go away")


@asynccontextmanager
async def examine(
    group: InstanceGroup,
    instance_timeout: timedelta,
    call_timeout: timedelta,
    learned: set[str] | None = None,
) -> AsyncGenerator[Examination]:
    """Hold a group to its contract, and remove afterwards what the test has added to it."""
    examination = Examination(group, instance_timeout, call_timeout, learned)
    before = present(await examination.listing())
    try:
        yield examination
    except BaseException as found:
        # What the test found is worth more than what the clean-up after it may find; and
        # whoever interrupts a test wants its instances removed all the same.
        limit = instance_timeout.total_seconds()
        with anyio.move_on_after(limit, shield=True) as cleaning:
            try:
                await examination.remove_new(before)
            except Exception as error:  # noqa: BLE001 - it is added to what was found
                found.add_note(f"Look for instances that the test has left: {error}")
        if cleaning.cancelled_caught:
            found.add_note("Look for instances that the test has left: time was up")
        raise
    await examination.remove_new(before)


def new_operation() -> str:
    """Return the name of a request that no other request has."""
    return f"contract-{uuid.uuid4().hex}"


def present(listing: Listing) -> set[str]:
    """Return the ids of all instances."""
    return {instance.id for instance in listing.instances}


def running(listing: Listing) -> set[str]:
    """Return the ids of the instances that run."""
    return {one.id for one in listing.instances if one.state is State.RUNNING}


def _check_accepted(accepted: Accepted, asked: int, name: str) -> None:
    expect(
        0 <= accepted.count <= asked,
        f"{name} was asked for {asked} and says that it accepted {accepted.count}",
    )
    if accepted.count == asked:
        expect(accepted.error is None, f"{name} accepted everything and gives an error")
    else:
        expect(
            isinstance(accepted.error, ProviderError),
            f"{name} accepted {accepted.count} of {asked} and does not say why as a ProviderError",
        )


def check_ids(accepted: Accepted, ids: Sequence[str], name: str) -> None:
    """Check what a method that takes ids has accepted."""
    asked = set(ids)
    # Who is asked for an instance twice may say once or twice that it goes.
    most = len(ids) if len(accepted.ids) > len(asked) else len(asked)
    _check_accepted(accepted, most, name)
    expect(
        set(accepted.ids) <= asked and len(accepted.ids) == accepted.count,
        f"{name} of {sorted(asked)} says that it accepted {accepted.count}: {accepted.ids}",
    )
