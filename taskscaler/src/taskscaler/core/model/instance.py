"""An instance as the core tracks it: its phase, its slots, its health."""

from __future__ import annotations

from datetime import datetime

import msgspec

from fleeting.types import State
from taskscaler.core.model.decisions import Rule
from taskscaler.core.model.lifecycle import Phase
from taskscaler.core.model.records import InstanceRecord

__all__ = ("Departure", "Health", "Suspension", "TrackedInstance")


class Departure(msgspec.Struct, frozen=True, gc=False):
    """Why an instance was dismissed.

    Attributes:
        rule: the rule that decided it.
        reason: the same as a human-readable sentence.
    """

    rule: Rule
    reason: str


class Suspension(msgspec.Struct, frozen=True, gc=False):
    """The slot that a suspended task keeps.

    Attributes:
        slot: the number of its slot.
        since: when it was suspended, as wall time.
        began: the same in monotonic seconds.
    """

    slot: int
    since: datetime
    began: float


class Health(msgspec.Struct, eq=False, gc=False):
    """Whether an instance works, as far as it is known. Written by `Checks` alone.

    Attributes:
        proven_at: when the instance last showed that it works, in monotonic seconds.
        checked_at: when its last check ended, in monotonic seconds.
        failing_since: when the first of the failed checks ended, in monotonic seconds.
        checking: whether the outcome of a check is awaited.
        failures: failed checks in a row; while there is one, no task gets a slot.
    """

    proven_at: float
    checked_at: float
    failing_since: float
    checking: bool = False
    failures: int = 0

    @property
    def seen_at(self) -> float:
        """Return when the instance was last checked or showed that it works."""
        return max(self.checked_at, self.proven_at)


class TrackedInstance(msgspec.Struct, eq=False, gc=False):
    """One instance with its slots.

    There may be a hundred thousand. None is ever part of a reference cycle, so the garbage
    collector does not look at them, nor at what holds nothing else.

    Attributes:
        group: the id of its group.
        id: its id in the group.
        number: counts up in the group, so a smaller number means an older instance.
        capacity: how many slots it has.
        max_uses: how many tasks may start on it; 0 for any number.
        incarnation: tells it from a later instance of the same id.
        phase: written by `Members` alone.
        stranger: whether it is not ours, also while it is being removed.
        departure: why it was dismissed; None if it was not.
        seen_at: when it was first listed, in monotonic seconds.
        created_at: the same as wall time, or earlier if a previous process saw it.
        born: `created_at` in monotonic seconds.
        ready_at: when it first became ready, as wall time.
        used: how many tasks were started on it.
        tasks: keys of the tasks that hold its slots, with the numbers of these.
        suspended: keys of the tasks that are suspended on it and keep their slots.
        unconfirmed: those of `tasks` that wait for the outcome of a check and have not been
            told about their slot.
        idle_since: when a task last had a slot, or the instance became ready, in monotonic
            seconds. A check, passed or failed, is not a use.
        health: whether it works, as far as is known.
        missed: how many listings in a row were without it.
        mark: the number of the last listing that had it.
        state: what the cloud said last.
        offered: how many tasks it can take, as the slot index knows it.
        buckets: in which buckets of the slot index it has an entry, as bits.
    """

    group: str
    id: str
    number: int
    capacity: int
    max_uses: int
    incarnation: str | None
    state: State
    phase: Phase
    seen_at: float
    created_at: datetime
    health: Health
    stranger: bool = False
    departure: Departure | None = None
    born: float = 0.0
    ready_at: datetime | None = None
    used: int = 0
    tasks: dict[str, int] = {}
    suspended: dict[str, Suspension] = {}
    unconfirmed: dict[str, None] = {}
    idle_since: float = 0.0
    missed: int = 0
    mark: int = 0
    offered: int = 0
    buckets: int = 0
    _free: int = 0

    def __post_init__(self) -> None:
        """Derive the rest from what is known at first."""
        self.stranger = self.phase is Phase.FOREIGN
        self.born = self.idle_since = self.seen_at
        # The numbers of free slots as bits: the lowest is found without a scan.
        self._free = (1 << self.capacity) - 1

    @property
    def available(self) -> int:
        """Return how many tasks it could take now."""
        return self.open_slots if self.usable and not self.health.failures else 0

    @property
    def usable(self) -> bool:
        """Return whether it serves, and the cloud does not leave open what it does."""
        return self.phase is Phase.READY and self.state is not State.UNKNOWN

    @property
    def open_slots(self) -> int:
        """Return how many slots are free and may still be used, healthy or not."""
        free = self.capacity - len(self.tasks) - len(self.suspended)
        return min(free, self.max_uses - self.used) if self.max_uses else free

    @property
    def used_up(self) -> bool:
        """Return whether no further task may start on it."""
        return 0 < self.max_uses <= self.used

    @property
    def vacant(self) -> bool:
        """Return whether no task runs or is suspended on it."""
        return not self.tasks and not self.suspended

    @property
    def record(self) -> InstanceRecord:
        """Return the part of it that must survive a restart."""
        return InstanceRecord(
            self.group,
            self.id,
            self.incarnation,
            self.created_at,
            self.used,
            tuple(self.tasks),
            self.departure.rule if self.departure else None,
            self.departure.reason if self.departure else "",
            self.ready_at,
            tuple((key, one.slot, one.since) for key, one in self.suspended.items())
            if self.suspended
            else (),
        )

    # Called by the slot index alone, which keeps its counts by it.

    def acquire(self, key: str) -> int:
        """Give the lowest free slot to a task, and return its number, counted from 0."""
        slot = (self._free & -self._free).bit_length() - 1
        self._free &= self._free - 1
        self.tasks[key] = slot
        self.used += 1
        return slot

    def release(self, key: str) -> None:
        """Take the slot back. It counts as a use only if the task was told about it."""
        self._free |= 1 << self.tasks.pop(key)
        if key in self.unconfirmed:
            del self.unconfirmed[key]
            self.used -= 1

    def suspend(self, key: str, suspension: Suspension) -> None:
        """Mark a task as suspended; its slot stays taken."""
        self.tasks.pop(key, None)
        self.suspended[key] = suspension
        self._free &= ~(1 << suspension.slot)

    def resume(self, key: str) -> int:
        """Mark a suspended task as running again, and return the number of its slot."""
        slot = self.suspended.pop(key).slot
        self.tasks[key] = slot
        return slot

    def drop(self, key: str) -> None:
        """Take the slot back from a suspended task."""
        self._free |= 1 << self.suspended.pop(key).slot
