"""What an operator can set, as the core sees it: frozen, checked, in plain units."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from datetime import timedelta

__all__ = ("Placement", "Policy", "Settings", "UnknownInstances")


# Without these the scaler would never rest.
_PAUSES = (
    "update_interval",
    "update_interval_when_expecting",
    "creation_timeout",
    "deletion_retry_interval",
    "backoff",
    "backoff_limit",
    "operation_timeout",
    "instance_ready_timeout",
)


class Placement(enum.Enum):
    """Which instance gets the next task.

    `PACK` fills the fullest instance first, the oldest among equals, so that
    the others can become idle; `SPREAD` takes the emptiest.
    """

    PACK = "pack"
    SPREAD = "spread"


class UnknownInstances(enum.Enum):
    """What to do with instances of the group that we did not ask for.

    `IGNORE` counts them against the limit and leaves them alone, `ADOPT` uses
    them as our own, `REMOVE` removes them.
    """

    IGNORE = "ignore"
    ADOPT = "adopt"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Policy:
    """How much capacity to keep beyond what is in use.

    Attributes:
        idle_count: slots, not instances, that should be free at any time.
        idle_time: how long an instance may be unused before it may be removed.
        scale_factor: further free slots, as a factor of the slots in use; the larger
            of this and `idle_count` holds.
        scale_factor_limit: the most that the factor may yield, in slots; 0 is no limit.
        preemptive_mode: whether a reservation needs a slot that is free now; None
            means just when `idle_count` is above 0.
    """

    idle_count: int = 0
    idle_time: timedelta = timedelta(0)
    scale_factor: float = 0.0
    scale_factor_limit: int = 0
    preemptive_mode: bool | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: naming the setting.
        """
        for name in ("idle_count", "scale_factor", "scale_factor_limit"):
            # Also false for what is not a number.
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a number and not negative")

    @property
    def preemptive(self) -> bool:
        """Return whether a reservation needs a slot that is free now."""
        return self.idle_count > 0 if self.preemptive_mode is None else self.preemptive_mode


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one scaler.

    Attributes:
        capacity_per_instance: slots on each instance.
        max_instances: over all groups, in any state; 0 is no limit.
        max_use_count: tasks that an instance may run in its life; 0 is no limit.
        policy: how much capacity to keep beyond what is in use.
        placement: which instance gets the next task.
        unknown_instances: what to do with instances that we did not ask for.
        instance_ready_command: run on each new instance; empty means that a
            connection is proof enough.
        instance_ready_timeout: how long one instance may take for that.
        update_interval: how often a group is listed when nothing is expected of it.
        update_interval_when_expecting: how often when something is.
        creation_timeout: after this time an instance that is still being created is
            given up and removed, and one that was promised, never seen and is not
            pending in the cloud is no longer expected.
        deletion_retry_interval: when to ask again for a removal that had no effect.
        missed_updates: after how many complete listings without it an instance is gone.
        backoff: the pause after a first failure to create; doubled with each further one.
        backoff_limit: the longest such pause.
        operation_timeout: how long one call of a provider may take.
        delete_instances_on_shutdown: whether closing the scaler removes its instances.
        shutdown_timeout: how long that may take.
    """

    capacity_per_instance: int = 1
    max_instances: int = 0
    max_use_count: int = 0
    policy: Policy = field(default_factory=Policy)
    placement: Placement = Placement.PACK
    unknown_instances: UnknownInstances = UnknownInstances.IGNORE
    instance_ready_command: str = ""
    instance_ready_timeout: timedelta = timedelta(minutes=5)
    update_interval: timedelta = timedelta(minutes=1)
    update_interval_when_expecting: timedelta = timedelta(seconds=2)
    creation_timeout: timedelta = timedelta(minutes=10)
    deletion_retry_interval: timedelta = timedelta(minutes=1)
    missed_updates: int = 2
    backoff: timedelta = timedelta(seconds=1)
    backoff_limit: timedelta = timedelta(minutes=5)
    operation_timeout: timedelta = timedelta(minutes=1)
    delete_instances_on_shutdown: bool = False
    shutdown_timeout: timedelta = timedelta(minutes=2)

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: naming the setting.
        """
        if self.capacity_per_instance < 1:
            raise ValueError("capacity_per_instance must be at least 1")
        for name in ("max_instances", "max_use_count"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative; 0 means no limit")
        if self.missed_updates < 1:
            raise ValueError("missed_updates must be at least 1")
        for name in _PAUSES:
            if getattr(self, name) <= timedelta(0):
                raise ValueError(f"{name} must be longer than nothing, or it would never pause")
