"""What the books know of one life of the manager, and what they raise."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fleeting.types import Instance

if TYPE_CHECKING:
    from taskscaler.core import Settings

__all__ = ("Broken", "Life", "Pace", "Place", "Streak", "incarnation")

Place = tuple[str, str]

# Decisions in one second, besides two for each other event, before it is a busy loop.
RESTLESS = 25
# Increases without a success that are nothing to speak of.
FIRST_TRIES = 40


class Broken(Exception):
    """An invariant does not hold.

    Attributes:
        invariant: which one.
        what: what was seen instead.
    """

    def __init__(self, invariant: str, what: str) -> None:
        self.invariant = invariant
        self.what = what
        super().__init__(f"{invariant}: {what}")


@dataclass
class Life:
    """What is known of one life of the manager; it is forgotten with it."""

    began: float = 0.0
    reserved: set[str] = field(default_factory=set[str])
    waiting: set[str] = field(default_factory=set[str])
    held: dict[str, tuple[str, str, int]] = field(default_factory=dict[str, tuple[str, str, int]])
    revoked: set[str] = field(default_factory=set[str])
    kept: dict[str, tuple[str, str, int]] = field(default_factory=dict[str, tuple[str, str, int]])
    delivered: set[str] = field(default_factory=set[str])
    resumed: set[str] = field(default_factory=set[str])
    taken: dict[Place, dict[int, str]] = field(default_factory=dict[Place, dict[int, str]])
    kept_at: dict[str, float] = field(default_factory=dict[str, float])
    ready: dict[Place, float] = field(default_factory=dict[Place, float])
    leaving: set[Place] = field(default_factory=set[Place])
    sick: set[Place] = field(default_factory=set[Place])
    doomed: set[Place] = field(default_factory=set[Place])
    listed: dict[str, dict[str, Instance]] = field(default_factory=dict[str, dict[str, Instance]])
    first: dict[Place, float] = field(default_factory=dict[Place, float])
    missing: dict[Place, int] = field(default_factory=dict[Place, int])
    closing: bool = False


def incarnation(life: Life, group: str, id: str) -> str | None:
    """Return which machine stood behind an id when its group was listed last."""
    one = life.listed.get(group, {}).get(id)
    return None if one is None else one.incarnation


class Pace:
    """How often decisions are taken: never because of nothing but the last one."""

    def __init__(self) -> None:
        self._second = 0
        self._decisions = 0
        self._told = 0

    def decided(self, seconds: float, told: int) -> None:
        """Count a decision at this time; `told` is the number of events before it."""
        if int(seconds) != self._second:
            self._second, self._decisions, self._told = int(seconds), 0, told
        others = told - self._told - self._decisions
        self._decisions += 1
        if self._decisions > RESTLESS + 2 * others:
            raise Broken("rest", f"{self._decisions} decisions in one second")


class Streak:
    """Increases of one group since an instance there last became ready."""

    def __init__(self, seconds: float, asked: int) -> None:
        self._count = 0
        self._since = seconds
        self._asked = asked

    def grew(self, seconds: float, asked: int, settings: Settings) -> None:
        """Count an increase at this time; `asked` is how many tasks have asked for anything."""
        self._count += 1
        pauses = (seconds - self._since) / settings.backoff_limit.total_seconds()
        if self._count > FIRST_TRIES + 2 * (asked - self._asked) + 2 * pauses:
            raise Broken("I9", f"{self._count} increases, and nothing became ready")
