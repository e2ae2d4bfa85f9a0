"""An instance as the core sees it, and the only ways its life can go.

    CREATING   asked for by us and listed, but not running yet
    PREPARING  runs; we are finding out whether it can be reached and is ready
    READY      takes tasks
    DRAINING   takes no further task, because it is to go; some still run
    SUSPENDING all its tasks are suspended; that it be stopped is to be asked for, or was
    SUSPENDED  stopped, with all that is on it, until one of its tasks is resumed
    RESUMING   that it be started again is to be asked for, or was
    REMOVING   nothing of ours runs there; its removal is to be asked for, or was
    FOREIGN    not ours: counted against the limits, otherwise left alone
    GONE       no longer listed, or lost; forgotten

What the cloud says (`fleeting.types.State`) is an input to this and never the
same thing: an instance that the cloud calls running is not ready, and one that
we are removing may be called running for a long time yet.

The table is the whole truth about transitions: `Instance.step` is the only
place that changes a life, and a trigger that the table does not allow is a bug.
"""

from __future__ import annotations

import enum
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fleeting.types import State
    from taskscaler.core.model.decisions import Rule

__all__ = ("TRANSITIONS", "Instance", "Life", "Suspension", "Trigger")


class Life(enum.Enum):
    """Where an instance is in its life; see the top of this file."""

    CREATING = "creating"
    PREPARING = "preparing"
    READY = "ready"
    DRAINING = "draining"
    SUSPENDING = "suspending"
    SUSPENDED = "suspended"
    RESUMING = "resuming"
    REMOVING = "removing"
    FOREIGN = "foreign"
    GONE = "gone"

    # Each step and each count looks something up by it, and an enum's own is slow.
    __hash__ = object.__hash__


class Trigger(enum.Enum):
    """What moves an instance on."""

    RUNS = "the cloud says that it runs"
    PREPARED = "it was reached and proved ready"
    RETIRED = "it is to go, and tasks still run on it"
    STOPS = "its tasks are suspended, and nothing runs on it"
    STOPPED = "the cloud says that it is suspended"
    WAKES = "one of its tasks is resumed"
    CONDEMNED = "it is to go, and nothing runs on it"
    VANISHED = "it is no longer listed, or the cloud takes it away"


TRANSITIONS: Mapping[Life, Mapping[Trigger, Life]] = {
    Life.CREATING: {
        Trigger.RUNS: Life.PREPARING,
        Trigger.STOPPED: Life.SUSPENDED,
        Trigger.CONDEMNED: Life.REMOVING,
        Trigger.VANISHED: Life.GONE,
    },
    Life.PREPARING: {
        Trigger.PREPARED: Life.READY,
        Trigger.STOPS: Life.SUSPENDING,
        Trigger.CONDEMNED: Life.REMOVING,
        Trigger.VANISHED: Life.GONE,
    },
    Life.READY: {
        Trigger.RETIRED: Life.DRAINING,
        Trigger.STOPS: Life.SUSPENDING,
        Trigger.CONDEMNED: Life.REMOVING,
        Trigger.VANISHED: Life.GONE,
    },
    Life.DRAINING: {
        Trigger.STOPS: Life.SUSPENDING,
        Trigger.CONDEMNED: Life.REMOVING,
        Trigger.VANISHED: Life.GONE,
    },
    Life.SUSPENDING: {
        Trigger.RUNS: Life.PREPARING,
        Trigger.STOPPED: Life.SUSPENDED,
        Trigger.CONDEMNED: Life.REMOVING,
        Trigger.VANISHED: Life.GONE,
    },
    Life.SUSPENDED: {
        Trigger.RUNS: Life.PREPARING,
        Trigger.WAKES: Life.RESUMING,
        Trigger.CONDEMNED: Life.REMOVING,
        Trigger.VANISHED: Life.GONE,
    },
    Life.RESUMING: {
        Trigger.RUNS: Life.PREPARING,
        Trigger.CONDEMNED: Life.REMOVING,
        Trigger.VANISHED: Life.GONE,
    },
    Life.REMOVING: {
        Trigger.VANISHED: Life.GONE,
    },
    Life.FOREIGN: {
        Trigger.CONDEMNED: Life.REMOVING,
        Trigger.VANISHED: Life.GONE,
    },
    Life.GONE: {},
}


class Suspension(msgspec.Struct, frozen=True, gc=False):
    """What is kept of a suspended task.

    Attributes:
        slot: the number of its slot.
        since: since when it is suspended.
        began: the same in monotonic seconds.
    """

    slot: int
    since: datetime
    began: float


class Instance:
    """One instance with its slots.

    Attributes:
        group: the id of its group.
        id: its own.
        number: counts up, so the smaller is the older; unique in its group.
        capacity: how many slots it has.
        uses_left: how many more tasks it may start; None if any number.
        incarnation: tells it from a later machine of the same id.
        life: changed by `step` alone.
        seen_at: when it was first listed, in monotonic seconds.
        created_at: the same as wall time, or earlier if an earlier life of the scaler saw it.
        born: the same in monotonic seconds.
        ready_at: when it first became ready, as wall time.
        used: how many tasks were started on it.
        tasks: the keys of the tasks that hold its slots.
        idle_since: since when no task runs, in monotonic seconds.
        missed: how many listings in a row were without it.
        rule: why it is to go; None as long as it is not.
        reason: the same in words.
        suspended: the keys of the tasks that are suspended on it; they keep their slots.
        proven_at: when it last showed that it works, in monotonic seconds.
        checked_at: when it was last checked, or proven, in monotonic seconds.
        checking: whether the outcome of a check is awaited.
        failures: how many checks in a row have failed; no task gets a slot meanwhile.
        unconfirmed: the keys of tasks that have a slot but do not know it yet, because
            the outcome of a check decides.
        ask_at: when to ask (again) for its removal, suspension or resumption, in
            monotonic seconds; None while an answer is awaited.
        asked: how often its removal was asked for.
        stop_at: not to be suspended before this moment, in monotonic seconds.
        state: what the cloud said last.
        mark: the number of the last listing that had it.
        buckets: in which buckets of the slot index it has an entry, as bits.
    """

    __slots__ = (
        "_free",
        "ask_at",
        "asked",
        "born",
        "buckets",
        "capacity",
        "checked_at",
        "checking",
        "created_at",
        "failures",
        "group",
        "id",
        "idle_since",
        "incarnation",
        "life",
        "mark",
        "missed",
        "number",
        "proven_at",
        "ready_at",
        "reason",
        "rule",
        "seen_at",
        "state",
        "stop_at",
        "suspended",
        "tasks",
        "unconfirmed",
        "used",
        "uses_left",
    )

    def __init__(
        self,
        group: str,
        id: str,
        *,
        number: int,
        capacity: int,
        uses_left: int | None,
        incarnation: str | None,
        state: State,
        life: Life,
        seen_at: float,
        created_at: datetime,
    ) -> None:
        self.group = group
        self.id = id
        self.number = number
        self.capacity = capacity
        self.uses_left = uses_left
        self.incarnation = incarnation
        self.state = state
        self.life = life
        self.seen_at = seen_at
        self.created_at = created_at
        self.ready_at: datetime | None = None
        self.used = 0
        self.tasks: dict[str, int] = {}
        self.idle_since = seen_at
        self.missed = 0
        self.rule: Rule | None = None
        self.reason = ""
        self.born = seen_at
        self.suspended: dict[str, Suspension] = {}
        self.proven_at = seen_at
        self.checked_at = seen_at
        self.checking = False
        self.failures = 0
        self.unconfirmed: dict[str, None] = {}
        self.ask_at: float | None = None
        self.asked = 0
        self.stop_at = 0.0
        self.mark = 0
        self.buckets = 0
        self._free = (1 << capacity) - 1

    def step(self, trigger: Trigger) -> None:
        """Move on in life.

        Raises:
            KeyError: the table does not allow it, which is a bug of the caller.
        """
        self.life = TRANSITIONS[self.life][trigger]

    @property
    def available(self) -> int:
        """Return how many tasks it could take now."""
        return self.open_slots if self.life is Life.READY and not self.failures else 0

    @property
    def open_slots(self) -> int:
        """Return how many slots nobody has, and may have, whether it works or not."""
        free = self.capacity - len(self.tasks) - len(self.suspended)
        return free if self.uses_left is None else min(free, self.uses_left)

    @property
    def vacant(self) -> bool:
        """Return whether no task runs or is suspended on it."""
        return not self.tasks and not self.suspended

    def acquire(self, key: str) -> int:
        """Give the lowest free slot to a task, and return its number, counted from 0."""
        slot = (self._free & -self._free).bit_length() - 1
        self._free &= self._free - 1
        self.tasks[key] = slot
        self.used += 1
        if self.uses_left is not None:
            self.uses_left -= 1
        return slot

    def release(self, key: str) -> None:
        """Take the slot back from a task. It counts as a use, unless the task did not know yet."""
        self._free |= 1 << self.tasks.pop(key)
        if key in self.unconfirmed:
            del self.unconfirmed[key]
            self.used -= 1
            if self.uses_left is not None:
                self.uses_left += 1

    def suspend(self, key: str, suspension: Suspension) -> None:
        """Let a task stop, or find it stopped by an earlier life; its slot stays taken."""
        self.tasks.pop(key, None)
        self.suspended[key] = suspension
        self._free &= ~(1 << suspension.slot)

    def go_on(self, key: str) -> int:
        """Let a suspended task run again, and return the number of its slot."""
        slot = self.suspended.pop(key).slot
        self.tasks[key] = slot
        return slot

    def drop(self, key: str) -> None:
        """Take the slot back from a suspended task."""
        self._free |= 1 << self.suspended.pop(key).slot
