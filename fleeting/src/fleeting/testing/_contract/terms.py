"""The limits of a test of a group, and its notes about the calls that it makes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta

from fleeting.testing._contract.expectations import FIRST_PAUSE_SECONDS, FRUGAL_PAUSE_SECONDS

__all__ = ("Terms",)


@dataclass(slots=True)
class Terms:
    """The limits of one test, the secrets that it meets and the calls that it makes.

    Attributes:
        instance_timeout: how long an instance may take to start or to be removed.
        call_timeout: how long one call may take.
        lag: how long a listing may be behind the other answers of the cloud.
        frugal: whether to make few requests, with long pauses.
        learned: collects the secrets that `connect_info` returns.
        calls: how often each method was called.
    """

    instance_timeout: timedelta
    call_timeout: timedelta
    lag: timedelta = timedelta(0)
    frugal: bool = False
    learned: set[str] = field(default_factory=set[str])
    calls: Counter[str] = field(default_factory=Counter[str])

    def times(self, usual: int) -> int:
        """Return how often to repeat something that is usually done this often."""
        return min(usual, 2) if self.frugal else usual

    @property
    def first_pause(self) -> float:
        """Return the seconds between the first two looks at the group."""
        return FRUGAL_PAUSE_SECONDS if self.frugal else FIRST_PAUSE_SECONDS
