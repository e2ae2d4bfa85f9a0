"""How far an increase that a group accepted has come: a function of its listings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleeting.types import State

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from fleeting.types import Accepted, Instance, Listing

__all__ = ("IncreaseProgress", "increase_progress")


@dataclass(frozen=True, slots=True)
class IncreaseProgress:
    """How far an accepted increase has come.

    Attributes:
        running: ids of new instances that run.
        failed: new instances that will never run.
        missing: how many are still expected.
        failures: why requests will not be fulfilled, as listings reported it.
    """

    running: tuple[str, ...]
    failed: tuple[Instance, ...]
    missing: int
    failures: tuple[str, ...] = ()


def increase_progress(
    before: Collection[str], accepted: Accepted, listing: Listing, failures: Sequence[str] = ()
) -> IncreaseProgress:
    """Return how far an increase has come, according to a listing.

    Args:
        before: the ids that existed before.
        accepted: the increase.
        listing: the listing.
        failures: those that earlier listings reported; a listing reports each only once.
    """
    ours = set(accepted.ids) if accepted.ids else None
    new = [
        one
        for one in listing.instances
        if one.id not in before and (ours is None or one.id in ours)
    ]
    running = tuple(sorted(one.id for one in new if one.state is State.RUNNING))
    failed = tuple(one for one in new if one.state in {State.FAILED, State.DELETING})
    reported = (*failures, *(str(one) for one in listing.failures))
    # A failure has no number: instances that are neither listed nor pending will not come.
    lost = len(failed)
    if reported and listing.pending == 0:
        lost = max(lost, accepted.count - len(new) + len(failed))
    missing = max(0, accepted.count - len(running) - lost)
    return IncreaseProgress(running, failed, missing, reported)
