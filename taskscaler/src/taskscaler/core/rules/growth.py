"""When to grow, by how much, and in which group.

Groups are filled in the order of preference; those without capacity or quota come
last. A group passes on to the next one what it cannot create soon: because it is
full, pauses after failures, or does not answer. For some things it is better to
wait: for the answer to an earlier request, which may bring enough, or for the end of
the interval in which requests are collected.

Instances that were requested and are overdue are not requested from the same group
again, but the other groups are asked for them, and come first. So a lost reply, or a
cloud that intends to create instances for ever, delays tasks and does not stop them.
After a lost reply perhaps nothing was created, so the same group may be asked again as
well. The limits count such instances all the time.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from fleeting.types import Duration
from taskscaler._errors import IllegalEvent
from taskscaler.core.model.creations import patience
from taskscaler.core.model.decisions import PASSING, Clamp, Decision, Rule
from taskscaler.core.model.effects import Decided, Increase
from taskscaler.core.model.lifecycle import Phase
from taskscaler.core.model.operations import Operation
from taskscaler.core.model.wording import counted
from taskscaler.core.rules import returning

if TYPE_CHECKING:
    from taskscaler.core.model import events
    from taskscaler.core.model.demand import Demand
    from taskscaler.core.model.effects import Outbox
    from taskscaler.core.model.events import Now
    from taskscaler.core.model.fleet import Fleet
    from taskscaler.core.model.group import Group
    from taskscaler.core.model.settings import Settings

__all__ = ("grow", "increased", "replaceable", "told")

NEVER = float("inf")


class _Hold(NamedTuple):
    """A reason why a group gets fewer instances than wanted.

    Attributes:
        clamp: the kind.
        why: the same, human-readable.
        until: when it ends by itself, in monotonic seconds; when the token bucket has
            tokens again, only the bucket knows.
        waits: whether the rest is kept for this group rather than passed on.
    """

    clamp: Clamp | None = None
    why: str = ""
    until: float = NEVER
    waits: bool = False


def grow(fleet: Fleet, demand: Demand, now: Now, out: Outbox) -> None:
    """Request the missing instances, and report what is held back.

    Args:
        fleet: with the groups.
        demand: the inputs, as they were before anything was removed.
        now: the time.
        out: takes the requests.
    """
    if fleet.refusing:
        # No task will come for idle capacity.
        demand = msgspec.structs.replace(demand, target=0)
    decisions = _request(fleet, demand, now, out)
    _return(fleet, demand, now, out)
    fleet.blocked = tuple(one for one in decisions if one.clamped_by)
    # A demand that is held back is reported once, not with every decision.
    held = [one for one in fleet.blocked if not (one.decided or one.clamp in PASSING)]
    for decision in held:
        if decision.kind not in fleet.reported:
            out.add(Decided(decision))
    fleet.reported = frozenset(one.kind for one in held)


def _request(fleet: Fleet, demand: Demand, now: Now, out: Outbox) -> list[Decision]:
    """Request instances group by group; return a decision for each group that was considered."""
    decisions: list[Decision] = []
    fleet.grow_at = NEVER
    rest, room = demand.wanted, demand.room
    if not rest:  # As nearly always.
        return decisions
    rule = _rule(demand)
    # Sorting is stable: among groups that are passed over, the order of preference holds too.
    order = sorted(
        fleet.groups, key=lambda one: one.creations.reluctance(now.monotonic, fleet.settings)
    )
    for group in order:
        # A group that gets everything, or for which it is better to wait, ends the search.
        if not rest:
            break
        count, hold = _share(fleet, group, rest, room, now)
        decision = Decision(
            now.wall, group.name, rule, rest, count, hold.why, demand, clamp=hold.clamp
        )
        decisions.append(decision)
        if count:
            _increase(fleet, group, decision, now, out)
            rest -= count
            room = None if room is None else room - count
        until = fleet.bucket.ready_at(1) if hold.clamp is Clamp.THROTTLED else hold.until
        # A rounding error must not make it the same moment over and over.
        fleet.grow_at = min(fleet.grow_at, max(until, math.nextafter(now.monotonic, NEVER)))
        if hold.waits:
            break
    return decisions


def _rule(demand: Demand) -> Rule:
    """Return why instances are missing."""
    there = demand.free + demand.coming
    if demand.waiting > there:
        return Rule.TASKS_WAIT
    return Rule.ENDANGERED if demand.wanting > there else Rule.IDLE_CAPACITY


def _return(fleet: Fleet, demand: Demand, now: Now, out: Outbox) -> None:
    """Ask a preferred group for instances in place of those of later groups."""
    if demand.wanted:
        return
    found = returning.due(fleet, demand, now)
    if found is None:
        return
    group, wanted = found
    group.creations.returned_at = now.monotonic
    count, hold = _share(fleet, group, wanted, demand.room, now)
    if count:
        decision = Decision(
            now.wall, group.name, Rule.RETURN, wanted, count, hold.why, demand, clamp=hold.clamp
        )
        _increase(fleet, group, decision, now, out)


def _share(fleet: Fleet, group: Group, rest: int, room: int | None, now: Now) -> tuple[int, _Hold]:
    """Return how many of the rest this group gets, and why it does not get all."""
    settings = fleet.settings
    if room == 0:
        # No answer and no pause will change that, so this is the reason from the beginning.
        return 0, _Hold(Clamp.MAX_INSTANCES, "max_instances")
    hold = (
        _unanswered(group, settings, now) or _unlisted(group, settings, now) or _paused(group, now)
    )
    if hold is not None:
        return 0, hold
    count, hold = rest, _Hold()
    early = _collecting(group, settings, now)
    if early is not None and (spent := replaceable(group)) < count:
        count, hold = spent, early
    owed, why = _owed(fleet, group, now)
    if owed:
        count = max(0, count - owed)
        hold = _Hold(Clamp.OVERDUE, why)
    if group.creations.on_trial and (trial := max(0, 1 - group.coming)) < count:
        failures = counted(group.creations.backoff.failures, "failure")
        why = f"one instance at a time until one is ready, after {failures} in a row"
        count, hold = trial, _Hold(Clamp.TRIAL, f"{why}, the last: {group.creations.trouble}")
    # Each further limit can only lower the count, so the last one that did is the reason.
    if room is not None and room < count:
        count, hold = room, _Hold(Clamp.MAX_INSTANCES, "max_instances")
    size_limit = group.limit(settings)
    if size_limit is not None and size_limit - group.size < count:
        count = max(0, size_limit - group.size)
        hold = _Hold(Clamp.GROUP_LIMIT, f"the group's size of {size_limit}")
    tokens = fleet.bucket.available(now.monotonic)
    if tokens is not None and tokens < count:
        count = tokens
        why = f"the limit of {settings.throttle_limit:g} new instances per second"
        hold = _Hold(Clamp.THROTTLED, why, waits=True)
    return count, hold


def _owed(fleet: Fleet, group: Group, now: Now) -> tuple[int, str]:
    """Return how many instances the others do not count on and this group owes, and why."""
    if group.creations.doubted and (coming := fleet.dubious(group)):
        return (
            coming,
            f"{counted(coming, 'instance')} of an attempt after others never became ready",
        )
    settings = fleet.settings
    owed = group.creations.owed(now.monotonic, settings)
    limit = Duration(seconds=patience(settings.creation_timeout))
    return owed, f"{counted(owed, 'instance')}, requested more than {limit} ago and not seen yet"


def _unanswered(group: Group, settings: Settings, now: Now) -> _Hold | None:
    operations = group.creations.operations
    if not operations.unanswered:
        return None
    why = "an earlier request is not answered yet"
    return _impatient(Clamp.UNANSWERED, why, settings, operations.newest.asked, now)


def _unlisted(group: Group, settings: Settings, now: Now) -> _Hold | None:
    if group.listing.count:
        return None
    # A group that cannot be listed may be gone, so the others take the demand at once.
    if group.listing.backoff.failures:
        return _Hold(Clamp.NOT_LISTED, group.listing.backoff.reason)
    why = "it is not listed yet"
    return _impatient(Clamp.NOT_LISTED, why, settings, group.listing.requested_at, now)


def _impatient(clamp: Clamp, why: str, settings: Settings, since: float, now: Now) -> _Hold:
    """Wait for an answer, but not as long as the call may take: other groups may be faster."""
    until = since + patience(settings.operation_timeout)
    if until <= now.monotonic:
        return _Hold(clamp, why)
    return _Hold(clamp, why, until, waits=True)


def _paused(group: Group, now: Now) -> _Hold | None:
    backoff = group.creations.backoff
    if backoff.until > now.monotonic:
        pause = Duration(seconds=round(backoff.until - now.monotonic, 1))
        why = (
            f"a pause of {pause} after {counted(backoff.failures, 'failure')} in a row, "
            f"the last: {backoff.reason}"
        )
        return _Hold(Clamp.PAUSED, why, backoff.until)
    return None


def _collecting(group: Group, settings: Settings, now: Now) -> _Hold | None:
    """Wait, because tasks that come in quick succession are served by one request."""
    interval = settings.increase_interval.total_seconds()
    again_at = group.creations.requested_at + interval
    if again_at <= now.monotonic:
        return None
    why = f"the last request, less than {Duration(seconds=interval)} ago"
    return _Hold(Clamp.INTERVAL, why, again_at, waits=True)


def replaceable(group: Group) -> int:
    """Return how many used-up instances are replaced although a request was made just now.

    Instances that are used up quickly go together, and without this the group would be empty for
    most of each interval. So they are replaced when at least as many have gone as are left: a
    group of any size makes a few requests for that, and not one for each instance.
    """
    left = group.members.counts[Phase.READY] + group.coming
    return group.creations.spent if group.creations.spent >= left else 0


def _increase(fleet: Fleet, group: Group, decision: Decision, now: Now, out: Outbox) -> None:
    # After a restart, foreign instances that exist now must not be taken for the new ones.
    strangers = tuple(group.members.strangers)
    count = decision.decided
    operation = Operation(fleet.name_operation(), count, now.monotonic, now.wall, strangers)
    group.creations.request(operation, now.monotonic, out)
    fleet.bucket.take(count, now, out)
    timeout_seconds = fleet.settings.operation_timeout.total_seconds()
    out.add(Increase(group.name, count, operation.id, decision, timeout_seconds))


def increased(fleet: Fleet, event: events.IncreaseSettled, now: Now, out: Outbox) -> None:
    """A request was answered: expect what was accepted, and pause after a failure."""
    group = fleet.group(event.group)
    if event.operation not in group.creations.operations:
        raise IllegalEvent(f"operation {event.operation!r} is not open")
    # Instances that a listing has shown already are not waited for by their names.
    names = [id for id in event.accepted.ids if _may_come(group, id)]
    group.creations.settle(
        event.operation,
        event.accepted,
        names,
        now.monotonic,
        fleet.settings,
        out,
        unknown=event.unknown,
        told=event.told,
    )
    # New instances may be there already; the sooner they are seen, the sooner they serve.
    group.listing.hasten(now.monotonic)


def told(fleet: Fleet, event: events.OutcomeTold, now: Now, out: Outbox) -> None:
    """The provider told what came of a request of a previous process, or could not tell."""
    group = fleet.group(event.group)
    if event.operation in group.creations.operations:
        group.creations.told(event.operation, event.count, out)
        group.listing.hasten(now.monotonic)


def _may_come(group: Group, id: str) -> bool:
    # Static hosts reuse their ids: the old instance may still be in removal.
    instance = group.members.get(id)
    return instance is None or instance.phase is Phase.REMOVING
