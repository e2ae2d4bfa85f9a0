"""The calls of a manager to a cloud: replies take time, come late, or never come.

A call has its effect when it is made. A late call has its effect when its reply comes, which
may be long after the timeout. The caller gets one result for each call, within the timeout.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from fleeting.errors import (
    OutcomeUnknown,
    OutOfCapacity,
    PermissionDenied,
    ProviderError,
    QuotaExceeded,
    Throttled,
)
from taskscaler.simulation._faults import Dice

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from taskscaler.simulation._clock import Clock
    from taskscaler.simulation._cloud import Cloud
    from taskscaler.simulation._faults import Faults

__all__ = ("CloudCalls",)

T = TypeVar("T")

COMMON = ("throttled", "failed", "not_allowed", "lost", "late")


class CloudCalls:
    """The calls to one cloud.

    Args:
        cloud: the cloud that is called.
        clock: the clock on which replies are planned.
        seed: the seed of the random numbers.

    Attributes:
        cloud: the cloud that is called.
        out_until: every call fails before this moment, in monotonic seconds.
    """

    def __init__(self, cloud: Cloud, clock: Clock, seed: str) -> None:
        self.cloud = cloud
        self.out_until = 0.0
        self._clock = clock
        self._seed = f"{seed}/{cloud.model.info.id}"
        self.set_faults(cloud.faults)

    def set_faults(self, faults: Faults) -> None:
        """Replace the faults from now on."""
        self._calls = Dice(faults, f"{self._seed}/calls", *COMMON)
        names = ("no_capacity", "over_quota", *COMMON)
        self._increases = Dice(faults, f"{self._seed}/increases", *names)
        if not faults.outage:
            self.out_until = 0.0

    def call(
        self,
        act: Callable[[], T],
        settle: Callable[[T | ProviderError], object],
        timeout_seconds: float,
        *,
        creates: int = 0,
    ) -> None:
        """Make a call, and deliver its result later.

        Args:
            act: the effect on the cloud.
            settle: called with the result, or with the error.
            timeout_seconds: how long the caller waits for the reply.
            creates: the most instances that the call creates.
        """
        dice = self._increases if creates else self._calls
        kind = dice.throw()
        seconds = self.cloud.model.reply.draw(dice.chance)
        if self._clock.seconds < self.out_until:
            self._clock.after(seconds, settle, ProviderError("the cloud has an outage"))
        elif not kind and seconds < timeout_seconds:
            self._clock.after(seconds, settle, act())
        elif kind in ("late", ""):
            self._call_late(act, settle, timeout_seconds, creates)
        elif kind == "lost":
            if dice.chance.random() < 0.5:
                act()
            self._clock.after(timeout_seconds, settle, _no_reply(timeout_seconds))
        else:
            self._clock.after(seconds, settle, _failure(kind, dice.chance))

    def _call_late(
        self,
        act: Callable[[], T],
        settle: Callable[[T | ProviderError], object],
        timeout_seconds: float,
        creates: int,
    ) -> None:
        self.cloud.promised += creates
        seconds = timeout_seconds * self._calls.chance.uniform(0.5, 2.0)
        if seconds >= timeout_seconds:
            self._clock.after(timeout_seconds, settle, _no_reply(timeout_seconds))

        def carry_out() -> None:
            self.cloud.promised -= creates
            result = act()
            if seconds < timeout_seconds:
                settle(result)

        self._clock.after(seconds, carry_out)


def _no_reply(seconds: float) -> OutcomeUnknown:
    """Return the error of a call without a reply."""
    return OutcomeUnknown(f"there was no reply within {seconds:g}s")


def _failure(kind: str, chance: Random) -> ProviderError:
    """Return the error of a kind of fault."""
    match kind:
        case "throttled":
            wait = chance.choice((None, 0, 1, 30, 300))
            retry_after = None if wait is None else timedelta(seconds=wait)
            return Throttled("too many requests", retry_after=retry_after)
        case "not_allowed":
            return PermissionDenied("the credentials do not allow that")
        case "no_capacity":
            return OutOfCapacity("the cloud is out of capacity")
        case "over_quota":
            return QuotaExceeded("the account's limit is reached")
        case _:
            return ProviderError("the cloud failed")
