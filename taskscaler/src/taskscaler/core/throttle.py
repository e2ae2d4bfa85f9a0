"""Pauses after failures: each further failure in a row doubles the pause."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta

__all__ = ("Backoff",)


class Backoff:
    """Remembers failures in a row, and until when to pause because of them.

    Attributes:
        failures: how many in a row.
        until: no further try before this time, in monotonic seconds.
        reason: the last failure, for people.
    """

    __slots__ = ("failures", "reason", "until")

    def __init__(self) -> None:
        self.failures = 0
        self.until = 0.0
        self.reason = ""

    def failed(
        self,
        now: float,
        reason: str,
        *,
        first: timedelta,
        limit: timedelta,
        retry_after: timedelta | None = None,
    ) -> None:
        """Pause for longer than last time, or for as long as we were asked to.

        Failures while a pause is under way belong to the same cause: ten instances
        that fail together are one failure.

        Args:
            now: monotonic seconds.
            reason: for people.
            first: the pause after a first failure.
            limit: the longest pause.
            retry_after: what the cloud asked for, if it did.
        """
        self.reason = reason
        if now < self.until:
            return
        # The exponent is bounded so that it cannot overflow in a long outage.
        seconds = min(first.total_seconds() * 2 ** min(self.failures, 32), limit.total_seconds())
        if retry_after is not None:
            seconds = max(seconds, retry_after.total_seconds())
        self.failures += 1
        self.until = now + seconds

    def succeeded(self) -> None:
        """Forget all failures."""
        self.failures = 0
        self.until = 0.0
        self.reason = ""
