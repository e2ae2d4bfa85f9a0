"""Explains in one sentence why tasks wait, or what one task has."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from taskscaler.core import explain

if TYPE_CHECKING:
    from taskscaler.core import ScalerState
    from taskscaler.core.model.group import Group
    from taskscaler.core.model.instance import Instance
    from taskscaler.runtime.claims import Claim, Claims

__all__ = ("explain_task", "why_not_yet")

# Above this number of waiting tasks, a task that times out is not told its place in the queue:
# thousands may time out together, and each would search the whole queue.
LONG_QUEUE = 1000


def explain_task(state: ScalerState, claims: Claims, key: str | None) -> str:
    """Return what a task has or why it waits; None explains all waiting tasks."""
    tasks, standing = state.tasks, state.standing()
    if key is None:
        return explain(standing)
    claim = claims.get(key)
    if key in tasks.waiting:
        return explain(
            standing,
            key=key,
            place=1 + next(place for place, one in enumerate(tasks) if one == key),
            waiting_seconds=_waiting_seconds(claim),
        )
    if (held := tasks.held.get(key)) is not None:
        return explain(standing, key=key, holds=_slot(claim, *held))
    if (kept := tasks.suspended.get(key)) is not None:
        group, instance = kept
        suspension = instance.suspended[key]
        status = "is waiting to resume in" if key in tasks.resuming else "is suspended and keeps"
        return (
            f"task {key!r} {status} slot {suspension.slot} of instance {instance.id} of "
            f"{group.name} ({instance.life.value}), suspended since {_at(suspension.since)}"
        )
    return explain(standing, key=key, reserved=key in tasks.reserved)


def why_not_yet(state: ScalerState, claims: Claims, claim: Claim, *, holds: bool) -> str:
    """Return why a claim has no slot when its time is up.

    Args:
        state: the core.
        claims: all of them.
        claim: the one that timed out.
        holds: whether the core has found a slot for it.
    """
    if not holds:
        key = None if len(state.tasks.waiting) > LONG_QUEUE else claim.key
        return explain_task(state, claims, key)
    _, instance = state.tasks.held[claim.key]
    if claim.key in instance.unconfirmed:
        return f"one was found, but its instance {instance.id} has not answered yet"
    return "one was found, but the store has not confirmed it yet"


def _waiting_seconds(claim: Claim | None) -> float | None:
    return None if claim is None else (datetime.now(UTC) - claim.asked_at).total_seconds()


def _slot(claim: Claim | None, group: Group, instance: Instance) -> str:
    if claim is None or claim.grant is None or claim.granted_at is None:
        return (
            f"a slot on instance {instance.id} of {group.name}, and will be told when the "
            "instance has answered and the store has confirmed it"
        )
    since = f"of {group.name} since {_at(claim.granted_at)}"
    lost = f", and lost it: {claim.lost}" if claim.lost is not None else ""
    return f"slot {claim.grant.slot} of instance {instance.id} {since}{lost}"


def _at(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
