"""The autoscaler table: GitLab's keys as they are, ours below `extensions`.

Who reads a file with such a table first asks `not_honoured`, so that known keys
of GitLab which mean nothing here yet are refused as such, then decodes it into
these frozen structs with `fleeting.config.decode`, and last asks `out_of_range`.
Nothing is ever silently ignored.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import msgspec

from fleeting.config import GroupConfig
from fleeting.types import Duration
from taskscaler.core.settings import Placement, Policy, Settings, UnknownInstances

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ("AutoscalerConfig", "ExtensionsConfig", "PolicyConfig", "not_honoured", "out_of_range")

_DEFAULTS = Settings()

# GitLab's keys that have a meaning there and none here yet.
_LATER_KEYS = frozenset(
    {
        "failure_threshold",
        "instance_creation_time_buckets",
        "instance_deletion_time_buckets",
        "instance_is_running_time_buckets",
        "instance_life_duration_buckets",
        "instance_operation_time_buckets",
        "instance_readiness_time_buckets",
        "log_external_ip",
        "log_internal_ip",
        "reservation_throttling",
        "scale_throttle",
        "shutdown_deletion_interval",
        "shutdown_deletion_retries",
        "state_storage",
        "vm_isolation",
    }
)
_ALWAYS = "* * * * *"


def _duration(value: timedelta) -> Duration:
    return Duration(seconds=value.total_seconds())


class PolicyConfig(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """`[[autoscaler.policy]]`: how much capacity to keep beyond what is in use.

    Attributes:
        periods: when the policy holds; this version knows "always" only.
        idle_count: free slots, not instances, to keep at any time.
        idle_time: how long an instance may be unused before it may be removed.
        scale_factor: further free slots, as a factor of the slots in use.
        scale_factor_limit: the most that the factor may yield, in slots; 0 is no limit.
        preemptive_mode: whether a reservation needs a slot that is free now; by
            default just when `idle_count` is above 0.
    """

    periods: list[str] = msgspec.field(default_factory=lambda: [_ALWAYS])
    idle_count: int = 0
    idle_time: Duration = Duration(0)
    scale_factor: float = 0.0
    scale_factor_limit: int = 0
    preemptive_mode: bool | None = None

    def policy(self) -> Policy:
        """Return the same as the scaler's value."""
        return Policy(
            idle_count=self.idle_count,
            idle_time=self.idle_time,
            scale_factor=self.scale_factor,
            scale_factor_limit=self.scale_factor_limit,
            preemptive_mode=self.preemptive_mode,
        )


class ExtensionsConfig(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """`[autoscaler.extensions]`: what GitLab has no key for.

    Attributes:
        placement: `pack` fills the fullest instance first, `spread` the emptiest.
        unknown_instances: `ignore`, `adopt` or `remove` what we did not ask for.
        creation_timeout: when an instance that is still being created is given up.
        instance_ready_timeout: how long one instance may take to become ready.
        missed_updates: after how many listings without it an instance is gone.
        backoff: the pause after a first failure to create; doubled with each further one.
        backoff_limit: the longest such pause.
        operation_timeout: how long one call of a provider may take.
        shutdown_timeout: how long the removal of the instances at the end may take.
    """

    placement: Placement = _DEFAULTS.placement
    unknown_instances: UnknownInstances = _DEFAULTS.unknown_instances
    creation_timeout: Duration = _duration(_DEFAULTS.creation_timeout)
    instance_ready_timeout: Duration = _duration(_DEFAULTS.instance_ready_timeout)
    missed_updates: int = _DEFAULTS.missed_updates
    backoff: Duration = _duration(_DEFAULTS.backoff)
    backoff_limit: Duration = _duration(_DEFAULTS.backoff_limit)
    operation_timeout: Duration = _duration(_DEFAULTS.operation_timeout)
    shutdown_timeout: Duration = _duration(_DEFAULTS.shutdown_timeout)


class AutoscalerConfig(
    GroupConfig, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """`[autoscaler]`; a key that is None was not written, and its reader has a default.

    Attributes:
        capacity_per_instance: slots on each instance.
        max_instances: over all states; 0 is no limit.
        max_use_count: tasks that an instance may run in its life; 0 is no limit.
        delete_instances_on_shutdown: whether the end of the scaler is that of its instances.
        instance_ready_command: run on each new instance; must succeed before it gets tasks.
        instance_acquire_timeout: how long a task waits for a slot.
        update_interval: how often the group is listed when nothing is expected of it.
        update_interval_when_expecting: how often when something is.
        deletion_retry_interval: when to ask again for a removal that had no effect.
        policy: at most one entry in this version.
        extensions: what GitLab has no key for.
    """

    capacity_per_instance: int = 1
    max_instances: int | None = None
    max_use_count: int = 0
    delete_instances_on_shutdown: bool | None = None
    instance_ready_command: str = ""
    instance_acquire_timeout: Duration = Duration(minutes=15)
    update_interval: Duration = _duration(_DEFAULTS.update_interval)
    update_interval_when_expecting: Duration | None = None
    deletion_retry_interval: Duration = _duration(_DEFAULTS.deletion_retry_interval)
    policy: list[PolicyConfig] = []  # noqa: RUF012 -- msgspec copies it
    extensions: ExtensionsConfig = ExtensionsConfig()

    def __repr__(self) -> str:
        """Show nothing of `plugin_config`, which may hold secrets."""
        return f"AutoscalerConfig(plugin={self.plugin!r}, ...)"

    def settings(self) -> Settings:
        """Return the same as the scaler's value, with GitLab's default for what was not written."""
        expecting = self.update_interval_when_expecting
        extensions = self.extensions
        return Settings(
            capacity_per_instance=self.capacity_per_instance,
            max_instances=self.max_instances or 0,
            max_use_count=self.max_use_count,
            policy=self.policy[0].policy() if self.policy else Policy(),
            placement=extensions.placement,
            unknown_instances=extensions.unknown_instances,
            instance_ready_command=self.instance_ready_command,
            instance_ready_timeout=extensions.instance_ready_timeout,
            update_interval=self.update_interval,
            update_interval_when_expecting=(
                _DEFAULTS.update_interval_when_expecting if expecting is None else expecting
            ),
            creation_timeout=extensions.creation_timeout,
            deletion_retry_interval=self.deletion_retry_interval,
            missed_updates=extensions.missed_updates,
            backoff=extensions.backoff,
            backoff_limit=extensions.backoff_limit,
            operation_timeout=extensions.operation_timeout,
            delete_instances_on_shutdown=bool(self.delete_instances_on_shutdown),
            shutdown_timeout=extensions.shutdown_timeout,
        )


def not_honoured(table: Mapping[str, Any], path: str) -> Iterator[str]:
    """Find the keys that GitLab's autoscaler honours and this version does not, yet.

    Args:
        table: as it stands in the file.
        path: of the table, for the messages; ends with a dot.
    """
    for key in table:
        if key in _LATER_KEYS:
            yield (
                f"{path}{key}: GitLab's autoscaler has this key, but this version does not honour "
                "it yet; remove it"
            )
    policies = table.get("policy")
    if not isinstance(policies, list):
        return
    entries = cast("list[Any]", policies)
    if len(entries) > 1:
        yield f"{path}policy: {len(entries)} entries, but this version honours one only; keep one"
    for index, entry in enumerate(entries):
        if isinstance(entry, dict):
            yield from _not_always(cast("dict[str, Any]", entry), f"{path}policy[{index}].")


def _not_always(policy: Mapping[str, Any], path: str) -> Iterator[str]:
    reason = (
        "a policy that holds at some times only is not honoured by this version yet; "
        f'remove the key, or write periods = ["{_ALWAYS}"]'
    )
    if "timezone" in policy:
        yield f"{path}timezone: {reason}"
    if policy.get("periods", [_ALWAYS]) != [_ALWAYS]:
        yield f"{path}periods: {reason}"


# The least that each key may be, and what to know about it.
_LEAST = {
    "capacity_per_instance": (1, "an instance without a slot is of no use"),
    "max_instances": (0, "0 means no limit"),
    "max_use_count": (0, "0 means no limit"),
    "idle_count": (0, "0 keeps no free slot"),
    "scale_factor": (0, "0 keeps no further free slot"),
    "scale_factor_limit": (0, "0 means no limit"),
    "missed_updates": (1, "1 takes the first listing without an instance as proof"),
}
# The most: tables as long as this are kept for each group, and a slip must not fill the memory.
_MOST = {"capacity_per_instance": 1_000_000}
# This may be nothing at all; any other length of time must be longer.
_MAY_BE_ZERO = frozenset({"idle_time"})


def out_of_range(config: msgspec.Struct, path: str) -> Iterator[str]:
    """Find the numbers and lengths of time that cannot be meant, at every depth.

    Args:
        config: an `AutoscalerConfig` or a part of one.
        path: of its table, for the messages; ends with a dot.
    """
    for name in config.__struct_fields__:
        value = getattr(config, name)
        if isinstance(value, msgspec.Struct):
            yield from out_of_range(value, f"{path}{name}.")
        elif isinstance(value, list):
            for index, item in enumerate(cast("list[Any]", value)):
                if isinstance(item, msgspec.Struct):
                    yield from out_of_range(item, f"{path}{name}[{index}].")
        elif problem := _problem(name, value):
            yield f"{path}{name}: {problem}"


def _problem(name: str, value: object) -> str | None:
    if isinstance(value, timedelta):
        shortest = timedelta(0)
        if value < shortest or (value == shortest and name not in _MAY_BE_ZERO):
            return f'{str(value)!r} is too short; write for instance "10s"'
    elif name == "protocol_port" and isinstance(value, int):
        if not 0 < value < 65536:  # noqa: PLR2004 -- the range of ports
            return f"{value} is no port; ports go from 1 to 65535"
    elif name in _LEAST and isinstance(value, int | float):
        least, hint = _LEAST[name]
        if not least <= value < math.inf:
            return f"{value} is not {least} or more; {hint}"
        if value > _MOST.get(name, math.inf):
            return f"{value} is more than {_MOST[name]}; write a smaller number"
    return None
