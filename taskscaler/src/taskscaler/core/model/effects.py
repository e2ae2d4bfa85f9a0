"""The effects: things to do, and the only answers of the core.

Effects are carried out in their order. Those after a `Persist` wait until it is
committed. An effect that takes time carries its deadline, and its outcome comes
back as an event.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from taskscaler.core.model.decisions import Decision
from taskscaler.core.model.records import Record

__all__ = (
    "AskOutcome",
    "CheckHealth",
    "Decided",
    "Decrease",
    "Effect",
    "Gone",
    "Grant",
    "Increase",
    "List",
    "Outbox",
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
    """Request more instances of a group; answered by `IncreaseSettled`."""

    group: str
    count: int
    operation: str
    decision: Decision
    timeout_seconds: float


class AskOutcome(Effect, frozen=True, gc=False):
    """Ask what came of an increase that a previous process requested; answered by `OutcomeTold`.

    Attributes:
        count: how many instances it may still bring.
    """

    group: str
    operation: str
    count: int
    timeout_seconds: float


class Decrease(Effect, frozen=True, gc=False):
    """Request the removal of instances; answered by `DecreaseSettled`.

    Attributes:
        decisions: one for each rule that applies to some of them.
    """

    group: str
    ids: tuple[str, ...]
    decisions: tuple[Decision, ...]
    timeout_seconds: float


class Prepare(Effect, frozen=True, gc=False):
    """Connect to an instance and make it ready.

    Answered by `InstancePrepared` or `PreparationFailed`.

    Attributes:
        command: the instance is ready if this succeeds on it; empty for no command.
        timeout_seconds: how long that may take, after the pause.
        provider_seconds: how long the provider may take to tell how to connect.
        pause_seconds: how long to wait first.
    """

    group: str
    id: str
    command: str
    timeout_seconds: float
    provider_seconds: float
    pause_seconds: float = 0.0


class CheckHealth(Effect, frozen=True, gc=False):
    """Find out whether an instance works; answered by `HealthPassed` or `HealthFailed`.

    Attributes:
        cloud: whether to ask the provider in addition to the instance.
    """

    group: str
    id: str
    timeout_seconds: float
    cloud: bool


class Suspend(Effect, frozen=True, gc=False):
    """Request the suspension of instances; answered by `SuspendSettled`."""

    group: str
    ids: tuple[str, ...]
    timeout_seconds: float


class Resume(Effect, frozen=True, gc=False):
    """Request the resumption of instances; answered by `ResumeSettled`."""

    group: str
    ids: tuple[str, ...]
    timeout_seconds: float


class Decided(Effect, frozen=True, gc=False):
    """A decision that has no effect for now, because something holds it back."""

    decision: Decision


class Grant(Effect, frozen=True, gc=False):
    """A task has a slot."""

    key: str
    group: str
    id: str
    slot: int


class Refuse(Effect, frozen=True, gc=False):
    """A task gets no slot or no reservation, and is forgotten.

    A task that waits to be resumed stays suspended, unless its instance is lost.
    """

    key: str
    why: str


class Revoke(Effect, frozen=True, gc=False):
    """A task lost its slot with the instance. It has to release it, unless it was suspended."""

    key: str
    id: str
    cause: str


class Persist(Effect, frozen=True, gc=False):
    """Commit records before the effects that follow.

    Attributes:
        put: records to write, each replacing the one with the same key.
        drop: keys of records to delete.
    """

    put: tuple[Record, ...] = ()
    drop: tuple[tuple[str, str, str], ...] = ()


class WakeAt(Effect, frozen=True, gc=False):
    """Apply `TimePassed` at this moment; replaces all earlier such requests.

    Attributes:
        monotonic: seconds on the clock of `Now`.
    """

    monotonic: float


class Gone(Effect, frozen=True, gc=False):
    """One of our instances is gone; a summary of its life.

    Attributes:
        group: the id of its group.
        id: its id.
        created_at: when it was first seen.
        ready_at: when it could first take a task; None if it never could.
        removed_at: when it was found to be gone.
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


class Outbox:
    """Collects the effects of one event, and the records that change with it."""

    __slots__ = ("_drop", "_effects", "_put")

    def __init__(self) -> None:
        self._effects: list[Effect] = []
        self._put: dict[tuple[str, str, str], Record] = {}
        self._drop: dict[tuple[str, str, str], None] = {}

    def add(self, effect: Effect) -> None:
        """Append an effect."""
        self._effects.append(effect)

    def put(self, record: Record) -> None:
        """Store a record, in place of any earlier one with its key."""
        if self._drop:
            self._drop.pop(record.key, None)
        self._put[record.key] = record

    def drop(self, key: tuple[str, str, str]) -> None:
        """Delete the record with a key."""
        self._put.pop(key, None)
        self._drop[key] = None

    def finish(self) -> list[Effect]:
        """Return all effects in order, records first, and be empty again."""
        effects, self._effects = self._effects, []
        if self._put or self._drop:
            effects.insert(0, Persist(tuple(self._put.values()), tuple(self._drop)))
            self._put, self._drop = {}, {}
        return effects
