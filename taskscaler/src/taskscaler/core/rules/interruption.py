"""An instance broke under a task, or the cloud announced that it takes the instance away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskscaler.core.model.decisions import Rule
from taskscaler.core.model.instance import Departure
from taskscaler.core.model.lifecycle import Phase
from taskscaler.core.rules import leaving, placing

if TYPE_CHECKING:
    from taskscaler.core.model import events
    from taskscaler.core.model.effects import Outbox
    from taskscaler.core.model.events import Now
    from taskscaler.core.model.fleet import Fleet

__all__ = ("broke", "interrupted")


def broke(fleet: Fleet, event: events.InstanceBroke, now: Now, out: Outbox) -> None:
    """Give an instance that failed under a task no other task."""
    group = fleet.group(event.group)
    instance = group.members.get(event.id)
    if instance is None or instance.phase is not Phase.READY:
        return  # It serves no more anyway, or the report is about an earlier start.
    departure = Departure(Rule.FAILED, event.reason)
    leaving.dismiss(fleet, group, instance, departure, now, out)
    placing.place(fleet, now, out)
    # The cloud may know more, which may concern the other tasks there.
    group.listing.hasten(now.monotonic)


def interrupted(fleet: Fleet, event: events.InterruptionAnnounced, now: Now, out: Outbox) -> None:
    """Dismiss an instance that will be taken away.

    Its tasks run on, and may end before the deadline. If that is so near that a new instance
    may take as long, one is requested for them at once.
    """
    group = fleet.group(event.group)
    instance = group.members.get(event.id)
    if instance is None:
        return
    # A foreign instance is not ours to remove, but the cloud may list something new.
    if instance.phase is not Phase.FOREIGN:
        departure = Departure(Rule.INTERRUPTED, event.reason)
        leaving.dismiss(fleet, group, instance, departure, now, out)
    timeout = fleet.settings.creation_timeout
    if instance.tasks and event.deadline is not None and event.deadline - now.wall <= timeout:
        group.endangered[instance.id] = instance
    placing.place(fleet, now, out)
    group.listing.hasten(now.monotonic)
