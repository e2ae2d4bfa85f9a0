"""What the contract is about, and which of its tests is about what.

A test of the contract says with `shows` which promise it examines and how many
instances it adds. From that the table of a run is made, and an author knows
beforehand what a run costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("Promise", "Shown", "promise_of", "promises_of", "shows")

Test = TypeVar("Test", bound="Callable[..., object]")

_ATTRIBUTE = "__fleeting_shows__"


class Promise(Enum):
    """A part of the specification in `fleeting.abc`, in the order of the table."""

    IDENTITY = "says what it is"
    LISTING = "listing stability"
    PAGINATION = "pagination"
    UNKNOWN_IDS = "unknown ids"
    SIZE = "growing and shrinking"
    PARTIAL_FAILURE = "partial failure"
    IDEMPOTENCY = "idempotency"
    CONNECTING = "connect and run"
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
    """What a test says about itself.

    Attributes:
        promise: what it examines.
        adds: how many instances it adds to the group, all in all.
        affordable: whether it adds up to `affordable` instances besides.
        each_await: whether it adds an instance for each await of `increase` besides.
    """

    promise: Promise
    adds: int
    affordable: bool = False
    each_await: bool = False


def shows(
    promise: Promise, *, adds: int, affordable: bool = False, each_await: bool = False
) -> Callable[[Test], Test]:
    """Mark a test of the contract; for the arguments, see `Shown`."""

    def mark(test: Test) -> Test:
        setattr(test, _ATTRIBUTE, Shown(promise, adds, affordable, each_await))
        return test

    return mark


def promise_of(owner: type, name: str) -> Shown | None:
    """Return what a test of a class says about itself; None for one that is not the contract's.

    A test that an author has overridden is still about what it was about.

    Args:
        owner: the class of tests.
        name: of the method, without parameters.
    """
    for above in owner.__mro__:
        shown = getattr(vars(above).get(name), _ATTRIBUTE, None)
        if isinstance(shown, Shown):
            return shown
    return None


def promises_of(owner: type) -> dict[str, Promise]:
    """Return the names of all tests of a class that are about a promise, and which it is."""
    shown = {name: promise_of(owner, name) for name in dir(owner)}
    return {name: one.promise for name, one in shown.items() if one is not None}
