"""Explains in one sentence why tasks wait, or what one task has."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

import anyio

from taskscaler.core import TaskStatus, explain

if TYPE_CHECKING:
    from datetime import datetime

    from taskscaler.core import ScalerState, TaskView
    from taskscaler.runtime.claims import Claim, Claims

__all__ = ("explain_task", "why_not_yet")

# Above this number of waiting tasks, a task that times out is not told its place in the queue:
# thousands may time out together, and each would search the whole queue.
LONG_QUEUE = 1000


def explain_task(state: ScalerState, claims: Claims, key: str | None) -> str:
    """Return what a task has or why it waits; None explains all waiting tasks."""
    standing = state.standing()
    if key is None:
        return explain(standing)
    task, claim = state.task(key), claims.get(key)
    if task is None or task.status is TaskStatus.RESERVED:
        return explain(standing, key=key, reserved=task is not None)
    if task.status is TaskStatus.WAITING:
        return explain(
            standing,
            key=key,
            place=state.place(key),
            waiting_seconds=_waiting_seconds(claim),
        )
    if task.since is None or task.phase is None:
        return explain(standing, key=key, holds=_slot(claim, task))
    resuming = task.status is TaskStatus.RESUMING
    status = "is waiting to resume in" if resuming else "is suspended and keeps"
    return (
        f"task {key!r} {status} slot {task.slot} of instance {task.instance} of "
        f"{task.group} ({task.phase.value}), suspended since {_at(task.since)}"
    )


def why_not_yet(state: ScalerState, claims: Claims, claim: Claim, *, holds: bool) -> str:
    """Return why a claim has no slot when its time is up.

    Args:
        state: the core.
        claims: all of them.
        claim: the one that timed out.
        holds: whether the core has found a slot for it.
    """
    if not holds:
        key = None if state.demand().waiting > LONG_QUEUE else claim.key
        return explain_task(state, claims, key)
    task = state.task(claim.key)
    if task is not None and task.status is TaskStatus.UNCONFIRMED:
        return f"one was found, but its instance {task.instance} has not answered yet"
    return "one was found, but the store has not confirmed it yet"


def _waiting_seconds(claim: Claim | None) -> float | None:
    return None if claim is None else anyio.current_time() - claim.asked


def _slot(claim: Claim | None, task: TaskView) -> str:
    if claim is None or claim.grant is None or claim.granted_at is None:
        return (
            f"a slot on instance {task.instance} of {task.group}, and will be told when the "
            "instance has answered and the store has confirmed it"
        )
    since = f"of {task.group} since {_at(claim.granted_at)}"
    lost = f", and lost it: {claim.lost}" if claim.lost is not None else ""
    return f"slot {claim.grant.slot} of instance {task.instance} {since}{lost}"


def _at(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
