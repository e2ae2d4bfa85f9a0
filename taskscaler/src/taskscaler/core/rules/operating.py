"""Commands for the whole scaler: apply other settings, drain, shut down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskscaler._errors import IllegalEvent
from taskscaler.core.model.effects import Refuse
from taskscaler.core.rules import placing

if TYPE_CHECKING:
    from taskscaler.core.model import events
    from taskscaler.core.model.effects import Outbox
    from taskscaler.core.model.events import Now
    from taskscaler.core.model.fleet import Fleet

__all__ = ("drain", "settings_changed", "shut_down")

# Instances and indexes are built for these.
_FIXED = ("capacity_per_instance", "max_use_count", "placement")


def settings_changed(fleet: Fleet, event: events.SettingsChanged, now: Now, out: Outbox) -> None:
    """Apply changed settings to everything that follows."""
    before = fleet.settings
    for name in _FIXED:
        if getattr(event.settings, name) != getattr(before, name):
            raise IllegalEvent(f"{name} cannot change while the scaler runs; restart it")
    rejudge = event.settings.unknown_instances is not before.unknown_instances
    fleet.configure(event.settings, now)
    for group in fleet.groups:
        # The next listing judges foreign instances again, so it comes at once.
        pause = 0.0 if rejudge else group.list_after(event.settings)
        group.listing.hasten(now.monotonic + pause)
        group.ownership.rejudge = group.ownership.rejudge or rejudge
    # Slots that were promised to reservations may be free for all tasks now.
    placing.place(fleet, now, out)


def drain(fleet: Fleet, event: events.DrainAsked, now: Now, out: Outbox) -> None:
    """Accept no new tasks; those that wait, are promised a slot or run go on."""
    del event, now, out
    fleet.refusing = fleet.refusing or "the scaler takes no new tasks, because it is drained"


def shut_down(fleet: Fleet, event: events.ShutdownAsked, now: Now, out: Outbox) -> None:
    """Accept no tasks, refuse those that wait, and remove all our instances if asked to."""
    fleet.close(remove=event.remove)
    placing.place(fleet, now, out)
    for key in sorted(fleet.tasks.resuming):
        out.add(Refuse(key, fleet.refusing))
        fleet.tasks.stay_suspended(key)
