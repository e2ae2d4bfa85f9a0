"""Awaits calls of plugin code: each has a deadline, and each failure becomes a `FleetingError`."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from fleeting._bugs import quote_bug
from fleeting._deadlines import DeadlineExceeded, call_within
from fleeting.errors import FleetingError, ProviderError

if TYPE_CHECKING:
    from collections.abc import Awaitable

__all__ = ("TRY_AGAIN", "bounded", "expect_type", "plugin_bug", "too_late")

T = TypeVar("T")

TRY_AGAIN = "check that its cloud can be reached, then try again"


async def bounded(call: Awaitable[T], seconds: float, failure: str, advice: str = TRY_AGAIN) -> T:
    """Await a call of a plugin for a limited time.

    Args:
        call: what to await.
        seconds: the deadline.
        failure: the beginning of the message if it fails, such as `group x did not close`.
        advice: the end of the message if it takes too long.

    Raises:
        ProviderError: it took too long, or raised something other than a `FleetingError`.
        FleetingError: it failed.
    """
    try:
        return await call_within(seconds, lambda: call)
    except FleetingError:
        raise
    except DeadlineExceeded:
        raise too_late(failure, seconds, advice) from None
    except Exception as error:
        raise plugin_bug(error, failure) from error


def expect_type(value: object, expected: type) -> None:
    """Refuse a value of a type that the plugin's contract does not allow.

    Raises:
        TypeError: it has another type.
    """
    if not isinstance(value, expected):
        raise TypeError(f"it returned {type(value).__name__} instead of {expected.__name__}")


def plugin_bug(error: Exception, failure: str) -> ProviderError:
    """Return the error to raise in place of one that a plugin must not raise."""
    return ProviderError(
        f"{failure}: the plugin has a bug ({quote_bug(error)}); report it to its author"
    )


def too_late(failure: str, seconds: float, advice: str = TRY_AGAIN) -> ProviderError:
    """Return the error for a call that did not finish within its deadline."""
    return ProviderError(f"{failure} within {seconds:g} s; {advice}")
