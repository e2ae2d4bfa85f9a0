"""Everything that slows growth down: pauses after failures, cooldowns, and the token bucket.

All times are monotonic seconds. Each is a sum that is kept as it was computed, so
that "has it come?" and "when to wake for it?" compare the same number, and no
rounding error can make the scaler wake too early over and over.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from datetime import timedelta
from typing import TYPE_CHECKING

from fleeting.errors import OutOfCapacity, QuotaExceeded
from taskscaler.core.model.records import ThrottleRecord
from taskscaler.core.model.settings import LONGEST

if TYPE_CHECKING:
    from fleeting.errors import ProviderError
    from taskscaler.core.model.effects import Outbox
    from taskscaler.core.model.events import Now
    from taskscaler.core.model.settings import Settings

__all__ = ("Backoff", "Cooldown", "TokenBucket")


class Backoff:
    """Failures in a row, and the pause after them. Each further failure doubles the pause.

    Attributes:
        failures: how many in a row.
        until: no further attempt before this time, in monotonic seconds.
        reason: the last failure, human-readable; empty if there is none.
    """

    __slots__ = ("_asked_until", "failures", "reason", "until")

    def __init__(self) -> None:
        self.failures = 0
        self.until = 0.0
        self.reason = ""
        # The end of a pause that the cloud asked for; nothing of ours makes that shorter.
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
        """Begin a pause, or extend it to what the cloud asked for.

        Failures during a pause have the same cause: ten instances that fail together
        count as one failure.

        Args:
            now: monotonic seconds.
            reason: human-readable.
            first: the pause after a first failure.
            limit: the longest pause.
            retry_after: the pause that the cloud asked for, if it did.
        """
        self.reason = reason
        if retry_after is not None:
            seconds = min(retry_after, LONGEST).total_seconds()
            self._asked_until = max(self._asked_until, now + seconds)
        until = self.until
        if now >= until:
            # The exponent is bounded so that it cannot overflow in a long outage.
            pause = min(first.total_seconds() * 2 ** min(self.failures, 32), limit.total_seconds())
            self.failures += 1
            until = now + pause
        self.until = max(until, self._asked_until)

    def succeeded(self, now: float) -> None:
        """Forget all failures, but keep a pause that the cloud asked for.

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
    """A group without capacity or quota; until it is over, the other groups come first.

    Attributes:
        until: its end, in monotonic seconds.
        reason: the failure, human-readable; empty without a cooldown.
        quota: whether the quota is used up, which any removed instance gives back.
    """

    __slots__ = ("quota", "reason", "until")

    def __init__(self) -> None:
        self.end()

    def failed(self, now: float, error: ProviderError, length: timedelta) -> None:
        """Begin a cooldown if the error says that the group has no capacity or quota."""
        if isinstance(error, OutOfCapacity | QuotaExceeded):
            self.until = now + length.total_seconds()
            self.reason = str(error)
            self.quota = isinstance(error, QuotaExceeded)

    def expire(self, now: float) -> None:
        """End it if its time is over.

        Args:
            now: monotonic seconds.
        """
        if self.until <= now:
            self.end()

    def end(self) -> None:
        """End it: the group takes its place in the order of preference again."""
        self.until = 0.0
        self.reason = ""
        self.quota = False


class TokenBucket:
    """Limits how many instances are created at once, and how many per second after that.

    It is full at first. It stores not how full it is but when it will be full again;
    taking a token delays that by the time in which one token comes.

    Args:
        settings: with `throttle_limit` and `throttle_burst`.

    Attributes:
        burst: how many tokens it can hold.
    """

    __slots__ = ("_full_at", "_limit", "burst")

    def __init__(self, settings: Settings) -> None:
        self._full_at = 0.0
        self._limit = settings.throttle_limit
        self.configure(settings, 0.0)

    def configure(self, settings: Settings, now: float) -> None:
        """Follow changed settings; tokens that are missing now are still missing.

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
        """Return how many tokens there are at a time in monotonic seconds; None for no limit."""
        if self._limit == math.inf:
            return None
        return bisect_right(range(1, self.burst + 1), now, key=self.ready_at)

    def ready_at(self, tokens: int) -> float:
        """Return when there will be so many tokens, in monotonic seconds."""
        return self._full_at - (self.burst - tokens) / self._limit

    def take(self, tokens: int, now: Now, out: Outbox) -> None:
        """Use available tokens, and store that.

        Otherwise each restart of a scaler that crashes again and again would fill it.

        Args:
            tokens: no more than are available.
            now: the time.
            out: takes what is to be stored.
        """
        self._full_at = max(self._full_at, now.monotonic) + tokens / self._limit
        if self._limit < math.inf:
            left = timedelta(seconds=self._full_at - now.monotonic)
            out.put(ThrottleRecord(now.wall + left))

    def restore(self, record: ThrottleRecord, now: Now) -> None:
        """Continue with the tokens that a previous process left.

        A wall clock that jumped meanwhile makes it no emptier than empty.
        """
        left = max(0.0, (record.full_at - now.wall).total_seconds())
        self._full_at = now.monotonic + min(left, self.burst / self._limit)
