"""Everything that can go wrong in the scaler, drawn as one tree.

TaskscalerError
├── IllegalEvent
├── NoCapacity
├── AcquireTimeout
├── AcquisitionLost
├── AcquisitionSuspended
├── NotSuspendable
├── DrainTimeout
├── ScalerClosed
├── InstancesLeft
├── WorkspaceFailed
├── OutputFailed
└── StoreError
    ├── Fenced
    └── StoreLocked

What goes wrong in a group, a plugin or a connection is a
`fleeting.errors.FleetingError`, and so is what is wrong with a configuration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

__all__ = (
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
)


class TaskscalerError(Exception):
    """The root: catch it to catch everything this distribution raises on purpose."""


class IllegalEvent(TaskscalerError):
    """The caller asked for something that cannot be: a bug there; nothing has changed."""


class NoCapacity(TaskscalerError):
    """A reservation was refused; the message says why, with numbers. Ask again later."""


class AcquireTimeout(TaskscalerError):
    """No slot came free in time; the message says why, with numbers."""


class AcquisitionLost(TaskscalerError):
    """The instance behind an acquisition is gone, and with it what ran there.

    Attributes:
        instance: its id.
        cause: why it is gone.
    """

    def __init__(self, instance: str, cause: str) -> None:
        self.instance = instance
        self.cause = cause
        super().__init__(f"instance {instance} was lost while it was in use: {cause}")


class AcquisitionSuspended(TaskscalerError):
    """The task was suspended while its body ran; resume it under its key.

    Attributes:
        key: the task's.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"task {key!r} was suspended; resume it to go on in its slot")


class NotSuspendable(TaskscalerError):
    """The group of the instance cannot suspend; nothing has changed."""


class DrainTimeout(TaskscalerError):
    """Tasks were still waiting or running when the time for draining was up; they go on."""


class ScalerClosed(TaskscalerError):
    """The scaler is shutting down and takes no more tasks."""


class InstancesLeft(TaskscalerError):
    """Instances that were to be removed are still there, and may cost money.

    Attributes:
        instances: the ids, each with its group's before it.
    """

    def __init__(self, instances: Sequence[str], expected: int, timeout: timedelta) -> None:
        self.instances = tuple(instances)
        seconds = timeout.total_seconds()
        what = f"{', '.join(instances)} still there" if instances else "all that are known gone"
        more = f", and {expected} more that may yet appear" if expected else ""
        super().__init__(
            f"shutdown was given up after {seconds:g}s with instances left: {what}{more}; "
            "remove them by hand"
        )


class WorkspaceFailed(TaskscalerError):
    """An instance gave a job no working directory or no shell: not the fault of its script."""


class OutputFailed(TaskscalerError):
    """The output of a job could not be kept here until its end: not the fault of its script."""


class StoreError(TaskscalerError):
    """What must survive a restart cannot be read or written."""


class Fenced(StoreError):
    """Another holder took the store over; this one must stop acting."""


class StoreLocked(StoreError):
    """Another scaler that is alive holds the store; stop it, or give this one its own."""
