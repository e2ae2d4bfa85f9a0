"""Which policy is in force at a moment, and until when that is certain.

A period is a range of local time: it holds in each minute whose five fields match.
Each instant has exactly one local time in each zone. So a period in an hour that
daylight saving skips does not occur that day, and one in an hour that occurs twice
holds twice.

The minutes of a day in which an entry of the schedule holds are a number of 1440 bits,
so the next minute that differs is found by a shift. A look ahead ends at the local
midnight and at a change of the zone's offset, because only until there minutes of the
clock are minutes of time. Looking again there costs microseconds.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from datetime import tzinfo

    from taskscaler.core.model.settings import Period, Policy, ScheduledPolicy, Settings

__all__ = ("InForce", "in_force")

DAY = 24 * 60
MINUTE = timedelta(minutes=1)


class InForce(NamedTuple):
    """A policy, and for how long it is the one.

    Attributes:
        policy: the policy.
        since: the moment of the look; earlier moments may have had another policy.
        until: the moment to look again, at or before the next change of the policy.
    """

    policy: Policy
    since: datetime
    until: datetime


def in_force(settings: Settings, at: datetime) -> InForce:
    """Return the policy that is in force at a moment: the last entry that holds wins.

    Args:
        settings: with the schedule, and the policy that holds when no entry does.
        at: an aware time.
    """
    until = datetime.max.replace(tzinfo=UTC)
    minute = at.astimezone(UTC).replace(second=0, microsecond=0)
    # Entries before the one that wins cannot change the answer.
    for entry in reversed(settings.schedule):
        holds, certain = _look(entry, minute)
        until = min(until, certain)
        if holds:
            return InForce(entry.policy, at, until)
    return InForce(settings.policy, at, until)


def _look(entry: ScheduledPolicy, minute: datetime) -> tuple[bool, datetime]:
    """Return whether an entry holds in a minute in UTC, and until when that is certain."""
    local = minute.astimezone(entry.zone)
    inside = 0
    for period in entry.periods:
        if _has_day(period, local):
            inside |= period.minutes
    of_day = local.hour * 60 + local.minute
    holds = bool(inside >> of_day & 1)
    # One bit more than the day has, so that midnight always counts as a change.
    others = ~inside & (1 << DAY) - 1 if holds else inside
    ahead = (others | 1 << DAY) >> of_day
    minutes = (ahead & -ahead).bit_length() - 1
    return holds, minute + _steady(entry.zone, minute, minutes) * MINUTE


def _has_day(period: Period, local: datetime) -> bool:
    if not period.months >> local.month & 1:
        return False
    of_month = bool(period.days >> local.day & 1)
    of_week = bool(period.weekdays >> local.weekday() & 1)
    return of_month or of_week if period.either else of_month and of_week


def _steady(zone: tzinfo, minute: datetime, minutes: int) -> int:
    """Return how many of the next minutes pass before the offset of a zone changes."""
    offset = minute.astimezone(zone).utcoffset()
    same, other = 0, minutes
    if (minute + other * MINUTE).astimezone(zone).utcoffset() == offset:
        return minutes
    while other - same > 1:
        middle = (same + other) // 2
        if (minute + middle * MINUTE).astimezone(zone).utcoffset() == offset:
            same = middle
        else:
            other = middle
    return other
