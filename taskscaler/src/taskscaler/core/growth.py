"""When to grow, by how much, and in which group.

Groups are filled in the order of preference. A group that pauses after
failures, or is full, passes the rest on to the next, but one that has not
answered yet does not, because its answer may be all that is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleeting.types import Duration
from taskscaler.core.decisions import Decision, Rule
from taskscaler.core.effects import Increase
from taskscaler.core.operations import Operation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from taskscaler.core.demand import Demand
    from taskscaler.core.events import Now
    from taskscaler.core.groups import Group
    from taskscaler.core.outbox import Outbox

__all__ = ("grow",)


def grow(
    groups: Sequence[Group],
    demand: Demand,
    now: Now,
    out: Outbox,
    name_operation: Callable[[], str],
) -> tuple[Decision, ...]:
    """Ask for the instances that are missing; return a decision for each group it came to."""
    decisions: list[Decision] = []
    rest, room = demand.wanted, demand.room
    rule = Rule.TASKS_WAIT if demand.waiting > demand.free + demand.coming else Rule.IDLE_CAPACITY
    for group in groups:
        if not rest:
            break
        count, clamped_by = _share(group, rest, room, now)
        decision = Decision(now.wall, group.name, rule, rest, count, clamped_by, demand)
        decisions.append(decision)
        if count:
            _increase(
                group, decision, Operation(name_operation(), count, now.monotonic, now.wall), out
            )
            rest -= count
            room = None if room is None else room - count
        elif group.operations.unanswered or not (group.listed or group.listing_backoff.failures):
            break
    return tuple(decisions)


def _share(group: Group, rest: int, room: int | None, now: Now) -> tuple[int, str]:
    """Return how many of the rest this group gets, and what kept it from getting all."""
    if group.operations.unanswered:
        return 0, "an earlier request is not answered yet"
    if not group.listed:
        return 0, group.listing_backoff.reason or "it is not listed yet"
    if group.backoff.until > now.monotonic:
        pause = Duration(seconds=round(group.backoff.until - now.monotonic, 1))
        return 0, (
            f"a pause of {pause} after {group.backoff.failures} failures in a row, "
            f"the last: {group.backoff.reason}"
        )
    count, clamped_by = rest, ""
    if room is not None and room < count:
        count, clamped_by = room, "max_instances"
    if group.max_size is not None and group.max_size - group.size < count:
        count = max(0, group.max_size - group.size)
        clamped_by = f"the group's size of {group.max_size}"
    return count, clamped_by


def _increase(group: Group, decision: Decision, operation: Operation, out: Outbox) -> None:
    # Stored before it is asked for, so that a restart knows what may have been created.
    group.operations.add(operation)
    group.store_operation(operation, out)
    timeout_seconds = group.settings.operation_timeout.total_seconds()
    out.add(Increase(group.name, decision.decided, operation.id, decision, timeout_seconds))
