"""Checks of single values that their types cannot express: durations, periods, zones, names."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import TYPE_CHECKING, cast

import msgspec

from fleeting import Problem
from fleeting.types import Severity
from taskscaler.config.autoscaler import ZERO_IS_DEFAULT, PolicyConfig, VmIsolationConfig
from taskscaler.config.periods import compile_period, find_zone
from taskscaler.core import LONGEST, MAY_BE_ZERO

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskscaler.core import Period

__all__ = ("out_of_range",)

# The durations that may be zero: those that the scaler takes as they are, and those of the file.
_MAY_BE_ZERO = frozenset(
    {
        *MAY_BE_ZERO,
        *ZERO_IS_DEFAULT,
        "idle_time",
        "instance_acquire_timeout",
        "keepalive",
        "timeout",
    }
)
_ID = re.compile(r"(?!\.+$)[A-Za-z0-9._-]{1,100}")


def out_of_range(config: msgspec.Struct, path: str) -> Iterator[Problem]:
    """Find the values that are out of range, at every depth.

    Args:
        config: an `AutoscalerConfig` or a part of one.
        path: the path of its table.
    """
    if isinstance(config, PolicyConfig):
        yield from _wrong_times(config, path)
    if isinstance(config, VmIsolationConfig) and config.enabled:
        yield Problem(
            f"{path}.enabled",
            "virtual machines on the instances are not supported; remove the table and set "
            "capacity_per_instance = 1 to isolate tasks from each other",
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
        zero = timedelta(0)
        if value < zero or (value == zero and name not in _MAY_BE_ZERO):
            bound = "at least" if name in _MAY_BE_ZERO else "more than"
            return f'must be {bound} 0s, got "{value}"; write for example "10s"'
        if value > LONGEST:
            return f'must be at most {LONGEST.days:,} days, got "{value}"'
    elif name == "id" and isinstance(value, str):
        if not _ID.fullmatch(value):
            return (
                f"{value[:100]!r} cannot name a state file; use up to 100 letters, digits, '.', "
                "'_' and '-', and not only dots"
            )
    elif isinstance(value, float) and math.isinf(value):
        return "must be a finite number"
    return None


def _moments(period: Period) -> str:
    """Return a warning if a period is only single minutes, as if cron started something then."""
    minutes = period.minutes
    if minutes & (minutes << 1):
        return ""  # There are two minutes in a row.
    times = minutes.bit_count()
    first = (minutes & -minutes).bit_length() - 1
    hour = first // 60
    often = f"the minute {hour}:{first % 60:02}" if times == 1 else f"{times} single minutes a day"
    return (
        f"is in force for {often} only, because a period is a range of time; for whole hours "
        f'write for example "* {hour}-{min(hour + 9, 23)} * * 1-5"'
    )


def _wrong_times(policy: PolicyConfig, path: str) -> Iterator[Problem]:
    if not policy.periods:
        yield Problem(
            f"{path}.periods",
            'a policy without a period is never in force; add one, or remove the key for "always"',
        )
    for index, text in enumerate(policy.periods):
        place = f"{path}.periods[{index}]"
        try:
            period = compile_period(text)
        except ValueError as error:
            yield Problem(place, str(error))
        else:
            if moments := _moments(period):
                yield Problem(place, f"{text!r} {moments}", Severity.WARNING)
    if policy.always and not policy.timezone:
        return  # The zone is not used then, and this computer's may be unknown.
    try:
        find_zone(policy.timezone)
    except ValueError as error:
        yield Problem(f"{path}.timezone", str(error))
