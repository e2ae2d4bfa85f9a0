"""What each value may be by itself: numbers, lengths of time, periods, zones, names."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import TYPE_CHECKING, cast

import msgspec

from fleeting import Problem
from taskscaler.config.autoscaler import (
    ZERO_IS_DEFAULT,
    PolicyConfig,
    VmIsolationConfig,
)
from taskscaler.config.periods import compile_period, find_zone

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("LEAST", "MOST", "out_of_range")

# The least that each key may be, and what to know about it.
LEAST = {
    "capacity_per_instance": (1, "an instance without a slot is of no use"),
    "max_instances": (0, "0 means no limit"),
    "max_use_count": (0, "0 means no limit"),
    "idle_count": (0, "0 keeps no free slot"),
    "scale_factor": (0, "0 keeps no further free slot"),
    "scale_factor_limit": (0, "0 means no limit"),
    "missed_updates": (1, "1 takes the first listing without an instance as proof"),
    "failure_threshold": (0, "0 means the default of 3"),
    "shutdown_deletion_retries": (0, "0 means the default of 3"),
    "limit": (-1, "-1 means no limit, and 0 the default"),
    "burst": (0, "0 means the default"),
}
# The most: tables as long as this are kept for each group, and a slip must not fill the memory.
MOST = {"capacity_per_instance": 1_000_000}
# These may be nothing at all; any other length of time must be longer.
_MAY_BE_ZERO = frozenset(
    {
        *ZERO_IS_DEFAULT,
        "cooldown",
        "heartbeat_interval",
        "idle_time",
        "increase_interval",
        "instance_acquire_timeout",
        "keepalive",
        "max_instance_age",
        "probe_after",
        "timeout",
    }
)
_PORTS = 65536
_ID = re.compile(r"(?!\.+$)[A-Za-z0-9._-]{1,100}")


def out_of_range(config: msgspec.Struct, path: str) -> Iterator[Problem]:
    """Find the values that cannot be meant, at every depth.

    Args:
        config: an `AutoscalerConfig` or a part of one.
        path: of its table, for the messages.
    """
    if isinstance(config, PolicyConfig):
        yield from _wrong_times(config, path)
    if isinstance(config, VmIsolationConfig) and config.enabled:
        yield Problem(
            f"{path}.enabled",
            "virtual machines on the instances are not supported, and without them tasks would "
            "share what is to be apart; remove the table and set capacity_per_instance = 1",
        )
    for name in config.__struct_fields__:
        value = getattr(config, name)
        below = f"{path}.{name}"
        if isinstance(value, msgspec.Struct):
            yield from out_of_range(value, below)
        elif isinstance(value, list):
            for index, item in enumerate(cast("list[object]", value)):
                if isinstance(item, msgspec.Struct):
                    yield from out_of_range(item, f"{below}[{index}]")
        elif text := _wrong(name, value):
            yield Problem(below, text)


def _wrong(name: str, value: object) -> str | None:
    if isinstance(value, timedelta):
        nothing = timedelta(0)
        if value < nothing or (value == nothing and name not in _MAY_BE_ZERO):
            return f'{str(value)!r} is too short; write for instance "10s"'
    elif name == "protocol_port" and isinstance(value, int):
        if not 0 <= value < _PORTS:
            return f"{value} is no port; ports go from 1 to 65535"
    elif name == "id" and isinstance(value, str):
        if not _ID.fullmatch(value):
            return (
                f"{value[:100]!r} is no name for a store; use up to 100 letters, digits, '.', '_' "
                "and '-', and not dots alone"
            )
    elif name in LEAST and isinstance(value, int | float):
        return _wrong_number(name, value)
    return None


def _wrong_number(name: str, value: float) -> str | None:
    least, hint = LEAST[name]
    if not least <= value < math.inf:
        return f"{value} is not {least} or more; {hint}"
    if value > MOST.get(name, math.inf):
        return f"{value} is more than {MOST[name]}; write a smaller number"
    return None


def _wrong_times(policy: PolicyConfig, path: str) -> Iterator[Problem]:
    if not policy.periods:
        yield Problem(
            f"{path}.periods",
            'a policy without a period never holds; write one, or remove the key for "always"',
        )
    for index, period in enumerate(policy.periods):
        try:
            compile_period(period)
        except ValueError as error:
            yield Problem(f"{path}.periods[{index}]", str(error))
    if policy.always and not policy.timezone:
        return  # Then nobody asks for this computer's zone, which may be unknown.
    try:
        find_zone(policy.timezone)
    except ValueError as error:
        yield Problem(f"{path}.timezone", str(error))
