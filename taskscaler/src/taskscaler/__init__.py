"""As many machines as the jobs need, a slot on one for each job, and none left over."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taskscaler.acquisition import Acquisition
    from taskscaler.core.settings import Placement, Policy, Settings, UnknownInstances
    from taskscaler.scaler import Taskscaler
    from taskscaler.summaries import Capacity, InstanceSummary, SuspendedTask

__all__ = (
    "Acquisition",
    "Capacity",
    "InstanceSummary",
    "Placement",
    "Policy",
    "Settings",
    "SuspendedTask",
    "Taskscaler",
    "UnknownInstances",
    "__version__",
)

__version__ = "1.0.0"

_HOMES = {
    "Acquisition": "taskscaler.acquisition",
    "Capacity": "taskscaler.summaries",
    "InstanceSummary": "taskscaler.summaries",
    "SuspendedTask": "taskscaler.summaries",
    "Taskscaler": "taskscaler.scaler",
    "Placement": "taskscaler.core.settings",
    "Policy": "taskscaler.core.settings",
    "Settings": "taskscaler.core.settings",
    "UnknownInstances": "taskscaler.core.settings",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: the command's help must not pay for it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
