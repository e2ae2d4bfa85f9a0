"""What a group did to us that a restart must not make us forget: its pauses, in wall time."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from taskscaler.core.model.records import GroupRecord

if TYPE_CHECKING:
    from datetime import datetime

    from taskscaler.core.model.events import Now
    from taskscaler.core.model.group import Group
    from taskscaler.core.model.outbox import Outbox

__all__ = ("keep", "recall")


def keep(group: Group, now: Now, out: Outbox) -> None:
    """Store the pauses of a group if they have changed since they were stored last."""
    backoff, cooldown = group.backoff, group.cooldown
    trouble = (backoff.failures, backoff.until, cooldown.until)
    if trouble == group.stored_trouble:
        return
    group.stored_trouble = trouble
    record = GroupRecord(
        group.name,
        backoff.failures,
        _wall(backoff.until, now),
        _wall(cooldown.until, now),
        backoff.reason or cooldown.reason,
    )
    if backoff.failures or cooldown.reason:
        out.put(record)
    else:
        out.drop(record.key)


def recall(group: Group, record: GroupRecord, now: Now) -> None:
    """Take the pauses up again where an earlier life of the scaler left them.

    A wall clock that jumped meanwhile makes none longer than it can be.
    """
    settings = group.settings
    paused = min(record.paused_until - now.wall, settings.backoff_limit)
    passed_over = min(record.passed_over_until - now.wall, settings.cooldown)
    backoff, cooldown = group.backoff, group.cooldown
    backoff.failures, backoff.reason = record.failures, record.reason
    backoff.until = now.monotonic + max(0.0, paused.total_seconds())
    if passed_over > timedelta(0):
        cooldown.until, cooldown.reason = now.monotonic + passed_over.total_seconds(), record.reason
    group.stored_trouble = (backoff.failures, backoff.until, cooldown.until)


def _wall(monotonic: float, now: Now) -> datetime:
    """Return a moment as wall time, or now if it has passed."""
    return now.wall + timedelta(seconds=max(0.0, monotonic - now.monotonic))
