"""Observers, which see the events and effects of a simulation."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskscaler.core import Effect, Event, Now

__all__ = ("Digest", "SimulationObserver")


class SimulationObserver:
    """Sees everything that goes in and out of the core. The base class ignores it."""

    def applied(self, now: Now, event: Event, effects: Sequence[Effect]) -> None:
        """An event was applied to the core, and gave effects."""

    def carried_out(self, now: Now, effect: Effect) -> None:
        """An effect is carried out, after the records that it needs were stored."""

    def ended(self, now: Now) -> None:
        """The manager ended, and all of its calls with it."""


class Digest(SimulationObserver):
    """A hash of a whole history: two runs with the same hash had the same history."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def applied(self, now: Now, event: Event, effects: Sequence[Effect]) -> None:
        """An event was applied to the core, and gave effects."""
        self._hash.update(repr((now, event, effects)).encode())

    def carried_out(self, now: Now, effect: Effect) -> None:
        """Add an effect that is carried out."""
        self._hash.update(repr((now.monotonic, effect)).encode())

    def ended(self, now: Now) -> None:
        """Add the end of the manager."""
        self._hash.update(repr(now).encode())

    @property
    def value(self) -> str:
        """Return the hash so far, in hexadecimal digits."""
        return self._hash.hexdigest()
