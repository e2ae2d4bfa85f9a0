"""Counts which rule fired in which phase of an instance, or against which limit.

This looks into the core, because it measures the worlds and checks nothing.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

from taskscaler.core import Phase, Rule
from taskscaler.core.model.decisions import Clamp
from taskscaler.core.model.group import Group
from taskscaler.core.rules import growth

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ("POSSIBLE", "Firing", "watch")

# The rule, and the phase or the limit.
Firing = tuple[str, str]

_AWAKE = (Phase.PREPARING, Phase.READY)
_ASLEEP = (Phase.SUSPENDING, Phase.SUSPENDED, Phase.RESUMING)
# After a restart each dismissed instance is dismissed again, while it is `creating`.
_PHASES = {
    Rule.IDLE: (Phase.READY,),
    Rule.LIMIT: _AWAKE,
    Rule.GROUP_LIMIT: _AWAKE,
    Rule.PREFERENCE: (Phase.READY,),
    Rule.USED_UP: (Phase.READY,),
    Rule.AGE: (Phase.READY,),
    Rule.UNHEALTHY: (Phase.READY, Phase.DRAINING),
    Rule.INTERRUPTED: (*_AWAKE, *_ASLEEP),
    Rule.EXPIRED: (Phase.SUSPENDED,),
    Rule.FAILED: (*_AWAKE, Phase.DRAINING, *_ASLEEP),
    Rule.LOST: (*_AWAKE, Phase.DRAINING, *_ASLEEP),
    Rule.UNKNOWN: (Phase.FOREIGN,),
    Rule.SHUTDOWN: (*_AWAKE, Phase.DRAINING),
}
_LIMITS = (
    Clamp.UNANSWERED,
    Clamp.NOT_LISTED,
    Clamp.PAUSED,
    Clamp.INTERVAL,
    Clamp.OVERDUE,
    Clamp.MAX_INSTANCES,
    Clamp.GROUP_LIMIT,
    Clamp.THROTTLED,
)
FREE = "no limit"
POSSIBLE: frozenset[Firing] = frozenset(
    {(rule.value, phase.value) for rule, phases in _PHASES.items() for phase in phases}
    | {(rule.value, Phase.CREATING.value) for rule in _PHASES}
    | {
        (rule.value, limit.value)
        for rule in (Rule.TASKS_WAIT, Rule.IDLE_CAPACITY)
        for limit in _LIMITS
    }
    | {
        (rule.value, FREE)
        for rule in (Rule.TASKS_WAIT, Rule.IDLE_CAPACITY, Rule.ENDANGERED, Rule.RETURN)
    }
)


@contextmanager
def watch() -> Generator[Counter[Firing]]:
    """Count the firings of all cores in this process; yield the counts."""
    counts: Counter[Firing] = Counter()
    dismiss, request = Group.dismiss, growth._request
    increase = growth._increase

    def count_removal(group: Any, instance: Any, departure: Any, now: Any) -> None:
        before = instance.departure
        if before is None or before.rule is not departure.rule:
            counts[departure.rule.value, instance.phase.value] += 1
        dismiss(group, instance, departure, now)

    def count_growth(*arguments: Any) -> Any:
        decisions = request(*arguments)
        for one in decisions:
            counts[one.rule.value, one.clamp.value if one.clamp else FREE] += 1
        return decisions

    def count_return(fleet: Any, group: Any, decision: Any, *rest: Any) -> None:
        if decision.rule is Rule.RETURN:
            counts[decision.rule.value, FREE] += 1
        increase(fleet, group, decision, *rest)

    with (
        mock.patch.object(Group, "dismiss", count_removal),
        mock.patch.object(growth, "_request", count_growth),
        mock.patch.object(growth, "_increase", count_return),
    ):
        yield counts
