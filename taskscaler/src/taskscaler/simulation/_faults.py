"""What can go wrong, and how often.

A probability is for each occasion, a rate is for each hour and group. Each kind
of occasion draws from chance of its own, so that leaving a fault out disturbs
the others as little as possible: that is what makes a failure small.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from random import Random
from typing import Self

__all__ = ("Dice", "Faults")


@dataclass(frozen=True, slots=True)
class Faults:
    """The faults of a simulation; all are off unless said otherwise.

    Attributes:
        throttled: a call is one too many; in half of the cases the cloud says when to
            come again. A probability, as are all up to `commits_lost`.
        failed: a call fails for another reason.
        lost: a reply never comes; what was asked for is done in half of the cases.
        late: a reply comes late, mostly too late, and so does what it is about.
        no_capacity: an increase finds no machine.
        over_quota: an increase meets the account's limit.
        not_allowed: a call meets missing rights.
        partial: only some of what a call asked for is accepted.
        nameless: what was accepted has no id for a while.
        never_comes: an accepted instance does not come; half of them with a word.
        stale: a listing is an earlier one. Two listings in a row never lie.
        incomplete: a listing leaves some out.
        disordered: a listing is in another order.
        never_boots: an instance stays as it was created.
        boot_fails: an instance fails instead of booting.
        unprepared: an instance cannot be made ready.
        hangs: an instance is not made ready until the deadline is over.
        unhealthy: an instance fails a check.
        kept: an accepted removal has no effect.
        breaks: an instance fails under a task.
        crash: the manager ends; for each event and each effect.
        commits_lost: of a crash: what was being stored is not.
        vanish: an instance is no more. A rate, as are all that follow.
        come_back: one that vanished is there again, under its old id.
        recreate: an instance is replaced under its id.
        fail: an instance fails.
        interrupt: the cloud takes an instance away; in half of the cases with a notice.
        add: somebody else adds an instance.
        outage: no call to the group succeeds for a while.
        jump: the wall clock jumps, by up to two hours.
    """

    throttled: float = 0.0
    failed: float = 0.0
    lost: float = 0.0
    late: float = 0.0
    no_capacity: float = 0.0
    over_quota: float = 0.0
    not_allowed: float = 0.0
    partial: float = 0.0
    nameless: float = 0.0
    never_comes: float = 0.0
    stale: float = 0.0
    incomplete: float = 0.0
    disordered: float = 0.0
    never_boots: float = 0.0
    boot_fails: float = 0.0
    unprepared: float = 0.0
    hangs: float = 0.0
    unhealthy: float = 0.0
    kept: float = 0.0
    breaks: float = 0.0
    crash: float = 0.0
    commits_lost: float = 0.0
    vanish: float = 0.0
    come_back: float = 0.0
    recreate: float = 0.0
    fail: float = 0.0
    interrupt: float = 0.0
    add: float = 0.0
    outage: float = 0.0
    jump: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: naming the fault.
        """
        rate = False
        for field in fields(self):
            rate = rate or field.name == "vanish"
            value = getattr(self, field.name)
            if value < 0 or (value > 1 and not rate):
                raise ValueError(f"{field.name} must be a probability or a rate, not {value}")

    @classmethod
    def kinds(cls) -> tuple[str, ...]:
        """Return the names of all faults."""
        return tuple(field.name for field in fields(cls))

    @property
    def active(self) -> tuple[str, ...]:
        """Return the names of those that can happen."""
        return tuple(name for name in self.kinds() if getattr(self, name))

    def without(self, *names: str) -> Self:
        """Return the same with some of them switched off."""
        return replace(self, **dict.fromkeys(names, 0.0))


class Dice:
    """Says which fault happens on an occasion of one kind.

    Args:
        faults: those of the simulation.
        seed: what the chance of this kind of occasion comes from.
        names: the faults that can happen, one at a time at most.
    """

    __slots__ = ("_random", "_table", "_total", "chance")

    def __init__(self, faults: Faults, seed: str, *names: str) -> None:
        self.chance = Random(seed)
        self._random = self.chance.random
        self._total = 0.0
        self._table: list[tuple[float, str]] = []
        for name in names:
            if getattr(faults, name):
                self._total += getattr(faults, name)
                self._table.append((self._total, name))

    @property
    def total(self) -> float:
        """Return how often any of them happens."""
        return self._total

    def throw(self) -> str:
        """Return what happens this time; empty if nothing does."""
        if not self._total:
            return ""
        at = self._random()
        return "" if at >= self._total else self._find(at)

    def pick(self) -> str:
        """Return one of them, given that one happens."""
        return self._find(self._random() * self._total)

    def _find(self, at: float) -> str:
        return next(name for limit, name in self._table if at < limit)
