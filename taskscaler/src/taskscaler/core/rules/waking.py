"""When to decide next: computed once at the end of every event, and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskscaler.core.model.agenda import CHANGED, CHECKED, EASED, SOON, TAKEN
from taskscaler.core.rules import removal, returning, suspension

if TYPE_CHECKING:
    from taskscaler.core.model.events import Now
    from taskscaler.core.model.fleet import Fleet
    from taskscaler.core.model.group import Group

__all__ = ("after_decision", "after_event")

NEVER = float("inf")

# Decisions that no task waits for are taken together, at most this often, in seconds.
LEISURE_SECONDS = 0.1

# A wall clock that lags behind the monotonic one is looked at again after this, in seconds.
LAG_SECONDS = 0.1


def after_event(fleet: Fleet, now: Now) -> float:
    """Return when an event makes a decision necessary, in monotonic seconds.

    The news comes from the parts of the model. Several pieces of news are served by one
    decision at the earliest of their times.
    """
    news = fleet.agenda.news
    if news & CHANGED:
        return now.monotonic
    at = NEVER
    leisure = fleet.decided_at + LEISURE_SECONDS
    # A slot that one task hands on to the next leaves the idle capacity as it was.
    taken = news & TAKEN and not news & EASED
    # An old instance may go as soon as its free slots are used, or not promised any more.
    if news & SOON or (taken and fleet.keeps_idle) or fleet.outgoing:
        at = max(now.monotonic, leisure)
    if news & EASED:
        for group in fleet.groups:
            # The protection of a closed instance may have ended.
            since = float("-inf") if group.idle.closed else group.idle.bound()
            if since is not None:
                at = min(at, max(since + fleet.idle_seconds, leisure, now.monotonic))
    if news & CHECKED:
        for group in fleet.groups:
            at = min(at, max(group.checks.next_at(fleet.settings), now.monotonic))
    return at


def after_decision(fleet: Fleet, now: Now) -> float:
    """Return when the next decision is due if nothing happens before, in monotonic seconds."""
    if any(group.listing.digestion for group in fleet.groups):
        return now.monotonic
    at = suspension.next_expiry(fleet, now)
    if not fleet.closing:
        at = min(at, fleet.grow_at, returning.next_at(fleet, now))
        if fleet.scheduled:
            left = (fleet.until - now.wall).total_seconds()
            at = min(at, now.monotonic + max(left, LAG_SECONDS))
    return min(at, *(_group_at(fleet, group, now) for group in fleet.groups))


def _group_at(fleet: Fleet, group: Group, now: Now) -> float:
    """Return when one group needs a decision: the earliest time that a part asks for."""
    settings = fleet.settings
    return min(
        group.listing.next_at(),
        group.creations.next_at(now.monotonic, settings),
        group.removals.next_at(),
        # Instances that became ready together are due one after the other.
        max(group.checks.next_at(settings), now.monotonic + LEISURE_SECONDS),
        group.suspensions.next_at(now.monotonic),
        removal.next_age(fleet, group, now),
        _idle_at(fleet, group, now),
    )


def _idle_at(fleet: Fleet, group: Group, now: Now) -> float:
    idle = group.idle.first()
    if idle is None:
        return NEVER
    expiry = idle.idle_since + fleet.idle_seconds
    if expiry <= now.monotonic:
        # It is kept because it is needed, or was needed lately. The end of a present need is
        # an event, and leads to a decision anyway.
        expiry = _unneeded_at(fleet, idle.available)
    return expiry if expiry > now.monotonic else NEVER


def _unneeded_at(fleet: Fleet, slots: int) -> float:
    """Return when so many slots were not needed for `idle_time`, if the load stays as it is."""
    kept = fleet.free - slots + sum(group.slots.acquired for group in fleet.groups)
    ended = fleet.load.fell_at(lambda level: fleet.needed(level) <= kept)
    return NEVER if ended is None else ended + fleet.idle_seconds
