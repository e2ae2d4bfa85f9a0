"""The settings of an operator as the core uses them: frozen and checked."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import tzinfo

__all__ = (
    "LONGEST",
    "MAY_BE_ZERO",
    "Period",
    "Placement",
    "Policy",
    "ScheduledPolicy",
    "Settings",
    "UnknownInstances",
)


# A scaler without these pauses would never rest.
_PAUSES = (
    "update_interval",
    "update_interval_when_expecting",
    "creation_timeout",
    "deletion_retry_interval",
    "backoff",
    "backoff_limit",
    "operation_timeout",
    "instance_ready_timeout",
    "probe_timeout",
    "shutdown_deletion_interval",
    "suspend_time_to_live",
)
_NUMBERS = ("max_instances", "max_use_count", "shutdown_deletion_retries", "throttle_burst")
# The lengths of time that may be zero.
MAY_BE_ZERO = frozenset(
    {
        "cooldown",
        "heartbeat_interval",
        "increase_interval",
        "max_instance_age",
        "probe_after",
    }
)


# Other types that a setting accepts, by the type of its default; None is that of a switch.
_KINDS: dict[type, tuple[type, ...]] = {
    float: (int, float),
    type(None): (bool, type(None)),
    dict: (Mapping,),
}

# More idle slots for each slot in use are a mistake, and with a larger factor the product
# would be infinite.
MOST_SCALE = 1_000_000

# With a longer time, a deadline could lie beyond the last date of the calendar.
LONGEST = timedelta(days=36_500)


def _check_types(one: Policy | Settings) -> None:
    """Refuse values of other types than those of the defaults.

    Python itself would accept `idle_time="5m"`, and fail at a decision much later.
    """
    for setting in fields(one):
        value = getattr(one, setting.name)
        default = setting.default
        if default is MISSING and setting.default_factory is not MISSING:
            default = setting.default_factory()
        kinds = _KINDS.get(default.__class__, (default.__class__,))
        # True is an int to Python, and hardly one to an operator.
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            expected = " or ".join(kind.__name__ for kind in kinds if kind is not type(None))
            raise TypeError(
                f"{setting.name} must be a value of type {expected}, not {value.__class__.__name__}"
            )


class Placement(enum.Enum):
    """Which instance gets the next task.

    `PACK` fills the fullest instance first, the oldest among equals, so that the
    others can become idle. `SPREAD` uses the emptiest.
    """

    PACK = "pack"
    SPREAD = "spread"


class UnknownInstances(enum.Enum):
    """How to treat instances of the group that this scaler did not request.

    `IGNORE` counts them against the limit and leaves them alone, `ADOPT` uses them as
    our own, `REMOVE` removes them.
    """

    IGNORE = "ignore"
    ADOPT = "adopt"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Policy:
    """How much capacity to keep beyond what is in use.

    Attributes:
        idle_count: how many slots (not instances) should be free at any time.
        idle_time: how long an instance is idle before it may be removed.
        scale_factor: free slots as a factor of the slots in use; the larger of this and
            `idle_count` applies.
        scale_factor_limit: the most slots that the factor may yield; 0 for no limit.
        preemptive_mode: whether a reservation needs a slot that is free now; None means
            if `idle_count` is above 0.
    """

    idle_count: int = 0
    idle_time: timedelta = timedelta(0)
    scale_factor: float = 0.0
    scale_factor_limit: int = 0
    preemptive_mode: bool | None = None

    def __post_init__(self) -> None:
        """Refuse impossible values.

        Raises:
            TypeError: naming the setting and the type that it must have.
            ValueError: naming the setting.
        """
        _check_types(self)
        for name in ("idle_count", "scale_factor", "scale_factor_limit"):
            # The comparison is false for NaN, too.
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a number and not negative")
        if self.scale_factor > MOST_SCALE:
            raise ValueError(f"scale_factor must be at most {MOST_SCALE:,}")

    @property
    def preemptive(self) -> bool:
        """Return whether a reservation needs a slot that is free now."""
        return self.idle_count > 0 if self.preemptive_mode is None else self.preemptive_mode


@dataclass(frozen=True, slots=True)
class Period:
    """A cron expression of five fields, as a range of time and not as a trigger.

    It is compiled once, because parsing it for every look would cost more than the look.

    Attributes:
        expression: as the operator wrote it.
        minutes: the minutes of a day that are inside, as bits; bit 0 is midnight.
        days: the days of a month, as bits 1 to 31.
        months: the months, as bits 1 to 12.
        weekdays: the days of a week, as bits 0 (Monday) to 6.
        either: whether one of `days` and `weekdays` is enough: the rule of cron if both
            are restricted.
    """

    expression: str
    minutes: int
    days: int
    months: int
    weekdays: int
    either: bool


@dataclass(frozen=True, slots=True)
class ScheduledPolicy:
    """A policy that applies at certain times only.

    Attributes:
        policy: the policy.
        periods: it applies in any of these.
        zone: the time zone of the periods.
    """

    policy: Policy
    periods: tuple[Period, ...]
    zone: tzinfo


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one scaler.

    Attributes:
        capacity_per_instance: slots on each instance.
        max_instances: over all groups, in any phase; 0 for no limit.
        max_use_count: how many tasks an instance may run; 0 for no limit.
        group_limits: the most instances of a group, by its id, in addition to the group's
            own limit; a group that is not named has no limit here.
        policy: how much idle capacity to keep when no scheduled policy applies.
        schedule: policies that apply at certain times; the last that applies wins.
        placement: which instance gets the next task.
        reservation_throttling: whether to refuse reservations that would leave less
            than one instance's worth of the idle capacity unreserved.
        unknown_instances: how to treat instances that this scaler did not request.
        keep_instance_with_acquisitions: whether an instance on which tasks ran when the
            scaler ended is used again after a restart.
        instance_ready_command: run on each new instance; if empty, a connection is enough.
        instance_ready_timeout: how long an instance may take to become ready.
        update_interval: how often a group is listed when no change is expected.
        update_interval_when_expecting: how often a group is listed when a change is expected.
        creation_timeout: after this time an instance that is still being created is
            removed, and one that was accepted, never seen and is not pending in the cloud
            is not expected any more.
        deletion_retry_interval: when to repeat a removal request that had no effect.
        missed_updates: after how many listings without it an instance is gone.
        throttle_limit: instances created per second in the long run; infinity for no limit.
        throttle_burst: instances created at once after a quiet time; 0 means
            `max_instances`, or `throttle_limit` if that is 0.
        increase_interval: the shortest time between two requests for instances of one
            group, so that tasks in quick succession are served by one request.
        backoff: the pause after a first failure to create; each further failure doubles it.
        backoff_limit: the longest such pause.
        cooldown: how long a group without capacity or quota is passed over in favor of
            others.
        operation_timeout: how long one call of a provider may take.
        heartbeat_interval: how long an instance may be quiet before it is checked; 0 for
            no such checks.
        probe_after: an instance that has not shown for this long that it works is checked
            before a task gets a slot on it; 0 for always.
        probe_timeout: how long one check of an instance may take, and the pause before a
            failed instance is checked again.
        failure_threshold: after how many failed checks in a row an instance is replaced.
        remove_unhealthy_with_tasks: whether to replace it while tasks run on it, which
            then lose their slots; otherwise they run on, and it gets no further ones.
        max_instance_age: an instance older than this gets no further tasks and is
            replaced; 0 for no limit.
        suspend_time_to_live: a task that is suspended for longer loses its slot.
        delete_instances_on_shutdown: whether closing the scaler removes its instances.
        shutdown_deletion_interval: the pause between two such requests.
        shutdown_deletion_retries: how many times to repeat a request before giving up.
        shutdown_timeout: how long the whole removal may take.
    """

    capacity_per_instance: int = 1
    max_instances: int = 0
    max_use_count: int = 0
    group_limits: Mapping[str, int] = field(default_factory=dict[str, int])
    policy: Policy = field(default_factory=Policy)
    schedule: tuple[ScheduledPolicy, ...] = ()
    placement: Placement = Placement.PACK
    reservation_throttling: bool = False
    unknown_instances: UnknownInstances = UnknownInstances.IGNORE
    keep_instance_with_acquisitions: bool = False
    instance_ready_command: str = ""
    instance_ready_timeout: timedelta = timedelta(minutes=5)
    update_interval: timedelta = timedelta(minutes=1)
    update_interval_when_expecting: timedelta = timedelta(seconds=2)
    creation_timeout: timedelta = timedelta(minutes=10)
    deletion_retry_interval: timedelta = timedelta(minutes=1)
    missed_updates: int = 2
    throttle_limit: float = 100.0
    throttle_burst: int = 0
    increase_interval: timedelta = timedelta(seconds=1)
    backoff: timedelta = timedelta(seconds=1)
    backoff_limit: timedelta = timedelta(minutes=5)
    cooldown: timedelta = timedelta(minutes=5)
    operation_timeout: timedelta = timedelta(minutes=1)
    heartbeat_interval: timedelta = timedelta(minutes=5)
    probe_after: timedelta = timedelta(seconds=10)
    probe_timeout: timedelta = timedelta(seconds=10)
    failure_threshold: int = 3
    remove_unhealthy_with_tasks: bool = False
    max_instance_age: timedelta = timedelta(0)
    suspend_time_to_live: timedelta = timedelta(days=7)
    delete_instances_on_shutdown: bool = False
    shutdown_deletion_interval: timedelta = timedelta(seconds=10)
    shutdown_deletion_retries: int = 3
    shutdown_timeout: timedelta = timedelta(minutes=2)

    def __post_init__(self) -> None:
        """Refuse impossible values.

        Raises:
            TypeError: naming the setting and the type that it must have.
            ValueError: naming the setting.
        """
        _check_types(self)
        if self.capacity_per_instance < 1:
            raise ValueError("capacity_per_instance must be at least 1")
        for name in _NUMBERS:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        for name in ("missed_updates", "failure_threshold"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if not self.throttle_limit > 0:
            raise ValueError("throttle_limit must be above 0, or no instance could be created")
        self._check_lengths()

    def _check_lengths(self) -> None:
        for name in sorted(MAY_BE_ZERO):
            if getattr(self, name) < timedelta(0):
                raise ValueError(f"{name} must not be negative")
        for name in (*sorted(MAY_BE_ZERO), *_PAUSES):
            if getattr(self, name) > LONGEST:
                raise ValueError(f"{name} must be at most {LONGEST.days:,} days")
        for name in _PAUSES:
            if getattr(self, name) <= timedelta(0):
                raise ValueError(f"{name} must be above 0, or the scaler would never pause")
