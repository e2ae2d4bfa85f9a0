"""How many requests go out per second, together for all groups of an account and region.

AWS counts the requests of an account in a region, whoever sends them. It
takes bursts, so the limiter is a bucket of tokens; and when AWS says that it
was too much all the same, the bucket is emptied, and every group slows down.
"""

from __future__ import annotations

from typing import Any

import anyio

__all__ = ("Limiter", "Shared", "pause")

# How many requests may go out at once after a time of rest, in seconds' worth of them.
BURST_SECONDS = 2.0

# The pause before the second attempt, and the longest before any.
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 20.0


def pause(attempt: int, chance: float) -> float:
    """Return how long to wait after a failed attempt, in seconds.

    The time is drawn from a span that doubles with each attempt, so that many who
    failed together do not come back together.

    Args:
        attempt: which one failed; the first is 1.
        chance: a random number from 0 to 1.
    """
    span: float = min(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1), LONGEST_PAUSE_SECONDS)
    return span * (0.5 + 0.5 * chance)


class Limiter:
    """A bucket of tokens, one for each request; whoever finds it empty waits in turn."""

    def __init__(self, requests_per_second: float) -> None:
        self.requests_per_second = requests_per_second
        # When the bucket will be full again, in monotonic seconds.
        self._full_at = 0.0

    def take(self, now: float) -> float:
        """Take a token and return in how many seconds it may be used.

        Args:
            now: monotonic seconds.
        """
        self._full_at = max(self._full_at, now) + 1 / self.requests_per_second
        return max(0.0, self._full_at - now - self._burst_seconds)

    def exhaust(self, now: float) -> None:
        """Empty the bucket: the cloud has said that there were too many requests.

        Args:
            now: monotonic seconds.
        """
        self._full_at = max(self._full_at, now + self._burst_seconds)

    async def wait(self) -> None:
        """Wait for a turn; a cancelled caller gives its turn to nobody."""
        seconds = self.take(anyio.current_time())
        if seconds:
            await anyio.sleep(seconds)

    @property
    def _burst_seconds(self) -> float:
        """Return how long it takes to fill the empty bucket, which holds one token at least."""
        return max(BURST_SECONDS, 1 / self.requests_per_second)


class Shared:
    """What the groups of one provider have in common.

    Attributes:
        loader: the SDK's, which keeps the descriptions of services: 25 MiB; None at first.
    """

    def __init__(self) -> None:
        self.loader: Any = None
        self._limiters: dict[tuple[str, str, str], Limiter] = {}

    def limiter(
        self, account: str, region: str, endpoint: str, requests_per_second: float
    ) -> Limiter:
        """Return what limits an account in a region; of two rates the lower one counts."""
        limiter = self._limiters.setdefault(
            (account, region, endpoint), Limiter(requests_per_second)
        )
        limiter.requests_per_second = min(limiter.requests_per_second, requests_per_second)
        return limiter
