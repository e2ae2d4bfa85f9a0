"""An instance as the core sees it, and the only ways its life can go.

    CREATING   asked for by us and listed, but not running yet
    PREPARING  runs; we are finding out whether it can be reached and is ready
    READY      takes tasks
    DRAINING   takes no further task, because it is used up or failed; some still run
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
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from fleeting.types import State
    from taskscaler.core.decisions import Rule

__all__ = ("TRANSITIONS", "Instance", "Life", "Trigger")


class Life(enum.Enum):
    """Where an instance is in its life; see the top of this file."""

    CREATING = "creating"
    PREPARING = "preparing"
    READY = "ready"
    DRAINING = "draining"
    REMOVING = "removing"
    FOREIGN = "foreign"
    GONE = "gone"


class Trigger(enum.Enum):
    """What moves an instance on."""

    RUNS = "the cloud says that it runs"
    PREPARED = "it was reached and proved ready"
    RETIRED = "it is to go, and tasks still run on it"
    CONDEMNED = "it is to go, and nothing runs on it"
    VANISHED = "it is no longer listed, or the cloud takes it away"


TRANSITIONS: Mapping[Life, Mapping[Trigger, Life]] = {
    Life.CREATING: {
        Trigger.RUNS: Life.PREPARING,
        Trigger.CONDEMNED: Life.REMOVING,
        Trigger.VANISHED: Life.GONE,
    },
    Life.PREPARING: {
        Trigger.PREPARED: Life.READY,
        Trigger.CONDEMNED: Life.REMOVING,
        Trigger.VANISHED: Life.GONE,
    },
    Life.READY: {
        Trigger.RETIRED: Life.DRAINING,
        Trigger.CONDEMNED: Life.REMOVING,
        Trigger.VANISHED: Life.GONE,
    },
    Life.DRAINING: {
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
        created_at: the same as wall time.
        ready_at: when it first became ready, as wall time.
        used: how many tasks were started on it.
        tasks: the keys of the tasks that hold its slots.
        idle_since: since when no task runs, in monotonic seconds.
        missed: how many listings in a row were without it.
        rule: why it is to go; None as long as it is not.
        reason: the same in words.
        ask_removal_at: when to ask (again) for its removal, in monotonic seconds;
            None while an answer is awaited.
        state: what the cloud said last.
        mark: the number of the last listing that had it.
        buckets: in which buckets of the slot index it has an entry, as bits.
        queued_idle: whether the queue of idle instances has an entry of it.
    """

    __slots__ = (
        "_free",
        "ask_removal_at",
        "buckets",
        "capacity",
        "created_at",
        "group",
        "id",
        "idle_since",
        "incarnation",
        "life",
        "mark",
        "missed",
        "number",
        "queued_idle",
        "ready_at",
        "reason",
        "rule",
        "seen_at",
        "state",
        "tasks",
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
        self.ask_removal_at: float | None = None
        self.mark = 0
        self.buckets = 0
        self.queued_idle = False
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
        if self.life is not Life.READY:
            return 0
        free = self.capacity - len(self.tasks)
        return free if self.uses_left is None else min(free, self.uses_left)

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
        """Take the slot back from a task."""
        self._free |= 1 << self.tasks.pop(key)
