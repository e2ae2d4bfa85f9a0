"""When to list a group, and how far its newest listing is digested."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleeting.errors import GroupGone
from taskscaler.core.model.agenda import CHANGED
from taskscaler.core.model.members import may_be_same
from taskscaler.core.model.throttle import Backoff

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fleeting.errors import ProviderError
    from fleeting.types import CreationFailure
    from fleeting.types import Instance as Listed
    from taskscaler.core.model.agenda import Agenda
    from taskscaler.core.model.settings import Settings

__all__ = ("Digestion", "ListingSchedule")

# How many ids of failures are remembered that no listing has any more.
REMEMBERED_FAILURES = 1_000


@dataclass(slots=True)
class Digestion:
    """A listing that is being digested.

    Attributes:
        rest: the instances that were not looked at yet.
        known: how many instances were tracked before it.
        strangers: ids and incarnations of foreign instances that are judged again.
        seen: how many of the known ones it had so far.
    """

    rest: Iterator[Listed]
    known: int
    strangers: Mapping[str, str | None]
    seen: int = 0

    def knows_as_strange(self, shown: Listed) -> bool:
        """Return whether a listed instance is one of the foreign ones."""
        return shown.id in self.strangers and may_be_same(
            self.strangers[shown.id], shown.incarnation
        )


class ListingSchedule:
    """Decides when a group is listed next. All times are in monotonic seconds.

    One listing is under way at a time, from the request until it is digested to its
    end. After that the next one is due when an interval has passed, or earlier if
    something is expected to have changed.

    Attributes:
        count: how many listings have arrived; marks the instances of the newest.
        arrived_at: when the newest arrived.
        requested_at: when the newest was requested.
        under_way: whether a listing was requested and is not digested yet.
        due_at: when the next one is due.
        backoff: the pause after failures.
        digestion: the listing that is being digested; None if there is none.
        missing: how many instances the newest listing lacked that are not given up.
        gone: how many times in a row the cloud has said that there is no such group.
    """

    def __init__(self, agenda: Agenda) -> None:
        self.count = 0
        self.arrived_at = float("-inf")
        self.requested_at = float("inf")
        self.under_way = False
        self.due_at = 0.0
        self.backoff = Backoff()
        self.digestion: Digestion | None = None
        self.missing = 0
        self.gone = 0
        self._agenda = agenda
        # The failures that were counted, the oldest first.
        self._counted: dict[str, None] = {}

    def next_at(self) -> float:
        """Return when a listing has to be requested next; infinity while one is under way."""
        return float("inf") if self.under_way else self.due_at

    def take_new(self, failures: Sequence[CreationFailure]) -> list[ProviderError]:
        """Return the failures that no earlier listing had: a listing may repeat them."""
        new = {one.id: one.error for one in failures if one.id not in self._counted}
        for one in failures:
            self._counted.pop(one.id, None)
            self._counted[one.id] = None
        for id in list(self._counted)[: -max(REMEMBERED_FAILURES, len(failures))]:
            del self._counted[id]
        return list(new.values())

    def request(self, now: float) -> bool:
        """Return whether a listing is due; then it is under way from now on."""
        if self.next_at() > now:
            return False
        self.under_way = True
        self.requested_at = now
        return True

    def begin(self, digestion: Digestion, now: float) -> None:
        """Accept a listing that arrived."""
        self.count += 1
        self.arrived_at = now
        self.gone = 0
        self.backoff.succeeded(now)
        self.digestion = digestion
        self._agenda.news |= CHANGED

    def finish(self, now: float, interval_seconds: float) -> None:
        """End the digestion; the next listing is due after an interval."""
        self.digestion = None
        self.under_way = False
        self.due_at = now + interval_seconds

    def failed(self, error: ProviderError, now: float, settings: Settings) -> None:
        """Pause after a failure."""
        short, long = settings.update_interval_when_expecting, settings.update_interval
        self.under_way = False
        self.gone = self.gone + 1 if isinstance(error, GroupGone) else 0
        self.backoff.failed(
            now, str(error), first=short, limit=max(short, long), retry_after=error.retry_after
        )
        self.due_at = self.backoff.until
        self._agenda.news |= CHANGED

    def hasten(self, at: float) -> None:
        """List at a moment at the latest, unless the cloud asked for a longer pause."""
        self.due_at = min(self.due_at, max(at, self.backoff.until))
        self._agenda.news |= CHANGED
