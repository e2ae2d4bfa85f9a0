"""One scaling decision: what to remove, what to create, and what is due.

A pass looks at each group once, adds up the demand once, and makes at most one call of
each kind to each group, however many events came since the last pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskscaler.core.rules import (
    growth,
    health,
    listings,
    placing,
    preparing,
    removal,
    returning,
    suspension,
)

if TYPE_CHECKING:
    from taskscaler.core.model import events
    from taskscaler.core.model.effects import Outbox
    from taskscaler.core.model.events import Now
    from taskscaler.core.model.fleet import Fleet

__all__ = ("time_passed",)


def time_passed(fleet: Fleet, event: events.TimePassed, now: Now, out: Outbox) -> None:
    """Take the decisions that depend on time."""
    del event
    for group in fleet.groups:
        listings.digest(fleet, group, now, out)
    if any(group.listing.digestion for group in fleet.groups):
        # Half a listing could lead to a wrong decision.
        placing.place(fleet, now, out)
        return
    fleet.decided_at = now.monotonic
    suspension.expire(fleet, now, out)
    for group in fleet.groups:
        preparing.give_up_late(fleet, group, now, out)
        if fleet.removing:
            removal.clear(fleet, group, now, out)
        group.creations.cooldown.expire(now.monotonic)
    removal.age(fleet, now, out)
    if not fleet.closing:
        removal.enforce_limits(fleet, now, out)
    # Slots may have become free: by tasks that expired, or by another policy.
    placing.place(fleet, now, out)
    if not fleet.closing:
        returning.move(fleet, now, out)
    demand = fleet.demand()
    if not fleet.closing:
        # Removal does not look at growth, nor the other way round: by the formulas of the
        # demand, there is never a shortfall and a surplus at once.
        removal.shrink(fleet, demand, now, out)
        removal.expire_protection(fleet, now, out)
        growth.grow(fleet, demand, now, out)
    for group in fleet.groups:
        health.check(fleet, group, now, out)
        suspension.request(fleet, group, now, out)
        group.creations.store_pauses(now, out)
        removal.request(fleet, group, demand, now, out)
        listings.request(fleet, group, now, out)
