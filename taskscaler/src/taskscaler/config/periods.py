"""The periods of a policy: cron expressions as ranges of time, and time zones.

An expression is read once, into sets of bits that are cheap to test. It may use the five
fields of unix cron and none of the extensions of other crons, so it means the same
everywhere.
"""

from __future__ import annotations

import re
import zoneinfo
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

from fleeting import nearest
from taskscaler.core import Period

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import tzinfo

__all__ = ("ALWAYS", "compile_period", "find_zone")

ALWAYS = "* * * * *"
_LOCAL = frozenset({"", "Local"})
_FIELDS = ("minute", "hour", "day of the month", "month", "day of the week")
_RANGES = (
    "0 to 59",
    "0 to 23",
    "1 to 31",
    "1 to 12 or JAN to DEC",
    "1 to 7 or MON to SUN (0 is Sunday, too)",
)
_OFFSET = re.compile(
    r"(?:UTC|GMT|Z)?\s*(?P<sign>[+-])\s*(?P<hours>\d{1,2})(?::?(?P<minutes>\d{2}))?", re.IGNORECASE
)
_SIDES = {"+": "east", "-": "west"}
# Windows' names, too, are names of several zones.
_ABBREVIATION = re.compile(r"[A-Za-z]{2,5}|.* Time", re.IGNORECASE)
_LONGEST = 1000
# Extensions of other crons: the last day, the nearest weekday, the n-th weekday, any.
_EXTENSION = (
    re.compile(r"(?!)"),
    re.compile(r"(?!)"),
    re.compile(r"[LW?]"),
    re.compile(r"(?!)"),
    re.compile(r"#|\dL|\bL|\?"),
)
# At the end of a range, Sunday is day 7 and not day 0.
_UNTIL_SUNDAY = re.compile(r"-SUN\b")


def compile_period(expression: str) -> Period:
    """Read a cron expression of five fields as a range of time.

    Raises:
        ValueError: the expression is invalid, or describes no moment; with a message for
            the operator.
    """
    from cronsim import CronSim, CronSimError

    fields = expression[:_LONGEST].upper().split()
    _check_form(expression, fields)
    fields[4] = _UNTIL_SUNDAY.sub("-7", fields[4])
    _check_fields(expression, fields)
    try:
        read = CronSim(" ".join(fields), datetime(2000, 1, 1, tzinfo=UTC))
    except CronSimError:  # Each field is valid, but no month has the day.
        raise ValueError(_never(expression)) from None
    return Period(
        expression=expression,
        minutes=_bits(60 * hour + minute for hour in read.hours for minute in read.minutes),
        days=_bits(read.days),
        months=_bits(read.months),
        weekdays=_bits((int(str(day)) - 1) % 7 for day in read.weekdays),
        either=not read.day_and,
    )


def _check_form(expression: str, fields: list[str]) -> None:
    if len(expression) > _LONGEST:
        raise ValueError(
            f"a period may have at most {_LONGEST} characters, got {len(expression)}; write "
            "several periods"
        )
    if expression.startswith("@"):
        raise ValueError(
            f'{expression!r} is not supported; write five fields, for example "* 8-17 * * 1-5"'
        )
    if len(fields) != len(_FIELDS):
        raise ValueError(
            f"{expression!r} has {len(fields)} fields; write five: minute, hour, day of the month, "
            'month and day of the week, for example "* 8-17 * * 1-5"'
        )


def _check_fields(expression: str, fields: list[str]) -> None:
    from cronsim import CronSim, CronSimError

    for index, (field, name, extension) in enumerate(zip(fields, _FIELDS, _EXTENSION, strict=True)):
        if extension.search(field):
            raise ValueError(
                f"{expression!r}: {field!r} as the {name} is an extension of other crons; write "
                f"numbers ({_RANGES[index]}), lists, ranges and steps"
            )
        alone = ["*"] * len(fields)
        alone[index] = field
        try:
            CronSim(" ".join(alone), datetime(2000, 1, 1, tzinfo=UTC))
        except (CronSimError, ValueError):  # Python itself refuses numbers of thousands of digits.
            raise ValueError(
                f"{expression!r}: {field!r} is not a valid {name}; write {_RANGES[index]}, a list "
                'such as "1,3", a range from the lower to the higher, or "*/2"'
            ) from None


def _never(expression: str) -> str:
    return (
        f"{expression!r} is never in force, because its months do not have that day; "
        "write a day that exists"
    )


def _bits(numbers: Iterable[int]) -> int:
    bits = 0
    for number in numbers:
        bits |= 1 << number
    return bits


def find_zone(name: str) -> tzinfo:
    """Return the zone with a name such as `Europe/Berlin`; empty or `Local` is this computer's.

    Raises:
        ValueError: the zone does not exist, or this computer's zone is unknown; with a
            message for the operator.
    """
    if name in _LOCAL:
        return _local_zone()
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        shown = name[:100]
        raise ValueError(f"the time zone {shown!r} does not exist; {_zone_hint(shown)}") from None


def _zone_hint(name: str) -> str:
    if offset := _OFFSET.fullmatch(name):
        hours = int(offset["hours"])
        # POSIX counts the hours to the west of Greenwich, so the sign is the other one.
        zone = f"Etc/GMT{'-' if offset['sign'] == '+' else '+'}{hours}"
        exact = not int(offset["minutes"] or 0) and zone in zoneinfo.available_timezones()
        side = _SIDES[offset["sign"]]
        at = f", or {zone!r} for {hours} hours {side} of UTC all year" if exact else ""
        return f"write the name of a region and a city{at}"
    if close := _nearest_zone(name):
        return f"did you mean {close!r}?"
    if _ABBREVIATION.fullmatch(name):
        return "write the name of a region and a city, which says when the clocks change"
    return 'write for example "Europe/Berlin"'


@cache
def _nearest_zone(name: str) -> str | None:
    """Return the zone that is meant; None if it could as well be one with another offset."""
    known = zoneinfo.available_timezones()
    # Operators also write the city alone.
    cities = {zone.rpartition("/")[2]: zone for zone in sorted(known)}
    wanted = name.replace(" ", "_")
    folded = {spelling.lower(): zone for spelling, zone in cities.items()}
    folded |= {zone.lower(): zone for zone in known}
    if exact := folded.get(wanted.lower()):
        return exact
    if _ABBREVIATION.fullmatch(name) or re.search(r"\d", name):
        return None
    if close := nearest(wanted.rpartition("/")[2], cities):
        return cities[close]
    return None


def _local_zone() -> tzinfo:
    import tzlocal

    try:
        return tzlocal.get_localzone()
    except (LookupError, OSError, ValueError):  # ZoneInfoNotFoundError is a LookupError.
        raise ValueError(
            "the time zone of this computer is unknown; write for example "
            'timezone = "Europe/Berlin"'
        ) from None
