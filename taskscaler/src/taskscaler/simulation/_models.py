"""The behavior of a simulated group of instances without faults."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from fleeting.types import GroupInfo

__all__ = ("Delay", "GroupModel")


@dataclass(frozen=True, slots=True)
class Delay:
    """A duration that varies: a log-normal distribution.

    Attributes:
        median_seconds: half of the cases take longer.
        sigma: the standard deviation of the logarithm. With 0 every case takes the median,
            with 0.5 one in twenty takes more than 2.3 times the median.
    """

    median_seconds: float
    sigma: float = 0.0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: a value is negative, infinite or NaN.
        """
        if not (0 <= self.median_seconds < math.inf and 0 <= self.sigma < math.inf):
            raise ValueError("median_seconds and sigma must be finite and at least 0")

    def draw(self, chance: Random) -> float:
        """Return one case, in seconds."""
        if not self.sigma:
            return self.median_seconds
        return self.median_seconds * math.exp(chance.gauss(0.0, self.sigma))


@dataclass(frozen=True, slots=True)
class GroupModel:
    """One group of instances.

    Attributes:
        info: the group's info as the core knows it.
        boot: the time from the creation of an instance until it runs.
        preparation: the time from then until it is ready.
        deletion: the time from an accepted removal until the instance is not listed any more.
        reply: the time until a call is answered.
        room: the most instances that the cloud can provide; None means no limit.
        names: whether the answer to an increase contains the ids.
    """

    info: GroupInfo
    boot: Delay = field(default=Delay(60.0, 0.3))
    preparation: Delay = field(default=Delay(5.0, 0.3))
    deletion: Delay = field(default=Delay(30.0, 0.3))
    reply: Delay = field(default=Delay(0.2, 0.5))
    room: int | None = None
    names: bool = False
