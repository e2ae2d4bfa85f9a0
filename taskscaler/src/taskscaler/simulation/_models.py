"""What a simulated group of instances is like when nothing goes wrong."""

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
    """How long something takes: a log-normal distribution, as such things have.

    Attributes:
        median_seconds: half of the cases take longer.
        sigma: the standard deviation of the logarithm; 0 is always the median, 0.5 puts
            one in twenty above 2.3 times the median.
    """

    median_seconds: float
    sigma: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            ValueError: one of them is negative, or no number.
        """
        if not (0 <= self.median_seconds < math.inf and 0 <= self.sigma < math.inf):
            raise ValueError("median_seconds and sigma must be numbers and not negative")

    def draw(self, chance: Random) -> float:
        """Return one case, in seconds."""
        if not self.sigma:
            return self.median_seconds
        return self.median_seconds * math.exp(chance.gauss(0.0, self.sigma))


@dataclass(frozen=True, slots=True)
class GroupModel:
    """One group of instances.

    Attributes:
        info: what the core knows of it.
        boot: from the creation of an instance until it runs.
        preparation: from then until it is ready.
        deletion: from an accepted removal until the instance is no longer listed.
        reply: of each call.
        room: how many instances the cloud has for it; None is any number.
        names: whether an accepted increase says the ids at once.
    """

    info: GroupInfo
    boot: Delay = field(default=Delay(60.0, 0.3))
    preparation: Delay = field(default=Delay(5.0, 0.3))
    deletion: Delay = field(default=Delay(30.0, 0.3))
    reply: Delay = field(default=Delay(0.2, 0.5))
    room: int | None = None
    names: bool = False
