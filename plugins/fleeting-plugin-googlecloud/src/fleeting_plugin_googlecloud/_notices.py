"""Finds out which members Google will end soon.

Google announces interruptions only inside of the machine. From outside they show in the
listing: a machine shuts down gracefully (`PENDING_STOP`), or its planned end is near.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from fleeting.types import Notice

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from fleeting_plugin_googlecloud._members import ManagedMember

__all__ = ("find_notices",)

# A planned end is announced this long before: the instance gets no more tasks from then on.
LEAD = timedelta(minutes=10)


def find_notices(members: Iterable[ManagedMember], now: datetime) -> list[tuple[str, Notice]]:
    """Return the notices about members, each with the numeric id of its machine.

    Args:
        members: of the group.
        now: the time, to find planned ends that are near.
    """
    found: list[tuple[str, Notice]] = []
    for member in members:
        if member.is_ending or not member.number:
            continue
        notice = _notice(member, now)
        if notice is not None:
            found.append((member.number, notice))
    return found


def _notice(member: ManagedMember, now: datetime) -> Notice | None:
    if member.status == "PENDING_STOP":
        return Notice(member.name, "Google stops it gracefully", member.stops_at)
    if member.status in {"STOPPING", "TERMINATED"} and member.target == "RUNNING":
        return Notice(member.name, "Google, or the machine itself, stops it", now)
    if member.ends_at is not None and member.ends_at <= now + LEAD:
        return Notice(
            member.name, "the maximum duration of its instance template ends", member.ends_at
        )
    return None
