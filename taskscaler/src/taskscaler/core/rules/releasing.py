"""A task gives its slot back, and the next one gets it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskscaler._errors import IllegalEvent
from taskscaler.core.rules import leaving, placing

if TYPE_CHECKING:
    from taskscaler.core.model import events
    from taskscaler.core.model.effects import Outbox
    from taskscaler.core.model.events import Now
    from taskscaler.core.model.fleet import Fleet

__all__ = ("released",)


def released(fleet: Fleet, event: events.TaskReleased, now: Now, out: Outbox) -> None:
    """Take a slot back, or the acknowledgement that it was lost."""
    key = event.key
    held = fleet.tasks.release(key)
    if held is None:
        raise IllegalEvent(f"task {key!r} holds no slot")
    group, instance = held
    if key not in instance.tasks:
        return  # The slot was lost with the instance before.
    group.release(instance, key, now.monotonic, proved=event.proved)
    leaving.settle(group, instance, now, out)
    out.put(instance.record)
    placing.place(fleet, now, out)
