"""The errors of the scaler, drawn as one tree.

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

Errors of groups, plugins, connections and configuration are
`fleeting.errors.FleetingError`s.
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
    """The root of all errors that this distribution raises on purpose."""


class IllegalEvent(TaskscalerError):
    """The caller asked for something impossible, such as a key that is in use.

    A bug in the caller. The state is unchanged.
    """


class NoCapacity(TaskscalerError):
    """A reservation was refused; the message says why, with numbers.

    Not a fault. Try again later, or raise the limit that the message names.
    """


class AcquireTimeout(TaskscalerError):
    """No slot came free in time; the message says why, with numbers.

    The fault of whatever the message names: a limit, the provider, the instances, or
    only a long queue. Trying again is safe.
    """


class AcquisitionLost(TaskscalerError):
    """The instance of an acquisition is gone, and everything that ran on it.

    Not the fault of the task: run it again, on another instance.

    Attributes:
        instance: its id.
        cause: why it is gone.
    """

    def __init__(self, instance: str, cause: str) -> None:
        self.instance = instance
        self.cause = cause
        super().__init__(f"instance {instance} was lost while it was in use: {cause}")


class AcquisitionSuspended(TaskscalerError):
    """The task was suspended while its body ran.

    Not a fault. `Taskscaler.resume` continues it in the same slot.

    Attributes:
        key: the task's.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"task {key!r} was suspended; resume it to continue in its slot")


class NotSuspendable(TaskscalerError):
    """The instance's group cannot suspend instances; nothing has changed.

    The caller's fault. Check that the provider of the group can suspend.
    """


class DrainTimeout(TaskscalerError):
    """Tasks were still waiting or running when the time for draining was up.

    Not a fault. They go on; drain again to wait longer.
    """


class ScalerClosed(TaskscalerError):
    """The scaler is not open, is shutting down, or has ended, and takes no more tasks.

    The caller's fault, unless a shutdown or a failure of the scaler came first.
    """


class InstancesLeft(TaskscalerError):
    """Instances could not be removed in time. They still exist and may cost money.

    Usually the fault of the provider. The operator should remove them by hand.

    Attributes:
        instances: their ids, each after the id of its group and a slash.
    """

    def __init__(self, instances: Sequence[str], expected: int, timeout: timedelta) -> None:
        self.instances = tuple(instances)
        left = [", ".join(instances)] if instances else []
        if expected:
            left.append(f"{expected} that were requested and may still appear")
        super().__init__(
            f"instances were left after {timeout.total_seconds():g}s of shutting down: "
            f"{' and '.join(left)}; remove them by hand"
        )


class WorkspaceFailed(TaskscalerError):
    """An instance gave a job no working directory or no shell.

    The fault of the instance or its image, not of the job's script.
    """


class OutputFailed(TaskscalerError):
    """The output of a job could not be kept on this computer.

    The fault of this computer, such as a full disk, not of the job's script.
    """


class StoreError(TaskscalerError):
    """The store of what must survive a restart cannot be read or written.

    The message names the store and says what the operator should do.
    """


class Fenced(StoreError):
    """Another scaler became the holder of the store; this one must stop.

    The operator's fault: only one scaler may use a store.
    """


class StoreLocked(StoreError):
    """Another scaler that is alive holds the store.

    The operator's fault. Stop that scaler, or give this one a store of its own.
    """
