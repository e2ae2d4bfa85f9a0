"""The faults of a simulation, and how often they happen.

A probability applies to each occasion, a rate to each hour and group. Each kind of occasion
has its own random numbers, so switching off one fault disturbs the others as little as
possible. So a failing history can be reduced to a small one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from random import Random
from typing import Self

__all__ = ("Dice", "Faults")


@dataclass(frozen=True, slots=True)
class Faults:
    """The faults of a simulation; all are off by default.

    Attributes:
        throttled: a call exceeds a rate limit; in half of the cases the cloud says when to
            retry. A probability, like all faults up to `commits_lost`.
        failed: a call fails for another reason.
        lost: a reply never comes; in half of the cases the call had its effect.
        late: a reply and the effect of the call come late, mostly after the timeout.
        no_capacity: an increase fails because the cloud is out of capacity.
        over_quota: an increase fails because of the account's quota.
        not_allowed: a call fails because of missing permissions.
        partial: a call is accepted for some of the instances only.
        nameless: an accepted instance has no id for a while.
        never_comes: an accepted instance never appears; half of them are reported as failed.
        stale: a listing shows an earlier state, but never two listings in a row.
        incomplete: a listing omits some instances.
        disordered: a listing has another order.
        never_boots: an instance stays in the state `creating`.
        boot_fails: an instance fails instead of booting.
        unprepared: the preparation of an instance fails.
        hangs: the preparation of an instance takes longer than its deadline.
        unhealthy: an instance fails a check.
        kept: an accepted removal has no effect.
        breaks: an instance fails while it runs a task.
        crash: the manager is killed; applies to each event and each effect.
        commits_lost: a crash loses the records that were being stored.
        vanish: an instance disappears. A rate, like all faults that follow.
        come_back: an instance that disappeared is there again under its old id.
        recreate: an instance is replaced under its id.
        fail: an instance fails.
        interrupt: the cloud takes an instance away, in half of the cases with a notice.
        add: an instance is added that the manager did not request.
        outage: no call to the group succeeds for a while.
        jump: the wall clock jumps, by up to two hours.
        network: the manager reaches no instance of a group for a while.
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
    network: float = 0.0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: a value is out of range; the message names the fault.
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
        """Return the names of the faults that can happen."""
        return tuple(name for name in self.kinds() if getattr(self, name))

    def without(self, *names: str) -> Self:
        """Return the faults with some of them switched off."""
        return replace(self, **dict.fromkeys(names, 0.0))


class Dice:
    """Decides which fault happens on an occasion of one kind.

    Args:
        faults: the faults of the simulation.
        seed: the seed of the random numbers of this kind of occasion.
        names: the faults that can happen, at most one at a time.
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
        """Return the sum of the probabilities or rates."""
        return self._total

    def throw(self) -> str:
        """Return the fault that happens this time; empty if there is none."""
        if not self._total:
            return ""
        at = self._random()
        return "" if at >= self._total else self._find(at)

    def pick(self) -> str:
        """Return one of the faults, given that one happens."""
        return self._find(self._random() * self._total)

    def _find(self, at: float) -> str:
        return next(name for limit, name in self._table if at < limit)
