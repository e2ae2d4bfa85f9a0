"""When to grow, by how much, and in which group.

Groups are filled in the order of preference, those that have no capacity or are
over their quota after all others. What a group cannot take is passed on to the
next one if it will not take it soon: because it is full, pauses after failures,
or does not answer. For what it will take in a moment it is waited: for the
answer to an earlier request, which may be all that is needed, or for the end of
the interval in which requests are collected.

What was asked for and is overdue is not expected of its group a second time,
but the others may be asked for it; so a reply that was lost, or a cloud that
means to create instances for ever, delays tasks and does not stop them. The
limits count such instances all the while.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from fleeting.types import Duration
from taskscaler.core.model.decisions import Clamp, Decision, Rule
from taskscaler.core.model.effects import Increase
from taskscaler.core.model.instance import Life
from taskscaler.core.model.operations import Operation
from taskscaler.core.rules import scaling

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from taskscaler.core.model.demand import Demand
    from taskscaler.core.model.events import Now
    from taskscaler.core.model.group import Group
    from taskscaler.core.model.outbox import Outbox
    from taskscaler.core.model.throttle import TokenBucket

__all__ = ("Growth", "grow", "review")

NEVER = float("inf")


class Growth(NamedTuple):
    """What came of one attempt to grow.

    Attributes:
        decisions: one for each group that it came to.
        again_at: when time alone will make another attempt worth while, in monotonic seconds.
    """

    decisions: tuple[Decision, ...]
    again_at: float


class _Hold(NamedTuple):
    """What holds a group back.

    Attributes:
        clamp: what it is.
        why: the same for people.
        until: when it is over by itself, in monotonic seconds; of the token bucket only
            the bucket knows.
        waits: whether the rest is kept for this group rather than passed on.
    """

    clamp: Clamp | None = None
    why: str = ""
    until: float = NEVER
    waits: bool = False


def review(group: Group, now: Now) -> None:
    """Find out how much of what was asked of a group is overdue, and end its cooldown in time."""
    patience = scaling.patience(group.settings.creation_timeout)
    overdue = group.operations.overdue(now.monotonic, patience)
    # What the cloud means to create and we have not asked for, at least not in this life.
    more = group.pending - group.operations.outstanding
    if more > 0 and group.pending_since + patience <= now.monotonic:
        overdue += more
    group.set_overdue(overdue)
    if group.cooldown.until <= now.monotonic:
        group.cooldown.end()


def grow(
    groups: Sequence[Group],
    demand: Demand,
    now: Now,
    out: Outbox,
    *,
    bucket: TokenBucket,
    name_operation: Callable[[], str],
) -> Growth:
    """Ask for the instances that are missing."""
    decisions: list[Decision] = []
    again_at = NEVER
    rest, room = demand.wanted, demand.room
    rule = Rule.TASKS_WAIT if demand.waiting > demand.free + demand.coming else Rule.IDLE_CAPACITY
    # Sorting is stable: among those that are passed over, the order of preference holds too.
    for group in sorted(groups, key=lambda one: one.cooldown.until > now.monotonic):
        if not rest:
            break
        count, hold = _share(group, rest, room, bucket, now)
        decision = Decision(
            now.wall, group.name, rule, rest, count, hold.why, demand, clamp=hold.clamp
        )
        decisions.append(decision)
        if count:
            operation = Operation(name_operation(), count, now.monotonic, now.wall)
            _increase(group, decision, operation, now, out)
            bucket.take(count, now.monotonic)
            rest -= count
            room = None if room is None else room - count
        until = bucket.ready_at(1) if hold.clamp is Clamp.THROTTLED else hold.until
        # Rounding must not make it the same moment for ever.
        again_at = min(again_at, max(until, math.nextafter(now.monotonic, NEVER)))
        if hold.waits:
            break
    return Growth(tuple(decisions), again_at)


def _share(
    group: Group, rest: int, room: int | None, bucket: TokenBucket, now: Now
) -> tuple[int, _Hold]:
    """Return how many of the rest this group gets, and what kept it from getting all."""
    hold = _unanswered(group, now) or _unlisted(group, now) or _paused(group, now)
    if hold is not None:
        return 0, hold
    count, hold = rest, _Hold()
    if group.overdue:
        count = max(0, count - group.overdue)
        patience = Duration(seconds=scaling.patience(group.settings.creation_timeout))
        why = f"{group.overdue} instances, asked for more than {patience} ago and not seen yet"
        hold = _Hold(Clamp.OVERDUE, why)
    if room is not None and room < count:
        count, hold = room, _Hold(Clamp.MAX_INSTANCES, "max_instances")
    if group.limit is not None and group.limit - group.size < count:
        count = max(0, group.limit - group.size)
        hold = _Hold(Clamp.GROUP_LIMIT, f"the group's size of {group.limit}")
    tokens = bucket.available(now.monotonic)
    if tokens is not None and tokens < count:
        count = tokens
        why = f"the limit of {group.settings.throttle_limit:g} new instances per second"
        hold = _Hold(Clamp.THROTTLED, why, waits=True)
    return count, hold


def _unanswered(group: Group, now: Now) -> _Hold | None:
    if not group.operations.unanswered:
        return None
    why = "an earlier request is not answered yet"
    return _impatient(Clamp.UNANSWERED, why, group, group.operations.newest.asked, now)


def _unlisted(group: Group, now: Now) -> _Hold | None:
    if group.listed:
        return None
    if group.listing_backoff.failures:
        return _Hold(Clamp.NOT_LISTED, group.listing_backoff.reason)
    return _impatient(Clamp.NOT_LISTED, "it is not listed yet", group, group.listing_since, now)


def _impatient(clamp: Clamp, why: str, group: Group, since: float, now: Now) -> _Hold:
    """Wait for an answer, but not for as long as the call may take."""
    until = since + scaling.patience(group.settings.operation_timeout)
    if until <= now.monotonic:
        return _Hold(clamp, why)
    return _Hold(clamp, why, until, waits=True)


def _paused(group: Group, now: Now) -> _Hold | None:
    if group.backoff.until > now.monotonic:
        pause = Duration(seconds=round(group.backoff.until - now.monotonic, 1))
        why = (
            f"a pause of {pause} after {group.backoff.failures} failures in a row, "
            f"the last: {group.backoff.reason}"
        )
        return _Hold(Clamp.PAUSED, why, group.backoff.until)
    interval = group.settings.increase_interval
    again_at = group.increased_at + interval.total_seconds()
    if again_at > now.monotonic:
        why = f"the last request, less than {Duration(seconds=interval.total_seconds())} ago"
        return _Hold(Clamp.INTERVAL, why, again_at, waits=True)
    return None


def _increase(
    group: Group, decision: Decision, operation: Operation, now: Now, out: Outbox
) -> None:
    # Stored before it is asked for, so that a restart knows what may have been created.
    if group.lives[Life.FOREIGN]:
        foreign = (one.id for one in group.instances.values() if one.life is Life.FOREIGN)
        operation.strangers = tuple(foreign)
    group.operations.add(operation)
    group.increased_at = now.monotonic
    group.store_operation(operation, out)
    timeout_seconds = group.settings.operation_timeout.total_seconds()
    out.add(Increase(group.name, decision.decided, operation.id, decision, timeout_seconds))
