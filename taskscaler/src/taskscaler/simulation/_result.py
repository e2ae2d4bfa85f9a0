"""The result of a simulation."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ("SimulationResult",)


@dataclass(frozen=True, slots=True)
class SimulationResult:
    """The figures of one simulation.

    Attributes:
        seconds: the simulated time.
        steps: the number of actions on the clock.
        events: the number of events that were applied to the core.
        decisions: the number of increases and decreases that it requested.
        lives: the number of starts of the manager.
        created: the number of instances that were created for it.
        instance_seconds: the total lifetime of the instances, which is paid for.
        slot_seconds: the total time that tasks held slots.
        slots_per_instance: the number of slots on each instance.
        came: the number of tasks that arrived.
        done: the number of tasks that ran to their end.
        cancelled: the number of tasks that gave up waiting.
        refused: the number of refusals.
        lost: the number of slots that tasks lost with the instance or the manager.
        waits: for each task that got a slot, the wait for the first one in seconds, ascending.
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
        """Return the part of the slot time paid for that tasks used; 0 without instances."""
        paid = self.instance_seconds * self.slots_per_instance
        return self.slot_seconds / paid if paid else 0.0

    def wait_seconds(self, percentile: float) -> float:
        """Return a percentile of the waits.

        Args:
            percentile: from 0 to 100, of the tasks that got a slot.

        Returns:
            Seconds; 0 if no task got a slot.

        Raises:
            ValueError: the percentile is not from 0 to 100.
        """
        if not 0 <= percentile <= 100:
            raise ValueError(f"percentile must be from 0 to 100, got {percentile}")
        if not self.waits:
            return 0.0
        return self.waits[max(0, math.ceil(len(self.waits) * percentile / 100) - 1)]
