"""Keeps as many instances as the tasks need, and gives each task a slot on one.

`docs/reference/library.md` lists what may be imported.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taskscaler._acquisition import Acquisition
    from taskscaler._errors import (
        AcquireTimeout,
        AcquisitionLost,
        AcquisitionSuspended,
        DrainTimeout,
        Fenced,
        IllegalEvent,
        InstancesLeft,
        NoCapacity,
        NotSuspendable,
        OutputFailed,
        ScalerClosed,
        StoreError,
        StoreLocked,
        TaskscalerError,
        WorkspaceFailed,
    )
    from taskscaler._opening import open_scaler
    from taskscaler._scaler import Taskscaler
    from taskscaler._summaries import Capacity, InstanceSummary, SuspendedTask
    from taskscaler.core import (
        Decision,
        Obstacle,
        Placement,
        Policy,
        Settings,
        Stage,
        Standing,
        UnknownInstances,
    )

__all__ = (
    "AcquireTimeout",
    "Acquisition",
    "AcquisitionLost",
    "AcquisitionSuspended",
    "Capacity",
    "Decision",
    "DrainTimeout",
    "Fenced",
    "IllegalEvent",
    "InstanceSummary",
    "InstancesLeft",
    "NoCapacity",
    "NotSuspendable",
    "Obstacle",
    "OutputFailed",
    "Placement",
    "Policy",
    "ScalerClosed",
    "Settings",
    "Stage",
    "Standing",
    "StoreError",
    "StoreLocked",
    "SuspendedTask",
    "Taskscaler",
    "TaskscalerError",
    "UnknownInstances",
    "WorkspaceFailed",
    "__version__",
    "open_scaler",
)

__version__ = "1.0.0"

_HOMES = {
    "_acquisition": ("Acquisition",),
    "_errors": (
        "AcquireTimeout",
        "AcquisitionLost",
        "AcquisitionSuspended",
        "DrainTimeout",
        "Fenced",
        "IllegalEvent",
        "InstancesLeft",
        "NoCapacity",
        "NotSuspendable",
        "OutputFailed",
        "ScalerClosed",
        "StoreError",
        "StoreLocked",
        "TaskscalerError",
        "WorkspaceFailed",
    ),
    "_opening": ("open_scaler",),
    "_scaler": ("Taskscaler",),
    "_summaries": ("Capacity", "InstanceSummary", "SuspendedTask"),
    "core": (
        "Decision",
        "Obstacle",
        "Placement",
        "Policy",
        "Settings",
        "Stage",
        "Standing",
        "UnknownInstances",
    ),
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used, so that the command's help starts fast."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"taskscaler.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
