"""Who looks on while a simulation runs, and what can be seen."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskscaler.core import Effect, Event, Now

__all__ = ("Digest", "SimulationObserver")


class SimulationObserver:
    """Sees everything that goes in and out of the core; does nothing by itself."""

    def applied(self, now: Now, event: Event, effects: Sequence[Effect]) -> None:
        """Take note of what the core was told, and of what it answered."""

    def carried_out(self, now: Now, effect: Effect) -> None:
        """Take note of an effect that is carried out, after what it needs was stored."""

    def ended(self, now: Now) -> None:
        """Take note that the manager ended, with all that it had begun."""


class Digest(SimulationObserver):
    """Sums a whole history up in one number: two runs that agree in it did the same."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def applied(self, now: Now, event: Event, effects: Sequence[Effect]) -> None:
        """Take note of what the core was told, and of what it answered."""
        self._hash.update(repr((now, event, effects)).encode())

    def carried_out(self, now: Now, effect: Effect) -> None:
        """Take note of an effect that is carried out."""
        self._hash.update(repr((now.monotonic, effect)).encode())

    def ended(self, now: Now) -> None:
        """Take note that the manager ended."""
        self._hash.update(repr(now).encode())

    @property
    def value(self) -> str:
        """Return the sum of what was seen so far, in hexadecimal digits."""
        return self._hash.hexdigest()
