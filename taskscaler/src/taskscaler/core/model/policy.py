"""Which policy is in force at a moment, and until when that is certain.

A period is a range of local time: it holds in each minute whose five fields
match. So no instant is ever skipped or met twice: each has one local time in
each zone, and a period in an hour that daylight saving leaves out does not come
that day, while one in an hour that comes twice holds twice.

How long the answer stays certain is found without trying the minutes one by
one. The minutes of a day in which an entry of the schedule holds are a number of
1440 bits, and the next minute that differs is a shift away. No look goes beyond
the local midnight, nor beyond a change of the zone's offset, because that far
minutes of the clock are minutes of time. Another look there costs microseconds.
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
        policy: the one that holds.
        since: the moment at which that was found out; nothing is said about earlier ones.
        until: from then on it has to be found out again. That may be before the policy
            really changes, never after.
    """

    policy: Policy
    since: datetime
    until: datetime


def in_force(settings: Settings, at: datetime) -> InForce:
    """Return the policy that is in force at a moment: the last entry that holds wins.

    Args:
        settings: where no entry of their schedule holds, their `policy` does.
        at: aware.
    """
    until = datetime.max.replace(tzinfo=UTC)
    minute = at.astimezone(UTC).replace(second=0, microsecond=0)
    # What comes before the entry that wins cannot change anything.
    for entry in reversed(settings.schedule):
        holds, certain = _look(entry, minute)
        until = min(until, certain)
        if holds:
            return InForce(entry.policy, at, until)
    return InForce(settings.policy, at, until)


def _look(entry: ScheduledPolicy, minute: datetime) -> tuple[bool, datetime]:
    """Return whether an entry holds in a minute, given in UTC, and until when it stays so."""
    local = minute.astimezone(entry.zone)
    inside = 0
    for period in entry.periods:
        if _has_day(period, local):
            inside |= period.minutes
    of_day = local.hour * 60 + local.minute
    holds = bool(inside >> of_day & 1)
    # One bit more than the day has, so that midnight always is a change.
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
    """Return how many of the next minutes pass before the offset of a zone changes, if it does."""
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
