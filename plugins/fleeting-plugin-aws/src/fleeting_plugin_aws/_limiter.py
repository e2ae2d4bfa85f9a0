"""Limits the request rate of all groups of an account and region together.

AWS throttles an account as a whole in each region. It allows bursts, so the
limiter is a token bucket. When AWS throttles anyway, the bucket is emptied and
every group slows down.
"""

from __future__ import annotations

from typing import Any

import anyio

__all__ = ("Limiter", "Shared", "pause")

# The size of the bucket: a burst may be as large as this many seconds' worth of requests.
BURST_SECONDS = 2.0

# The pause before the second attempt, and the longest before any.
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 20.0


def pause(attempt: int, chance: float) -> float:
    """Return how long to wait after a failed attempt, in seconds.

    The pause doubles with each attempt and is partly random, so that requests that failed
    together are not repeated together.

    Args:
        attempt: the number of the failed attempt, from 1.
        chance: a random number from 0 to 1.
    """
    span: float = min(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1), LONGEST_PAUSE_SECONDS)
    return span * (0.5 + 0.5 * chance)


class Limiter:
    """A token bucket: each request takes a token, and waits in turn if the bucket is empty."""

    def __init__(self, requests_per_second: float) -> None:
        self.requests_per_second = requests_per_second
        # When the bucket will be full again, in monotonic seconds.
        self._full_at = 0.0
        self._lane = anyio.Lock()

    def take(self, now: float) -> float:
        """Take a token and return after how many seconds it may be used.

        Args:
            now: monotonic seconds.
        """
        self._full_at = max(self._full_at, now) + 1 / self.requests_per_second
        return max(0.0, self._full_at - now - self._burst_seconds)

    def exhaust(self, now: float) -> None:
        """Empty the bucket, because AWS has refused a request as one too many.

        Args:
            now: monotonic seconds.
        """
        self._full_at = max(self._full_at, now + self._burst_seconds)

    async def wait(self, *, one_by_one: bool = False) -> None:
        """Take a token and wait until it may be used. A cancelled caller does not return it.

        Args:
            one_by_one: for requests that come in large numbers, one for each instance. Only one
                of them at a time waits for a token, so all others overtake the rest.
        """
        if one_by_one:
            async with self._lane:
                await self.wait()
            return
        seconds = self.take(anyio.current_time())
        if seconds:
            await anyio.sleep(seconds)

    @property
    def _burst_seconds(self) -> float:
        """Return how long filling the empty bucket takes; it holds at least one token."""
        return max(BURST_SECONDS, 1 / self.requests_per_second)


class Shared:
    """State that the groups of one provider share.

    Attributes:
        loader: the SDK's loader, which caches 25 MiB of service models; None until a group
            is opened.
    """

    def __init__(self) -> None:
        self.loader: Any = None
        self._limiters: dict[tuple[str, str, str], Limiter] = {}

    def limiter(
        self, account: str, region: str, endpoint: str, requests_per_second: float
    ) -> Limiter:
        """Return the limiter of an account in a region. Of several rates the lowest applies."""
        limiter = self._limiters.setdefault(
            (account, region, endpoint), Limiter(requests_per_second)
        )
        limiter.requests_per_second = min(limiter.requests_per_second, requests_per_second)
        return limiter
