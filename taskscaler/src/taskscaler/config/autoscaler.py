"""The autoscaler table: GitLab's keys as they are, ours below `extensions`.

These structs say what a file may hold; `taskscaler.config.ranges` what its
numbers may be, and `taskscaler.config.combinations` what does not go together.
Where GitLab takes zero for "not written", so does this.
"""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fleeting import ConnectorConfig, GroupConfig, GroupConfigEntry, GroupEntryConfig, group_entries
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
# GitLab writes nothing as zero.
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


class _Table(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """A table of which every key is known."""


class DefaultPolicyConfig(_Table, frozen=True):
    """`[extensions.default_policy]`: what holds when no policy does.

    Attributes:
        idle_count: free slots, not instances, to keep at any time.
        idle_time: how long an instance may be unused before it may be removed.
        scale_factor: further free slots, as a factor of the slots in use.
        scale_factor_limit: the most that the factor may yield, in slots; 0 is no limit.
        preemptive_mode: whether a reservation needs a slot that is free now; by
            default just when `idle_count` is above 0.
    """

    idle_count: int = 0
    idle_time: Duration = Duration(0)
    scale_factor: float = 0.0
    scale_factor_limit: int = 0
    preemptive_mode: bool | None = None

    @property
    def preemptive(self) -> bool:
        """Return whether a reservation needs a slot that is free now, written or not."""
        return self.idle_count > 0 if self.preemptive_mode is None else self.preemptive_mode

    def policy(self) -> Policy:
        """Return the same as the scaler's value."""
        return Policy(
            idle_count=self.idle_count,
            idle_time=self.idle_time,
            scale_factor=self.scale_factor,
            scale_factor_limit=self.scale_factor_limit,
            preemptive_mode=self.preemptive_mode,
        )


class PolicyConfig(DefaultPolicyConfig, frozen=True):
    """`[[policy]]`: how much capacity to keep beyond what is in use, and when.

    Attributes:
        periods: cron expressions; the policy holds in any of these ranges of time.
        timezone: whose clocks the periods mean; by default those of this computer.
    """

    periods: list[str] = msgspec.field(default_factory=lambda: [ALWAYS])
    timezone: str = ""

    @property
    def always(self) -> bool:
        """Return whether one of the periods is every minute there is."""
        return any(period.split() == ALWAYS.split() for period in self.periods)

    def zone(self) -> tzinfo:
        """Return whose clocks the periods mean.

        Raises:
            ValueError: there is no such zone.
        """
        return find_zone(self.timezone)

    def scheduled(self) -> ScheduledPolicy:
        """Return the same as the scaler's value.

        Raises:
            ValueError: a period or the zone is wrong.
        """
        periods = tuple(compile_period(period) for period in self.periods)
        return ScheduledPolicy(self.policy(), periods, self.zone())


class ScaleThrottleConfig(_Table, frozen=True):
    """`[scale_throttle]`: how fast instances may be created.

    Attributes:
        limit: instances per second in the long run; 0 is the default of 100, -1 no limit.
        burst: instances at once after a quiet time; 0 is `max_instances`, or `limit`
            where that is no limit.
    """

    limit: int = 0
    burst: int = 0

    @property
    def rate(self) -> float:
        """Return the instances per second; infinity is no limit."""
        if self.limit == _NO_LIMIT:
            return math.inf
        return float(self.limit) if self.limit else _DEFAULTS.throttle_limit


class StateStorageConfig(_Table, frozen=True):
    """`[state_storage]`: what survives the end of the scaler.

    Attributes:
        enabled: whether anything does; by default yes.
        dir: the folder of the stores; by default `.taskscaler` beside the file.
        keep_instance_with_acquisitions: whether an instance on which tasks ran when
            the scaler ended is used again.
    """

    enabled: bool | None = None
    dir: Path | None = None
    keep_instance_with_acquisitions: bool = False


class VmIsolationConfig(_Table, frozen=True):
    """`[vm_isolation]`: accepted as long as it is not enabled.

    Attributes:
        enabled: whether tasks run in virtual machines on the instances; not supported.
        nesting_host: not used.
        nesting_config: not used.
        image: not used.
        connector_config: not used.
    """

    enabled: bool = False
    nesting_host: str = ""
    nesting_config: dict[str, Any] = {}
    image: str = ""
    connector_config: ConnectorConfig = ConnectorConfig()


class ExtensionsConfig(_Table, frozen=True):
    """`[extensions]`: what GitLab has no key for.

    Attributes:
        id: names the store of the state; by default the URL and the id of the runner do.
        placement: `pack` fills the fullest instance first, `spread` the emptiest.
        unknown_instances: `ignore`, `adopt` or `remove` what we did not ask for.
        creation_timeout: when an instance that is still being created is given up.
        instance_ready_timeout: how long one instance may take to become ready.
        missed_updates: after how many listings without it an instance is gone.
        backoff: the pause after a first failure to create; doubled with each further one.
        backoff_limit: the longest such pause.
        cooldown: how long a group without capacity is passed over, if there is another.
        operation_timeout: how long one call of a provider may take.
        shutdown_timeout: how long the removal of the instances at the end may take.
        increase_interval: the least time between two requests to grow of one group.
        heartbeat_interval: how often a quiet instance is checked; 0 is never.
        probe_after: a connection that was quiet for so long is probed before a task
            gets a slot behind it; 0 is always.
        probe_timeout: how long one check of an instance may take.
        remove_unhealthy_with_tasks: whether an unhealthy instance is removed although
            tasks run on it.
        max_instance_age: an instance older than this is replaced; 0 is no limit.
        suspend_time_to_live: a task that is suspended for longer loses its slot.
        default_policy: what holds when no policy does.
        state_key_file: the key that seals secrets in the store; by default one is made
            beside it.
        group: several groups, the preferred first.
    """

    id: str | None = None
    placement: Placement = _DEFAULTS.placement
    unknown_instances: UnknownInstances = _DEFAULTS.unknown_instances
    creation_timeout: Duration = _duration(_DEFAULTS.creation_timeout)
    instance_ready_timeout: Duration = _duration(_DEFAULTS.instance_ready_timeout)
    missed_updates: int = _DEFAULTS.missed_updates
    backoff: Duration = _duration(_DEFAULTS.backoff)
    backoff_limit: Duration = _duration(_DEFAULTS.backoff_limit)
    cooldown: Duration = _duration(_DEFAULTS.cooldown)
    operation_timeout: Duration = _duration(_DEFAULTS.operation_timeout)
    shutdown_timeout: Duration = _duration(_DEFAULTS.shutdown_timeout)
    increase_interval: Duration = _duration(_DEFAULTS.increase_interval)
    heartbeat_interval: Duration = _duration(_DEFAULTS.heartbeat_interval)
    probe_after: Duration = _duration(_DEFAULTS.probe_after)
    probe_timeout: Duration = _duration(_DEFAULTS.probe_timeout)
    remove_unhealthy_with_tasks: bool = _DEFAULTS.remove_unhealthy_with_tasks
    max_instance_age: Duration = _duration(_DEFAULTS.max_instance_age)
    suspend_time_to_live: Duration = _duration(_DEFAULTS.suspend_time_to_live)
    default_policy: DefaultPolicyConfig | None = None
    state_key_file: Path | None = None
    group: list[GroupEntryConfig] = []


# Those that the scaler knows by the same name.
_OF_EXTENSIONS = tuple(
    name for name in ExtensionsConfig.__struct_fields__ if name in Settings.__slots__
)


class AutoscalerConfig(
    GroupConfig, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """`[autoscaler]`; a key that is None was not written, and its reader has a default.

    Attributes:
        capacity_per_instance: slots on each instance.
        max_instances: over all groups and states; 0 is no limit.
        max_use_count: tasks that an instance may run in its life; 0 is no limit.
        delete_instances_on_shutdown: whether the end of the scaler is that of its instances.
        instance_ready_command: run on each new instance; must succeed before it gets tasks.
        instance_acquire_timeout: how long a task waits for a slot.
        update_interval: how often the group is listed when nothing is expected of it.
        update_interval_when_expecting: how often when something is.
        deletion_retry_interval: when to ask again for a removal that had no effect.
        shutdown_deletion_interval: the pause between two such requests at the end.
        shutdown_deletion_retries: how many times to ask again at the end.
        failure_threshold: after how many failed checks in a row an instance is replaced.
        reservation_throttling: whether one instance's worth of idle capacity is kept
            from being reserved.
        log_internal_ip: not used yet.
        log_external_ip: not used yet.
        instance_operation_time_buckets: not used yet.
        instance_creation_time_buckets: not used yet.
        instance_is_running_time_buckets: not used yet.
        instance_deletion_time_buckets: not used yet.
        instance_readiness_time_buckets: not used yet.
        instance_life_duration_buckets: not used yet.
        policy: how much capacity to keep, and when; the last that holds wins.
        scale_throttle: how fast instances may be created.
        state_storage: what survives the end of the scaler.
        vm_isolation: accepted as long as it is not enabled.
        extensions: what GitLab has no key for.
    """

    capacity_per_instance: int = 1
    max_instances: int | None = None
    max_use_count: int = 0
    delete_instances_on_shutdown: bool | None = None
    instance_ready_command: str = ""
    instance_acquire_timeout: Duration = _ACQUIRE_TIMEOUT
    update_interval: Duration = Duration(0)
    update_interval_when_expecting: Duration | None = None
    deletion_retry_interval: Duration = Duration(0)
    shutdown_deletion_interval: Duration = Duration(0)
    shutdown_deletion_retries: int = 0
    failure_threshold: int = 0
    reservation_throttling: bool | None = None
    log_internal_ip: bool = False
    log_external_ip: bool = False
    instance_operation_time_buckets: list[float] | None = None
    instance_creation_time_buckets: list[float] | None = None
    instance_is_running_time_buckets: list[float] | None = None
    instance_deletion_time_buckets: list[float] | None = None
    instance_readiness_time_buckets: list[float] | None = None
    instance_life_duration_buckets: list[float] | None = None
    policy: list[PolicyConfig] = []  # noqa: RUF012 -- msgspec copies it
    scale_throttle: ScaleThrottleConfig = ScaleThrottleConfig()
    state_storage: StateStorageConfig = StateStorageConfig()
    vm_isolation: VmIsolationConfig = VmIsolationConfig()
    extensions: ExtensionsConfig = ExtensionsConfig()

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
        """Return the groups to open, the preferred first: one, unless the file has a list."""
        return group_entries(self, self.extensions.group)

    def settings(self, group_limits: Mapping[str, int] | None = None) -> Settings:
        """Return the same as the scaler's value, with the default for what was not written.

        Args:
            group_limits: the most instances of a group, by the id that it has when it is open.

        Raises:
            ValueError: something of the table is wrong that `ConfigError` would have
                told whoever had asked before.
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
        """Return what holds when no policy does."""
        if self.extensions.default_policy is not None:
            return self.extensions.default_policy
        return _BETWEEN_POLICIES if self.policy else DefaultPolicyConfig()

    def _policies(self) -> tuple[Policy, tuple[ScheduledPolicy, ...]]:
        """Return what holds when nothing else does, and what else may hold."""
        always = [index for index, policy in enumerate(self.policy) if policy.always]
        if not always:
            return self.default_policy().policy(), tuple(p.scheduled() for p in self.policy)
        # The last that always holds hides what stands before it.
        last = always[-1]
        return self.policy[last].policy(), tuple(p.scheduled() for p in self.policy[last + 1 :])


# A gap between the periods of two policies must not end instances that are needed again soon.
_BETWEEN_POLICIES = DefaultPolicyConfig(idle_time=Duration(minutes=5))
