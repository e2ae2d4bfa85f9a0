"""How far an increase that a group accepted has come: a function of its listings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleeting.types import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fleeting.types import Accepted, CreationFailure, Instance, Listing

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
    failures: tuple[CreationFailure, ...] = ()


def increase_progress(
    before: Listing,
    accepted: Accepted,
    listing: Listing,
    failures: Sequence[CreationFailure] = (),
) -> IncreaseProgress:
    """Return how far an increase has come, according to a listing.

    Args:
        before: the group before the increase.
        accepted: the increase.
        listing: the listing.
        failures: those that listings since the increase reported.
    """
    existed = {one.id for one in before.instances}
    reported = {one.id: one for one in (*failures, *listing.failures)}
    for one in before.failures:
        reported.pop(one.id, None)
    ours = set(accepted.ids) if accepted.ids else None
    new = [
        one
        for one in listing.instances
        if one.id not in existed and (ours is None or one.id in ours)
    ]
    running = tuple(sorted(one.id for one in new if one.state is State.RUNNING))
    failed = tuple(one for one in new if one.state in {State.FAILED, State.DELETING})
    # A failure has no number: instances that are neither listed nor pending will not come.
    lost = len(failed)
    if reported and listing.pending == 0:
        lost = max(lost, accepted.count - len(new) + len(failed))
    missing = max(0, accepted.count - len(running) - lost)
    return IncreaseProgress(running, failed, missing, tuple(reported.values()))
