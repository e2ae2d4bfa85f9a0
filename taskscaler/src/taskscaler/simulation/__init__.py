"""Simulation: the core on a simulated clock, against clouds that fail; a year in a minute.

`simulate` shows what given settings would do with given tasks. See `docs/simulation.md`.
"""

from __future__ import annotations

from taskscaler.simulation._faults import Faults
from taskscaler.simulation._models import Delay, GroupModel
from taskscaler.simulation._observer import Digest, SimulationObserver
from taskscaler.simulation._result import SimulationResult
from taskscaler.simulation._workload import Arrival, arrivals, replay, working_hours
from taskscaler.simulation._world import START, World, simulate

__all__ = (
    "START",
    "Arrival",
    "Delay",
    "Digest",
    "Faults",
    "GroupModel",
    "SimulationObserver",
    "SimulationResult",
    "World",
    "arrivals",
    "replay",
    "simulate",
    "working_hours",
)
