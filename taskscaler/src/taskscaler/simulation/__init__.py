"""The core on a clock that jumps, against clouds that fail: a year in a minute.

`simulate` plays what some settings would do with some tasks. See
`docs/simulation.md`.
"""

from __future__ import annotations

from taskscaler.simulation._faults import Faults
from taskscaler.simulation._models import Delay, GroupModel
from taskscaler.simulation._observer import Digest, SimulationObserver
from taskscaler.simulation._result import SimulationResult
from taskscaler.simulation._workload import Arrival, arrivals, replay, working_hours
from taskscaler.simulation._world import World, simulate

__all__ = (
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
