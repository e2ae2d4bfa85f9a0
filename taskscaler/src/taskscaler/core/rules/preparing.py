"""An instance that runs is made ready for tasks, or given up."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from fleeting.types import Duration
from taskscaler.core.model.decisions import Rule
from taskscaler.core.model.instance import Departure
from taskscaler.core.model.lifecycle import Phase
from taskscaler.core.rules import leaving, placing, suspension

if TYPE_CHECKING:
    from taskscaler.core.model import events
    from taskscaler.core.model.effects import Outbox
    from taskscaler.core.model.events import Now
    from taskscaler.core.model.fleet import Fleet
    from taskscaler.core.model.group import Group

__all__ = ("delayed", "give_up_late", "prepared", "unprepared")


def prepared(fleet: Fleet, event: events.InstancePrepared, now: Now, out: Outbox) -> None:
    """Let an instance take tasks; those that are suspended on it come first."""
    group = fleet.group(event.group)
    instance = group.members.get(event.id)
    if instance is None or instance.phase is not Phase.PREPARING:
        return  # The report crossed with the end of the instance.
    group.serve(instance, now, out)
    # Suspended tasks kept their slots, so they come before the queue.
    placing.resume_tasks(fleet, group, instance, out)
    leaving.settle(group, instance, now, out)
    placing.place(fleet, now, out)


def delayed(fleet: Fleet, event: events.InstanceDelayed, now: Now, out: Outbox) -> None:
    """Remember why an instance is not ready yet, and look at once whether it still exists."""
    del out
    group = fleet.group(event.group)
    instance = group.members.get(event.id)
    if instance is None or instance.phase is not Phase.PREPARING:
        return
    if group.obstacles.meet(instance.id, event.stage, event.reason, now.wall):
        group.listing.hasten(now.monotonic)


def unprepared(fleet: Fleet, event: events.PreparationFailed, now: Now, out: Outbox) -> None:
    """Remove an instance that could not be made ready, and pause.

    If the provider refused, such as for want of a permission, or the fault is on this computer,
    the next instance would fare no better. So the instance stays, nothing is added, and it is
    tried again after the pause. One that keeps suspended tasks is suspended again: their work is
    still there. One that was ready before this process began is like any that fails its checks:
    perhaps the network of this computer is down, and then all of them cannot be reached.
    """
    group = fleet.group(event.group)
    instance = group.members.get(event.id)
    if instance is None or instance.phase is not Phase.PREPARING:
        return
    reason = f"instance {instance.id} did not become ready: {event.reason}"
    if event.error is not None and instance.departure is None:
        # Nothing of the group is expected to become ready, so the other groups come first.
        limit = Duration(seconds=fleet.settings.backoff_limit.total_seconds())
        reason += f"; it is tried again after pauses that grow up to {limit}"
        group.creations.undelivered(
            reason, now.monotonic, fleet.settings, since=instance.seen_at, error=event.error
        )
        if not instance.suspended:
            pause_seconds = max(0.0, group.creations.backoff.until - now.monotonic)
            group.prepare_again(instance, fleet.settings, pause_seconds, out)
            return
    if instance.suspended:
        suspension.stay(fleet, group, instance, event.reason, now, out)
        return
    if instance.ready_at is not None:
        group.serve_sick(instance, event.reason, now)
        return
    departure = Departure(Rule.FAILED, event.reason)
    group.obstacles.give_up(instance.id)
    leaving.take_down(fleet, group, instance, departure, now, out)
    since = instance.seen_at
    group.creations.undelivered(reason, now.monotonic, fleet.settings, since=since)


def give_up_late(fleet: Fleet, group: Group, now: Now, out: Outbox) -> None:
    """Give up instances that should run by now and do not, according to the newest listing.

    While the group cannot be listed, nothing is known and nothing is given up. Instances
    that keep suspended tasks need not run: they may have been suspended by a previous
    process.
    """
    timeout = fleet.settings.creation_timeout.total_seconds()
    late = itertools.takewhile(
        # Compared with the listing, not with now: a listing leads to a decision anyway, so
        # nothing has to wake for it.
        lambda one: one.seen_at + timeout <= group.listing.arrived_at,
        group.members.creating.values(),  # The first is the oldest, so this stops early.
    )
    for instance in [one for one in late if not one.suspended]:
        reason = f"it did not run within {Duration(seconds=timeout)}"
        departure = Departure(Rule.FAILED, reason)
        leaving.take_down(fleet, group, instance, departure, now, out)
        what = f"instance {instance.id} was given up: {reason}"
        since = instance.seen_at
        group.creations.undelivered(what, now.monotonic, fleet.settings, since=since)
