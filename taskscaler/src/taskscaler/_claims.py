"""A task's claim to a slot, from asking for it to giving it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from taskscaler.core import effects

if TYPE_CHECKING:
    from taskscaler.core.effects import Refuse, Revoke

__all__ = ("Claim",)


class Claim:
    """A task that asks for a slot or holds one.

    Attributes:
        key: the task's.
        answered: set when the answer is there.
        grant: the slot; None if it is not granted.
        refusal: why there will be no slot; None if that is not known.
        lost: why the slot is lost; None as long as it is not.
        scope: what is cancelled when the slot is lost; set when the body begins.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.answered = anyio.Event()
        self.grant: effects.Grant | None = None
        self.refusal: str | None = None
        self.lost: str | None = None
        self.scope: anyio.CancelScope | None = None

    def deliver(self, effect: effects.Grant | Refuse | Revoke) -> None:
        """Take what the core says to this task."""
        if isinstance(effect, effects.Grant):
            self.grant = effect
            self.answered.set()
        elif isinstance(effect, effects.Refuse):
            self.abandon(effect.why)
        else:
            self.abandon(effect.cause)

    def abandon(self, why: str) -> None:
        """Refuse the slot, or take it away if it was granted."""
        if self.grant is None:
            self.refusal = why
        elif self.lost is None:
            self.lost = why
            if self.scope is not None:
                self.scope.cancel()
        self.answered.set()
