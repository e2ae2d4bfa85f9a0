"""Claims: one for each task that waits for a slot or holds one.

A claim is plain state. The core runner delivers the core's answers to it, and the
task that made it (`taskscaler._slots`) waits for them. Nothing here awaits.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import anyio

from taskscaler.core import effects
from taskscaler.storage._abc import TaskEntry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from taskscaler.core import Grant, Refuse, Revoke

__all__ = ("Claim", "Claims")

# How many suspended tasks that lost their slots are remembered.
LOST_TASKS = 10_000


class Claim:
    """A task that waits for a slot or holds one.

    Attributes:
        key: the task's.
        resumed: whether it asks for the slot in which it was suspended.
        instance: the id of the instance of that slot; empty if it is not resumed.
        asked: when it asked, in the seconds of the event loop.
        asked_at: the same as wall time.
        granted_at: when it got its slot; None before.
        answered: set when the core has answered.
        ended: set when the claim has ended; None until someone waits for that.
        grant: the slot; None before it is granted.
        refusal: why there will be no slot; None if that is not known.
        lost: why the slot was lost; None if it was not.
        suspended: whether the slot is kept for the task when its body has ended.
        scope: cancelled when the slot is lost; None before the body begins.
        proved: whether the instance answered the task when it last used it.
    """

    # There may be tens of thousands of claims. An event is the largest part of one, so
    # `ended` is only created when it is needed.
    __slots__ = (
        "answered",
        "asked",
        "asked_at",
        "ended",
        "grant",
        "granted_at",
        "instance",
        "key",
        "lost",
        "proved",
        "refusal",
        "resumed",
        "scope",
        "suspended",
    )

    def __init__(self, key: str, *, resumed: bool = False) -> None:
        self.key = key
        self.resumed = resumed
        self.instance = ""
        self.asked = anyio.current_time()
        self.asked_at = datetime.now(UTC)
        self.granted_at: datetime | None = None
        self.answered = anyio.Event()
        self.ended: anyio.Event | None = None
        self.grant: Grant | None = None
        self.refusal: str | None = None
        self.lost: str | None = None
        self.suspended = False
        self.proved = False
        self.scope: anyio.CancelScope | None = None

    def asked_when(self, now: datetime) -> datetime:
        """Return when the task asked, by the wall clock of now, which may have been set since."""
        step = (now - self._now()).total_seconds()
        # Without a step, it is always the same: the clocks differ by less than a second.
        return self.asked_at + timedelta(seconds=round(step))

    def deliver(self, answer: Grant | Refuse | Revoke) -> None:
        """Record the core's answer and wake the task."""
        if isinstance(answer, effects.Grant):
            self.grant = answer
            self.granted_at = self._now()
            self.answered.set()
        elif isinstance(answer, effects.Refuse):
            self.abandon(answer.why)
        else:
            self.abandon(answer.cause)

    def abandon(self, why: str) -> None:
        """Refuse the slot, or revoke it if it was granted."""
        if self.grant is None:
            self.refusal = why
        elif self.lost is None:
            self.lost = why
            self._cancel()
        self.answered.set()

    def suspend(self) -> None:
        """Cancel the task's body, and keep the slot for the task."""
        self.suspended = True
        self._cancel()

    def entry(self, outcome: str | None = None, reason: str = "") -> TaskEntry:
        """Return the entry of the history for a claim that ends.

        Args:
            outcome: of a claim without a slot, if the claim itself does not tell.
            reason: human-readable, likewise.
        """
        if self.grant is None:
            outcome = outcome or ("cancelled" if self.refusal is None else "refused")
            reason = reason or self.refusal or ""
        elif self.lost is not None:
            outcome, reason = "lost", self.lost
        else:
            outcome = "suspended" if self.suspended else "released"
        return TaskEntry(
            self.key,
            self.asked_at,
            self.granted_at,
            self._now(),
            self.grant.group if self.grant else "",
            self.grant.id if self.grant else "",
            outcome,
            reason,
        )

    def _now(self) -> datetime:
        """Return the time, counted from the request: the wall clock may be set meanwhile."""
        return self.asked_at + timedelta(seconds=anyio.current_time() - self.asked)

    def _cancel(self) -> None:
        if self.scope is not None:
            self.scope.cancel()


class Claims:
    """All claims by key, and the suspended tasks that lost their slots."""

    def __init__(self) -> None:
        self._claims: dict[str, Claim] = {}
        self._lost: dict[str, Revoke] = {}

    def __iter__(self) -> Iterator[Claim]:
        return iter(tuple(self._claims.values()))

    def get(self, key: str) -> Claim | None:
        """Return the claim of a task."""
        return self._claims.get(key)

    def replace(self, key: str, claim: Claim | None) -> Claim | None:
        """Set or remove the claim of a task; return the one it had before."""
        previous = self._claims.pop(key, None)
        if claim is not None:
            self._claims[key] = claim
        return previous

    def addressee(self, answer: Grant | Refuse | Revoke) -> Claim | None:
        """Return the claim that an answer of the core is for.

        A suspended task has no claim. If its slot is revoked, that is remembered
        until it is resumed.
        """
        claim = self._claims.get(answer.key)
        if claim is None and isinstance(answer, effects.Revoke):
            self._lost[answer.key] = answer
            if len(self._lost) > LOST_TASKS:
                del self._lost[next(iter(self._lost))]
        return claim

    def take_loss(self, key: str) -> Revoke | None:
        """Return, once, why a suspended task lost its slot."""
        return self._lost.pop(key, None)

    def abandon(self, why: str) -> None:
        """Refuse or revoke the slots of all claims."""
        for claim in self:
            claim.abandon(why)
