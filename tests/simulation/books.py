"""All books of a world, in the order in which they see an event."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskscaler.simulation import SimulationObserver

from .capacity import BucketBook, ExcessBook, GrowthBook
from .checker import InvariantChecker
from .ledger import Ledger
from .promises import DrainBook, GrantBook, ReservationBook
from .removals import RemovalBook

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskscaler.core import Effect, Event, Now, Settings

__all__ = ("Books",)


class Books(SimulationObserver):
    """The checker, the ledger, and the books that compare the two with what the core does.

    Attributes:
        checker: keeps who has which slot, and checks the invariants I1 to I15.
        ledger: keeps what is known of each instance.
        removals: the number of instances whose removal was decided.
    """

    def __init__(self, settings: Settings) -> None:
        self.checker = InvariantChecker(settings)
        self.ledger = Ledger()
        self.ledger.checker = self.checker
        self.removals = 0
        self._books: tuple[SimulationObserver, ...] = (
            RemovalBook(self.ledger),
            GrantBook(self.ledger),
            ReservationBook(self.ledger),
            DrainBook(self.ledger),
            BucketBook(self.ledger),
            ExcessBook(self.ledger),
            GrowthBook(self.ledger),
        )

    def applied(self, now: Now, event: Event, effects: Sequence[Effect]) -> None:
        # The ledger looks up where tasks were before the event.
        self.ledger.applied(now, event, effects)
        self.checker.applied(now, event, effects)
        for book in self._books:
            book.applied(now, event, effects)
        self.ledger.observe(now)
        self.removals += len(self.ledger.dismissed)

    def carried_out(self, now: Now, effect: Effect) -> None:
        self.checker.carried_out(now, effect)
        for book in self._books:
            book.carried_out(now, effect)

    def ended(self, now: Now) -> None:
        self.checker.ended(now)
        self.ledger.ended(now)
        for book in self._books:
            book.ended(now)
