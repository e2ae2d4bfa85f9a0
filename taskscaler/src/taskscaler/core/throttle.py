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

    __slots__ = ("_asked_until", "failures", "reason", "until")

    def __init__(self) -> None:
        self.failures = 0
        self.until = 0.0
        self.reason = ""
        # Until when the cloud wants to be left alone; nothing of ours makes that shorter.
        self._asked_until = 0.0

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
        that fail together are one failure. What the cloud asks for counts all the same.

        Args:
            now: monotonic seconds.
            reason: for people.
            first: the pause after a first failure.
            limit: the longest pause.
            retry_after: what the cloud asked for, if it did.
        """
        self.reason = reason
        if retry_after is not None:
            self._asked_until = max(self._asked_until, now + retry_after.total_seconds())
        until = self.until
        if now >= until:
            # The exponent is bounded so that it cannot overflow in a long outage.
            pause = min(first.total_seconds() * 2 ** min(self.failures, 32), limit.total_seconds())
            self.failures += 1
            until = now + pause
        self.until = max(until, self._asked_until)

    def succeeded(self, now: float) -> None:
        """Forget all failures, except that a pause which the cloud asked for is kept.

        Args:
            now: monotonic seconds.
        """
        if now < self._asked_until:
            self.until = self._asked_until
            return
        self.failures = 0
        self.until = 0.0
        self.reason = ""
