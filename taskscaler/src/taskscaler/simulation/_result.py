"""What came of a simulation, in numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ("SimulationResult",)


@dataclass(frozen=True, slots=True)
class SimulationResult:
    """The figures of one simulation.

    Attributes:
        seconds: how much time was played.
        steps: how many things happened in all.
        events: how many of them the core was told.
        decisions: how many increases and decreases it asked for.
        lives: how many times the manager was started.
        created: how many instances were created for it.
        instance_seconds: how long they existed in total: what is paid for.
        slot_seconds: how long slots were held in total: what it was paid for.
        slots_per_instance: how many slots each instance had.
        came: how many tasks came.
        done: how many ran to their end.
        cancelled: how many gave up by themselves.
        refused: how many times one was refused.
        lost: how many times one lost its slot with its instance or its manager.
        waits: how long each that got a slot waited for its first, in seconds, ascending.
    """

    seconds: float
    steps: int
    events: int
    decisions: int
    lives: int
    created: int
    instance_seconds: float
    slot_seconds: float
    slots_per_instance: int
    came: int
    done: int
    cancelled: int
    refused: int
    lost: int
    waits: tuple[float, ...]

    @property
    def utilisation(self) -> float:
        """Return which part of the slots that were paid for was held by tasks; 0 if none was."""
        paid = self.instance_seconds * self.slots_per_instance
        return self.slot_seconds / paid if paid else 0.0

    def wait_seconds(self, percentile: float) -> float:
        """Return how long tasks waited at most, apart from the unluckiest.

        Args:
            percentile: of the tasks that got a slot, from 0 to 100.

        Returns:
            Seconds; 0 if no task got a slot.

        Raises:
            ValueError: it is no percentile.
        """
        if not 0 <= percentile <= 100:
            raise ValueError(f"a percentile is from 0 to 100, not {percentile}")
        if not self.waits:
            return 0.0
        return self.waits[max(0, math.ceil(len(self.waits) * percentile / 100) - 1)]
