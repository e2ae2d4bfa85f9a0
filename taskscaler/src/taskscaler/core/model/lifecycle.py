"""The phases of an instance, and the only ways from one to the next.

    CREATING   requested by us and listed, but not running yet
    PREPARING  running; being connected to and made ready
    READY      takes tasks
    DRAINING   dismissed: takes no more tasks, and goes when those on it have ended
    SUSPENDING holds suspended tasks only; its suspension is due, or was requested
    SUSPENDED  stopped with everything on it, until one of its tasks is resumed
    RESUMING   its resumption is due, or was requested
    REMOVING   dismissed, and without tasks; its removal is due, or was requested
    FOREIGN    not ours: counts against the limits and is otherwise left alone
    GONE       no longer listed, or lost; forgotten

The cloud's own state (`fleeting.types.State`) is an input to this and never the
same thing. An instance that the cloud calls running need not be ready, and one
that we are removing may be called running for a long time.

One trigger, DISMISSED, says that an instance must go, whatever the reason. It is
defined for every phase but GONE. A ready instance drains from then on. In the other phases
no task can get a slot anyway, so the phase stays and only the reason is recorded.
The second trigger, CLEARED, follows when no task runs or is suspended on a
dismissed instance: at once, or after the last of them. An instance that was
dismissed while it was suspended may be needed once more by its suspended tasks: once
prepared, the trigger RETURNED moves it to DRAINING.

The table is complete: `Members.step` is the only code that changes a phase, and a
trigger that the table does not list raises `KeyError`, because it is a bug. Two
matters are separate, and never decide a phase by themselves: the requests to the
provider (`Requests`), and the health of an instance (`Checks`).
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("COMING", "SERVING", "TRANSITIONS", "Phase", "Trigger")


class Phase(enum.Enum):
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

    # Every step and every count looks a phase up; the hash of an enum is slow.
    __hash__ = object.__hash__


class Trigger(enum.Enum):
    """The causes that move an instance from one phase to the next."""

    RUNS = "the cloud reports it as running"
    PREPARED = "it was reached and proved ready"
    RETURNED = "it was reached and proved ready, but had been dismissed"
    DISMISSED = "it was dismissed"
    CLEARED = "it was dismissed, and no task is left on it"
    STOPS = "all its tasks are suspended"
    STOPPED = "the cloud reports it as suspended"
    WAKES = "one of its tasks is resumed"
    VANISHED = "it is no longer listed, or was lost"

    # As above.
    __hash__ = object.__hash__


TRANSITIONS: Mapping[Phase, Mapping[Trigger, Phase]] = {
    Phase.CREATING: {
        Trigger.RUNS: Phase.PREPARING,
        Trigger.STOPPED: Phase.SUSPENDED,
        Trigger.DISMISSED: Phase.CREATING,
        Trigger.CLEARED: Phase.REMOVING,
        Trigger.VANISHED: Phase.GONE,
    },
    Phase.PREPARING: {
        Trigger.PREPARED: Phase.READY,
        Trigger.RETURNED: Phase.DRAINING,
        Trigger.STOPS: Phase.SUSPENDING,
        Trigger.DISMISSED: Phase.PREPARING,
        Trigger.CLEARED: Phase.REMOVING,
        Trigger.VANISHED: Phase.GONE,
    },
    Phase.READY: {
        Trigger.STOPS: Phase.SUSPENDING,
        Trigger.DISMISSED: Phase.DRAINING,
        Trigger.VANISHED: Phase.GONE,
    },
    Phase.DRAINING: {
        Trigger.STOPS: Phase.SUSPENDING,
        Trigger.DISMISSED: Phase.DRAINING,
        Trigger.CLEARED: Phase.REMOVING,
        Trigger.VANISHED: Phase.GONE,
    },
    Phase.SUSPENDING: {
        Trigger.RUNS: Phase.PREPARING,
        Trigger.STOPPED: Phase.SUSPENDED,
        Trigger.DISMISSED: Phase.SUSPENDING,
        Trigger.CLEARED: Phase.REMOVING,
        Trigger.VANISHED: Phase.GONE,
    },
    Phase.SUSPENDED: {
        Trigger.RUNS: Phase.PREPARING,
        Trigger.WAKES: Phase.RESUMING,
        Trigger.DISMISSED: Phase.SUSPENDED,
        Trigger.CLEARED: Phase.REMOVING,
        Trigger.VANISHED: Phase.GONE,
    },
    Phase.RESUMING: {
        Trigger.RUNS: Phase.PREPARING,
        Trigger.DISMISSED: Phase.RESUMING,
        Trigger.CLEARED: Phase.REMOVING,
        Trigger.VANISHED: Phase.GONE,
    },
    Phase.REMOVING: {
        Trigger.DISMISSED: Phase.REMOVING,
        Trigger.VANISHED: Phase.GONE,
    },
    Phase.FOREIGN: {
        Trigger.DISMISSED: Phase.FOREIGN,
        Trigger.CLEARED: Phase.REMOVING,
        Trigger.VANISHED: Phase.GONE,
    },
    Phase.GONE: {},
}

# The phases in which tasks can run.
SERVING = frozenset({Phase.READY, Phase.DRAINING})

# The phases of an instance that is on its way to its first or next task.
COMING = frozenset({Phase.CREATING, Phase.PREPARING})
