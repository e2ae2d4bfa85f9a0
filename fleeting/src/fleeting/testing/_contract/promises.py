"""The promises of the contract, and the tests that show each.

Each test of the contract declares with `shows` which promise it examines and how many
instances it adds. The table of a run, and the page that lists the costs, are made from that.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ParamSpec

from fleeting.testing._contract.watching import watched

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ("Promise", "Shown", "promise_of", "promises_of", "shows")

P = ParamSpec("P")

_ATTRIBUTE = "__fleeting_shows__"


class Promise(Enum):
    """A part of the specification in `fleeting.abc`; the table has them in this order."""

    IDENTITY = "identity"
    LISTING = "listing stability"
    FOREIGN = "foreign instances"
    PAGINATION = "pagination"
    UNKNOWN_IDS = "unknown ids"
    SIZE = "growing and shrinking"
    PARTIAL_FAILURE = "partial failure"
    IDEMPOTENCY = "idempotency"
    CONNECTING = "connect and run"
    ERRORS = "errors name their cause"
    LOST_REPLIES = "lost replies"
    RECONCILING = "reconcile"
    SUSPENDING = "suspend and resume"
    WATCHING = "watch"
    CONCURRENCY = "concurrency"
    CANCELLATION = "cancellation at every await"
    CLOSING = "clean shutdown"
    LEAKS = "no leaked tasks or sockets"
    SECRETS = "secrets stay secret"
    CHECKING = "check starts nothing"


@dataclass(frozen=True, slots=True)
class Shown:
    """The declaration of a test.

    Attributes:
        promise: the promise that it examines.
        adds: how many instances it adds to the group in total.
        affordable: whether it adds up to `affordable` instances in addition.
        each_await: whether it adds an instance for each await of `increase` in addition.
    """

    promise: Promise
    adds: int
    affordable: bool = False
    each_await: bool = False


def shows(
    promise: Promise, *, adds: int, affordable: bool = False, each_await: bool = False
) -> Callable[[Callable[P, Awaitable[None]]], Callable[P, Awaitable[None]]]:
    """Declare what a test of the contract shows, and watch it; for the arguments, see `Shown`."""

    def mark(test: Callable[P, Awaitable[None]]) -> Callable[P, Awaitable[None]]:
        @functools.wraps(test)
        async def watched_test(*args: P.args, **kwargs: P.kwargs) -> None:
            async with watched():
                await test(*args, **kwargs)

        setattr(watched_test, _ATTRIBUTE, Shown(promise, adds, affordable, each_await))
        return watched_test

    return mark


def promise_of(owner: type, name: str) -> Shown | None:
    """Return what a test declares about itself; None if it is not a test of the contract.

    A test that a subclass overrides keeps the promise of the original.

    Args:
        owner: the class that contains the test.
        name: the name of its method, without parameters.
    """
    for above in owner.__mro__:
        shown = getattr(vars(above).get(name), _ATTRIBUTE, None)
        if isinstance(shown, Shown):
            return shown
    return None


def promises_of(owner: type) -> dict[str, Promise]:
    """Return the promise of each test of the contract in a class, by the name of the test."""
    shown = {name: promise_of(owner, name) for name in dir(owner)}
    return {name: one.promise for name, one in shown.items() if one is not None}
