"""The state of each task: reservations, the queue, the slots that tasks hold."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from taskscaler.core.model.agenda import CHANGED, EASED, SOON

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskscaler.core.model.agenda import Agenda
    from taskscaler.core.model.group import Group
    from taskscaler.core.model.instance import TrackedInstance

__all__ = ("TaskBook",)


class TaskBook:
    """The state of each task. A key is in one of the four collections at most.

    Args:
        agenda: learns of changes.

    Attributes:
        reserved: keys with a reservation that is not used yet.
        older: those of them that existed when idle instances were closed (`rules/removal.py`).
        waiting: keys that wait for a slot, the next to be served first.
        held: keys that hold a slot, or held one on an instance that was lost.
        suspended: keys that are suspended, the longest suspended first.
        resuming: those of them that wait to be resumed.
    """

    __slots__ = (
        "_agenda",
        "held",
        "older",
        "reserved",
        "resuming",
        "suspended",
        "waiting",
    )

    def __init__(self, agenda: Agenda) -> None:
        self.reserved: set[str] = set()
        self.older: set[str] = set()
        # Not a dict: to find its first key can mean to pass all the deleted ones before it.
        self.waiting: OrderedDict[str, None] = OrderedDict()
        self.held: dict[str, tuple[Group, TrackedInstance]] = {}
        self.suspended: dict[str, tuple[Group, TrackedInstance]] = {}
        self.resuming: set[str] = set()
        self._agenda = agenda

    def __contains__(self, key: str) -> bool:
        return (
            key in self.reserved or key in self.waiting or key in self.held or key in self.suspended
        )

    # Reservations.

    def reserve(self, key: str) -> None:
        """Add a reservation."""
        self.reserved.add(key)

    def unreserve(self, key: str) -> None:
        """Forget a reservation that no task will use."""
        self.reserved.remove(key)
        self.older.discard(key)
        self._agenda.news |= EASED

    def use_reservation(self, key: str) -> None:
        """Forget a reservation whose task asks now."""
        self.reserved.remove(key)
        if key in self.older:
            # Nothing may protect the closed instances any more.
            self.older.discard(key)
            self._agenda.news |= SOON

    def close_to_new(self) -> None:
        """Idle instances are closed now: all reservations so far are the older ones."""
        self.older = set(self.reserved)

    # The queue: first come, first served.

    def place(self, key: str) -> int | None:
        """Return the place of a key in the queue, 1 for the next; None if it does not wait."""
        if key not in self.waiting:
            return None
        return next(place for place, one in enumerate(self.waiting, 1) if one == key)

    def wait(self, key: str) -> None:
        """Put a task at the end of the queue."""
        self.waiting[key] = None
        self._agenda.news |= CHANGED

    def wait_again(self, keys: Sequence[str]) -> None:
        """Put tasks back at the front of the queue whose slots were lost before they knew."""
        for key in reversed(keys):
            del self.held[key]
            self.waiting[key] = None
            self.waiting.move_to_end(key, last=False)
            self._agenda.news |= CHANGED

    def cancel(self, key: str) -> None:
        """Remove a task from the queue."""
        del self.waiting[key]
        self._agenda.news |= EASED

    def take_next(self) -> str:
        """Remove the first task from the queue and return its key; there must be one."""
        return self.waiting.popitem(last=False)[0]

    # Slots.

    def hold(self, key: str, group: Group, instance: TrackedInstance) -> None:
        """Record that a task holds a slot."""
        self.held[key] = (group, instance)

    def release(self, key: str) -> tuple[Group, TrackedInstance] | None:
        """Forget which slot a task holds, and return that; None if it holds none."""
        return self.held.pop(key, None)

    def holds(self, key: str) -> bool:
        """Return whether a task holds a slot that was not lost with its instance."""
        held = self.held.get(key)
        return held is not None and key in held[1].tasks

    # Suspended tasks.

    def suspend(self, key: str, group: Group, instance: TrackedInstance) -> None:
        """Record that a task is suspended."""
        self.held.pop(key, None)
        self.suspended[key] = (group, instance)

    def sort_suspended(self) -> None:
        """Put the suspended tasks in order, the longest suspended first."""
        kept = self.suspended
        for key in sorted(kept, key=lambda one: (kept[one][1].suspended[one].began, one)):
            kept[key] = kept.pop(key)

    def resume(self, key: str) -> None:
        """Record that a suspended task waits to be resumed."""
        self.resuming.add(key)
        self._agenda.news |= CHANGED

    def stay_suspended(self, key: str) -> None:
        """Record that a suspended task does not wait to be resumed any more."""
        self.resuming.discard(key)
        self._agenda.news |= CHANGED

    def forget_suspended(self, key: str) -> bool:
        """Forget a suspended task, and return whether it waited to be resumed."""
        del self.suspended[key]
        resuming = key in self.resuming
        self.resuming.discard(key)
        return resuming
