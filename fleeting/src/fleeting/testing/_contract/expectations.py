"""Conditions that a test of the contract waits for or insists on.

A real cloud sends no events: a test waits for a promised change by listing the group again, with
growing pauses, until the change has happened or its time is up.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, TypeVar

import anyio

from fleeting.errors import ProviderError, Throttled
from fleeting.types import State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import timedelta

    from fleeting.types import Accepted, Listing

__all__ = (
    "FIRST_PAUSE_SECONDS",
    "FRUGAL_PAUSE_SECONDS",
    "check_accepted",
    "check_ids",
    "eventually",
    "expect",
    "heed",
    "new_operation",
    "present",
    "running",
)

T = TypeVar("T")

FIRST_PAUSE_SECONDS = 0.01
FRUGAL_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 5.0
PAUSE_GROWTH = 1.5
# After a refusal that does not say how long to wait.
FIRST_BACKOFF_SECONDS = 1.0
LONGEST_BACKOFF_SECONDS = 30.0


def expect(condition: object, sentence: str) -> None:
    """Fail the test unless the condition holds; the sentence is for the provider's author."""
    __tracebackhide__ = True
    if not condition:
        raise AssertionError(sentence)


async def heed(call: Callable[[], Awaitable[T]], patience: timedelta) -> T:
    """Make a call, and repeat it as long as the cloud throttles it.

    Args:
        call: makes the call; a call that is throttled does nothing.
        patience: how long to repeat it.

    Raises:
        AssertionError: the cloud still refuses it, or asks to wait longer than that.
    """
    deadline = anyio.current_time() + patience.total_seconds()
    backoff = FIRST_BACKOFF_SECONDS
    while True:
        try:
            return await call()
        except Throttled as error:
            asked = error.retry_after
            pause = backoff if asked is None else max(0.0, asked.total_seconds())
            if anyio.current_time() + pause > deadline:
                raise AssertionError(
                    f"the cloud throttled a call, and would do so for more than {patience}: {error}"
                ) from error
        await anyio.sleep(pause)
        backoff = min(2 * backoff, LONGEST_BACKOFF_SECONDS)


async def eventually(
    look: Callable[[], Awaitable[T | None]],
    limit: timedelta,
    sentence: str,
    *,
    first_pause: float = FIRST_PAUSE_SECONDS,
) -> T:
    """Call `look` until it returns something, and return that.

    Args:
        look: returns None as long as the change has not happened.
        limit: how long to wait.
        sentence: the failure if the time is up.
        first_pause: the seconds between the first two calls; the pauses grow.

    Raises:
        AssertionError: the time is up.
    """
    deadline = anyio.current_time() + limit.total_seconds()
    pause = first_pause
    while True:
        is_last = anyio.current_time() >= deadline
        seen = await look()
        if seen is not None:
            return seen
        if is_last:
            raise AssertionError(f"{sentence} within {limit}")
        await anyio.sleep(pause)
        pause = min(pause * PAUSE_GROWTH, LONGEST_PAUSE_SECONDS)


def new_operation() -> str:
    """Return a unique name for a request."""
    return f"contract-{uuid.uuid4().hex}"


def present(listing: Listing) -> set[str]:
    """Return the ids of all instances."""
    return {instance.id for instance in listing.instances}


def running(listing: Listing) -> set[str]:
    """Return the ids of the instances that run."""
    return {one.id for one in listing.instances if one.state is State.RUNNING}


def check_accepted(accepted: Accepted, asked: int, name: str) -> None:
    """Check the answer of a method that was asked for a number of instances."""
    expect(
        0 <= accepted.count <= asked,
        f"{name} was asked for {asked}, but reports {accepted.count} as accepted",
    )
    if accepted.count == asked:
        expect(accepted.error is None, f"{name} accepted everything, but returned an error")
    else:
        expect(
            isinstance(accepted.error, ProviderError),
            f"{name} accepted {accepted.count} of {asked} without a ProviderError that says why",
        )


def check_ids(accepted: Accepted, ids: Sequence[str], name: str) -> None:
    """Check the answer of a method that takes ids."""
    asked = set(ids)
    # An id that is given twice may be accepted once or twice.
    most = len(ids) if len(accepted.ids) > len(asked) else len(asked)
    check_accepted(accepted, most, name)
    expect(
        set(accepted.ids) <= asked and len(accepted.ids) == accepted.count,
        f"{name} of {sorted(asked)} reports {accepted.count} as accepted: {accepted.ids}",
    )
