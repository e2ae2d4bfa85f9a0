"""What is to be done: all that the core ever answers.

Effects are carried out in their order up to and including a `Persist`; what
follows one waits until it is committed. Each effect that takes time carries
its deadline, and its outcome comes back as an event.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from taskscaler.core.model.decisions import Decision
from taskscaler.core.model.records import Record

__all__ = (
    "CheckHealth",
    "Decided",
    "Decrease",
    "Effect",
    "Gone",
    "Grant",
    "Increase",
    "List",
    "Persist",
    "Prepare",
    "Refuse",
    "Resume",
    "Revoke",
    "Suspend",
    "WakeAt",
)


class Effect(msgspec.Struct, frozen=True, gc=False):
    """The base of all effects."""


class List(Effect, frozen=True, gc=False):
    """List a group; answered by `ListingArrived` or `ListingFailed`."""

    group: str
    timeout_seconds: float


class Increase(Effect, frozen=True, gc=False):
    """Ask a group for more instances; answered by `IncreaseSettled`."""

    group: str
    count: int
    operation: str
    decision: Decision
    timeout_seconds: float


class Decrease(Effect, frozen=True, gc=False):
    """Ask a group to remove instances; answered by `DecreaseSettled`.

    Attributes:
        decisions: one for each rule that some of them fell under.
    """

    group: str
    ids: tuple[str, ...]
    decisions: tuple[Decision, ...]
    timeout_seconds: float


class Prepare(Effect, frozen=True, gc=False):
    """Reach an instance and make it ready; answered by `InstancePrepared` or `PreparationFailed`.

    Attributes:
        command: run on it, unless empty; it is ready if the command succeeds.
    """

    group: str
    id: str
    command: str
    timeout_seconds: float


class CheckHealth(Effect, frozen=True, gc=False):
    """Find out whether an instance still works; answered by `HealthPassed` or `HealthFailed`.

    Attributes:
        cloud: whether to ask the provider too, besides the instance itself.
    """

    group: str
    id: str
    timeout_seconds: float
    cloud: bool


class Suspend(Effect, frozen=True, gc=False):
    """Ask a group to suspend instances; answered by `SuspendSettled`."""

    group: str
    ids: tuple[str, ...]
    timeout_seconds: float


class Resume(Effect, frozen=True, gc=False):
    """Ask a group to resume instances; answered by `ResumeSettled`."""

    group: str
    ids: tuple[str, ...]
    timeout_seconds: float


class Decided(Effect, frozen=True, gc=False):
    """A decision that leads to nothing for now, because something holds it back."""

    decision: Decision


class Grant(Effect, frozen=True, gc=False):
    """A task has its slot."""

    key: str
    group: str
    id: str
    slot: int


class Refuse(Effect, frozen=True, gc=False):
    """A task gets no slot, or no reservation, and is forgotten."""

    key: str
    why: str


class Revoke(Effect, frozen=True, gc=False):
    """A task lost its slot with the instance; unless it was suspended, it still has to release."""

    key: str
    id: str
    cause: str


class Persist(Effect, frozen=True, gc=False):
    """Commit this before anything that follows.

    Attributes:
        put: records to write, each replacing the one of the same key.
        drop: keys of records to forget.
    """

    put: tuple[Record, ...] = ()
    drop: tuple[tuple[str, str, str], ...] = ()


class WakeAt(Effect, frozen=True, gc=False):
    """Say `TimePassed` at this moment; replaces every earlier such wish.

    Attributes:
        monotonic: seconds on the clock of `Now`.
    """

    monotonic: float


class Gone(Effect, frozen=True, gc=False):
    """One of our instances is no more; this is the summary of its life.

    Attributes:
        group: the id of its group.
        id: its own.
        created_at: when it was first seen.
        ready_at: when it could first take a task; None if it never could.
        removed_at: when it was found gone.
        reason: why it was removed, or how it was lost.
        tasks: how many tasks were started on it.
    """

    group: str
    id: str
    created_at: datetime
    ready_at: datetime | None
    removed_at: datetime
    reason: str
    tasks: int
