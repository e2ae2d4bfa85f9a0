"""The autoscaler table: GitLab's keys as they are, ours below `extensions`.

These structs define the keys with their types, limits and descriptions.
`taskscaler.config.ranges` checks what a type cannot say of one value, and
`taskscaler.config.combinations` finds values that conflict. A zero means "not
written" wherever it does for GitLab.
"""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta

from fleeting import ConnectorConfig, GroupConfig, GroupConfigEntry, GroupEntryConfig
from fleeting.types import Duration
from taskscaler.config.periods import ALWAYS, compile_period, find_zone
from taskscaler.core import (
    Placement,
    Policy,
    ScheduledPolicy,
    Settings,
    UnknownInstances,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import tzinfo

__all__ = (
    "ZERO_IS_DEFAULT",
    "AutoscalerConfig",
    "DefaultPolicyConfig",
    "ExtensionsConfig",
    "PolicyConfig",
    "ScaleThrottleConfig",
    "StateStorageConfig",
    "VmIsolationConfig",
)

_DEFAULTS = Settings()
_ACQUIRE_TIMEOUT = Duration(minutes=15)
_NO_LIMIT = -1
# Tables as long as this are kept for each group, and a slip must not fill the memory.
_MOST_SLOTS = 1_000_000
# GitLab Runner writes a key that is not set as zero.
ZERO_IS_DEFAULT = (
    "deletion_retry_interval",
    "failure_threshold",
    "shutdown_deletion_interval",
    "shutdown_deletion_retries",
    "update_interval",
    "update_interval_when_expecting",
)


def _duration(value: timedelta) -> Duration:
    return Duration(seconds=value.total_seconds())


_Buckets: TypeAlias = Annotated[list[float] | None, Meta(description="Not used yet.")]


class _KnownKeys(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """A table whose unknown keys are errors."""


class DefaultPolicyConfig(_KnownKeys, frozen=True):
    """`[extensions.default_policy]`: the policy while no other policy is in force."""

    idle_count: Annotated[
        int, Meta(ge=0, description="The number of free slots to keep; slots, not instances.")
    ] = 0
    idle_time: Annotated[
        Duration, Meta(description="How long an instance may be idle before it may be removed.")
    ] = Duration(0)
    scale_factor: Annotated[
        float,
        Meta(
            ge=0,
            le=1_000_000,
            description="Additional free slots to keep, as a multiple of the slots in use.",
        ),
    ] = 0.0
    scale_factor_limit: Annotated[
        int, Meta(ge=0, description="The most slots that `scale_factor` may add; 0 means no limit.")
    ] = 0
    preemptive_mode: Annotated[
        bool | None,
        Meta(
            description="Whether a reservation needs a free slot; by default if `idle_count` > 0."
        ),
    ] = None

    @property
    def preemptive(self) -> bool:
        """Return whether a reservation needs a slot that is free now, with the default applied."""
        return self.idle_count > 0 if self.preemptive_mode is None else self.preemptive_mode

    def policy(self) -> Policy:
        """Return the policy as the scaler takes it."""
        return Policy(
            idle_count=self.idle_count,
            idle_time=self.idle_time,
            scale_factor=self.scale_factor,
            scale_factor_limit=self.scale_factor_limit,
            preemptive_mode=self.preemptive_mode,
        )


class PolicyConfig(DefaultPolicyConfig, frozen=True):
    """`[[policy]]`: how much capacity to keep beyond what is in use, and when."""

    periods: Annotated[
        list[str],
        Meta(description="Cron expressions. The policy is in force during any of these periods."),
    ] = msgspec.field(default_factory=lambda: [ALWAYS])
    timezone: Annotated[
        str, Meta(description="The time zone of the periods; by default the zone of this computer.")
    ] = ""

    @property
    def always(self) -> bool:
        """Return whether one of the periods includes every minute."""
        return any(period.split() == ALWAYS.split() for period in self.periods)

    def zone(self) -> tzinfo:
        """Return the time zone of the periods.

        Raises:
            ValueError: the zone does not exist.
        """
        return find_zone(self.timezone)

    def scheduled(self) -> ScheduledPolicy:
        """Return the policy with its periods as the scaler takes it.

        Raises:
            ValueError: a period or the zone is wrong.
        """
        periods = tuple(compile_period(period) for period in self.periods)
        return ScheduledPolicy(self.policy(), periods, self.zone())


class ScaleThrottleConfig(_KnownKeys, frozen=True):
    """`[scale_throttle]`: how fast instances may be created."""

    limit: Annotated[
        int,
        Meta(
            ge=-1,
            description="Instances created per second on average; 0 means 100, -1 means no limit.",
        ),
    ] = 0
    burst: Annotated[
        int,
        Meta(
            ge=0,
            description="The most instances at once; 0 means `max_instances`, else `limit`.",
        ),
    ] = 0

    @property
    def rate(self) -> float:
        """Return the instances per second; infinity means no limit."""
        if self.limit == _NO_LIMIT:
            return math.inf
        return float(self.limit) if self.limit else _DEFAULTS.throttle_limit


class StateStorageConfig(_KnownKeys, frozen=True):
    """`[state_storage]`: what survives a restart of the scaler."""

    enabled: Annotated[
        bool | None, Meta(description="Whether the state survives a restart; by default it does.")
    ] = None
    dir: Annotated[
        Path | None,
        Meta(description="The folder of the state files; by default `.taskscaler`."),
    ] = None
    keep_instance_with_acquisitions: Annotated[
        bool,
        Meta(description="Whether an instance that ran tasks when the scaler ended is used again."),
    ] = False


class VmIsolationConfig(_KnownKeys, frozen=True):
    """`[vm_isolation]`: accepted as long as it is not enabled."""

    enabled: Annotated[
        bool,
        Meta(description="Whether tasks run in virtual machines on the instances; not supported."),
    ] = False
    nesting_host: Annotated[str, Meta(description="Not used.")] = ""
    nesting_config: Annotated[dict[str, Any], Meta(description="Not used.")] = {}
    image: Annotated[str, Meta(description="Not used.")] = ""
    connector_config: Annotated[ConnectorConfig, Meta(description="Not used.")] = ConnectorConfig()


class ExtensionsConfig(_KnownKeys, frozen=True):
    """`[extensions]`: settings that GitLab Runner does not have."""

    id: Annotated[
        str | None,
        Meta(description="Name of the state file; by default made from the runner's URL and id."),
    ] = None
    placement: Annotated[
        Placement,
        Meta(description="`pack` fills the fullest instance first, `spread` the emptiest."),
    ] = _DEFAULTS.placement
    unknown_instances: Annotated[
        UnknownInstances,
        Meta(
            description="`ignore`, `adopt` or `remove` instances that this scaler did not create."
        ),
    ] = _DEFAULTS.unknown_instances
    creation_timeout: Annotated[
        Duration, Meta(description="How long an instance may take from its creation until it runs.")
    ] = _duration(_DEFAULTS.creation_timeout)
    instance_ready_timeout: Annotated[
        Duration, Meta(description="How long a running instance may take to become ready.")
    ] = _duration(_DEFAULTS.instance_ready_timeout)
    missed_updates: Annotated[
        int,
        Meta(ge=1, description="An instance is gone after this many listings in a row without it."),
    ] = _DEFAULTS.missed_updates
    backoff: Annotated[
        Duration,
        Meta(description="The pause after a failed creation; each further failure doubles it."),
    ] = _duration(_DEFAULTS.backoff)
    backoff_limit: Annotated[Duration, Meta(description="The longest pause after failures.")] = (
        _duration(_DEFAULTS.backoff_limit)
    )
    cooldown: Annotated[
        Duration,
        Meta(description="How long a group without capacity is skipped if there is another group."),
    ] = _duration(_DEFAULTS.cooldown)
    operation_timeout: Annotated[
        Duration, Meta(description="How long one call of a provider may take.")
    ] = _duration(_DEFAULTS.operation_timeout)
    shutdown_timeout: Annotated[
        Duration, Meta(description="How long the removal of instances at shutdown may take.")
    ] = _duration(_DEFAULTS.shutdown_timeout)
    increase_interval: Annotated[
        Duration,
        Meta(description="The least time between two requests of a group for more instances."),
    ] = _duration(_DEFAULTS.increase_interval)
    heartbeat_interval: Annotated[
        Duration, Meta(description="How often an instance is checked; 0 disables these checks.")
    ] = _duration(_DEFAULTS.heartbeat_interval)
    probe_after: Annotated[
        Duration,
        Meta(description="Probe a connection that was quiet for this long; 0 means always."),
    ] = _duration(_DEFAULTS.probe_after)
    probe_timeout: Annotated[
        Duration, Meta(description="How long one health check of an instance may take.")
    ] = _duration(_DEFAULTS.probe_timeout)
    remove_unhealthy_with_tasks: Annotated[
        bool, Meta(description="Whether an unhealthy instance is removed while tasks run on it.")
    ] = _DEFAULTS.remove_unhealthy_with_tasks
    max_instance_age: Annotated[
        Duration, Meta(description="Replace an instance that is older than this; 0 means no limit.")
    ] = _duration(_DEFAULTS.max_instance_age)
    suspend_time_to_live: Annotated[
        Duration, Meta(description="How long a suspended task keeps its slot.")
    ] = _duration(_DEFAULTS.suspend_time_to_live)
    default_policy: Annotated[
        DefaultPolicyConfig | None,
        Meta(description="The policy while no other policy is in force."),
    ] = None
    state_key_file: Annotated[
        Path | None,
        Meta(description="The key that encrypts secrets in the state file; made if missing."),
    ] = None
    group: Annotated[
        list[GroupEntryConfig], Meta(description="Several groups, in order of preference.")
    ] = []


# The settings of the scaler that have the same name.
_OF_EXTENSIONS = tuple(
    name for name in ExtensionsConfig.__struct_fields__ if name in Settings.__slots__
)


class AutoscalerConfig(
    GroupConfig, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """`[autoscaler]`. A key that is not in the file is None; its reader applies the default."""

    capacity_per_instance: Annotated[
        int, Meta(ge=1, le=_MOST_SLOTS, description="The number of slots on each instance.")
    ] = 1
    max_instances: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(description="The most instances in all groups together; 0 means no limit."),
    ] = None
    max_use_count: Annotated[
        int, Meta(ge=0, description="Replace an instance after this many tasks; 0 means no limit.")
    ] = 0
    delete_instances_on_shutdown: Annotated[
        bool | None, Meta(description="Whether the instances are removed when the scaler ends.")
    ] = None
    instance_ready_command: Annotated[
        str, Meta(description="A command that must succeed on a new instance before it gets tasks.")
    ] = ""
    instance_acquire_timeout: Annotated[
        Duration, Meta(description="How long a task waits for a slot.")
    ] = _ACQUIRE_TIMEOUT
    update_interval: Annotated[
        Duration, Meta(description="How often the group is listed while no change is expected.")
    ] = Duration(0)
    update_interval_when_expecting: Annotated[
        Duration | None,
        Meta(description="How often the group is listed while a change is expected."),
    ] = None
    deletion_retry_interval: Annotated[
        Duration,
        Meta(description="The time after which a removal without effect is requested again."),
    ] = Duration(0)
    shutdown_deletion_interval: Annotated[
        Duration, Meta(description="The same during shutdown.")
    ] = Duration(0)
    shutdown_deletion_retries: Annotated[
        int, Meta(ge=0, description="How many times a removal is requested again during shutdown.")
    ] = 0
    failure_threshold: Annotated[
        int, Meta(ge=0, description="Replace an instance after this many failed checks in a row.")
    ] = 0
    reservation_throttling: Annotated[
        bool | None,
        Meta(description="Whether reservations leave the idle capacity of one instance free."),
    ] = None
    log_internal_ip: Annotated[bool, Meta(description="Not used yet.")] = False
    log_external_ip: Annotated[bool, Meta(description="Not used yet.")] = False
    instance_operation_time_buckets: _Buckets = None
    instance_creation_time_buckets: _Buckets = None
    instance_is_running_time_buckets: _Buckets = None
    instance_deletion_time_buckets: _Buckets = None
    instance_readiness_time_buckets: _Buckets = None
    instance_life_duration_buckets: _Buckets = None
    policy: Annotated[
        list[PolicyConfig],
        Meta(
            description="How much idle capacity to keep, and when. The last policy in force wins."
        ),
    ] = []  # noqa: RUF012 -- msgspec copies it
    scale_throttle: Annotated[
        ScaleThrottleConfig, Meta(description="How fast instances may be created.")
    ] = ScaleThrottleConfig()
    state_storage: Annotated[
        StateStorageConfig, Meta(description="How state survives a restart.")
    ] = StateStorageConfig()
    vm_isolation: Annotated[
        VmIsolationConfig, Meta(description="Accepted as long as it is not enabled.")
    ] = VmIsolationConfig()
    extensions: Annotated[
        ExtensionsConfig, Meta(description="Settings that GitLab Runner does not have.")
    ] = ExtensionsConfig()

    def __repr__(self) -> str:
        """Show nothing of `plugin_config`, which may hold secrets."""
        return f"AutoscalerConfig(plugin={self.plugin!r}, ...)"

    @property
    def acquire_timeout(self) -> timedelta:
        """Return how long a task waits for a slot, with the default for zero."""
        return self.instance_acquire_timeout or _ACQUIRE_TIMEOUT

    def effective(self, name: str) -> Any:
        """Return a value of `ZERO_IS_DEFAULT`, with the default for zero."""
        default = getattr(_DEFAULTS, name)
        default = _duration(default) if isinstance(default, timedelta) else default
        return getattr(self, name) or default

    def groups(self) -> tuple[GroupConfigEntry, ...]:
        """Return the groups to open, the preferred first."""
        return self.entries(self.extensions.group)

    def settings(self, group_limits: Mapping[str, int] | None = None) -> Settings:
        """Return the scaler's settings, with defaults for the keys that are not in the file.

        Args:
            group_limits: the most instances of each group, by the group's id.

        Raises:
            ValueError: a period or a zone is wrong. `examine_config` reports both before.
        """
        default, schedule = self._policies()
        return Settings(
            capacity_per_instance=self.capacity_per_instance,
            max_instances=self.max_instances or 0,
            max_use_count=self.max_use_count,
            group_limits=dict(group_limits or {}),
            policy=default,
            schedule=schedule,
            reservation_throttling=bool(self.reservation_throttling),
            keep_instance_with_acquisitions=self.state_storage.keep_instance_with_acquisitions,
            instance_ready_command=self.instance_ready_command,
            throttle_limit=self.scale_throttle.rate,
            throttle_burst=self.scale_throttle.burst,
            delete_instances_on_shutdown=bool(self.delete_instances_on_shutdown),
            **{name: self.effective(name) for name in ZERO_IS_DEFAULT},
            **{name: getattr(self.extensions, name) for name in _OF_EXTENSIONS},
        )

    def default_policy(self) -> DefaultPolicyConfig:
        """Return the policy while no other policy is in force."""
        if self.extensions.default_policy is not None:
            return self.extensions.default_policy
        return _BETWEEN_POLICIES if self.policy else DefaultPolicyConfig()

    def _policies(self) -> tuple[Policy, tuple[ScheduledPolicy, ...]]:
        """Return the default policy, and the policies that may replace it at some times."""
        always = [index for index, policy in enumerate(self.policy) if policy.always]
        if not always:
            return self.default_policy().policy(), tuple(p.scheduled() for p in self.policy)
        # A policy that is always in force hides all policies before it.
        last = always[-1]
        return self.policy[last].policy(), tuple(p.scheduled() for p in self.policy[last + 1 :])


# A gap between the periods of two policies must not remove instances that the next one needs.
_BETWEEN_POLICIES = DefaultPolicyConfig(idle_time=Duration(minutes=5))
