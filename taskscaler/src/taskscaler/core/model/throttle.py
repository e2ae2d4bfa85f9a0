"""What slows growth down: pauses after failures, groups that are passed over, and the token bucket.

All moments are monotonic seconds, and each is a sum that is kept as it was
computed: whether it has come and when to wake for it are then the same
comparison, and no rounding can make a scaler wake too early for ever.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING

from fleeting.errors import OutOfCapacity, QuotaExceeded

if TYPE_CHECKING:
    from datetime import timedelta

    from fleeting.errors import ProviderError
    from taskscaler.core.model.settings import Settings

__all__ = ("Backoff", "Cooldown", "TokenBucket")


class Backoff:
    """Remembers failures in a row, and until when to pause because of them.

    Each further failure in a row doubles the pause.

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


class Cooldown:
    """Remembers that a group has no capacity, or that its quota is used up.

    Until it is over, the other groups come first.

    Attributes:
        until: they do so until then, in monotonic seconds.
        reason: for people; empty if there is none.
        quota: whether it is a matter of the quota, which an instance that goes gives back.
    """

    __slots__ = ("quota", "reason", "until")

    def __init__(self) -> None:
        self.end()

    def failed(self, now: float, error: ProviderError, length: timedelta) -> None:
        """Begin anew if the error says that there is nothing to be had."""
        if isinstance(error, OutOfCapacity | QuotaExceeded):
            self.until = now + length.total_seconds()
            self.reason = str(error)
            self.quota = isinstance(error, QuotaExceeded)

    def end(self) -> None:
        """Let the group have its turn again."""
        self.until = 0.0
        self.reason = ""
        self.quota = False


class TokenBucket:
    """Lets so many instances be created at once, and so many per second after that.

    It is full at first. What is kept is not how full it is but when it will be full
    again: taking a token puts that off by the time in which one comes.

    Args:
        settings: with `throttle_limit` and `throttle_burst`.

    Attributes:
        burst: tokens that it can hold.
    """

    __slots__ = ("_full_at", "_limit", "burst")

    def __init__(self, settings: Settings) -> None:
        self._full_at = 0.0
        self._limit = settings.throttle_limit
        self.configure(settings, 0.0)

    def configure(self, settings: Settings, now: float) -> None:
        """Follow the settings; the tokens that are missing now are still missing.

        Args:
            settings: the new ones.
            now: monotonic seconds.
        """
        limit = settings.throttle_limit
        missing = 0.0
        if self._full_at > now:
            missing = (self._full_at - now) * self._limit
        self._limit = limit
        self.burst = 1
        if limit < math.inf:
            self.burst = settings.throttle_burst or settings.max_instances or math.ceil(limit)
        self._full_at = now + min(missing, self.burst) / limit

    def available(self, now: float) -> int | None:
        """Return how many tokens there are at a time in monotonic seconds; None for any number."""
        if self._limit == math.inf:
            return None
        return bisect_right(range(1, self.burst + 1), now, key=self.ready_at)

    def ready_at(self, tokens: int) -> float:
        """Return when there are so many tokens, in monotonic seconds."""
        return self._full_at - (self.burst - tokens) / self._limit

    def take(self, tokens: int, now: float) -> None:
        """Use tokens that there are.

        Args:
            tokens: no more than are available.
            now: monotonic seconds.
        """
        self._full_at = max(self._full_at, now) + tokens / self._limit
