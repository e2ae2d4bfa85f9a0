"""Shrinks a failure: finds a simpler world in which the same invariant does not hold.

Each step leaves something out and runs the world again. A simpler world is kept if the same
invariant fails there. The number of runs is bounded, so the result may not be the smallest.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING

from taskscaler.core import Settings
from taskscaler.simulation import START, Delay

from .runs import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .plans import Plan
    from .runs import Figures

__all__ = ("shrink",)

# The most worlds that are run.
RUNS = 100


def shrink(
    failure: Failure, play: Callable[[Plan], Figures | Failure], runs: int = RUNS
) -> Failure:
    """Return the same failure in a simpler world.

    Args:
        failure: the failure to shrink.
        play: the function that runs a world.
        runs: the most worlds to run.
    """
    progress = True
    while progress:
        progress = False
        for plan in simpler(failure):
            if not runs:
                return failure
            runs -= 1
            outcome = play(plan)
            if isinstance(outcome, Failure) and outcome.invariant == failure.invariant:
                failure, progress = outcome, True
                break
    return failure


def simpler(failure: Failure) -> Iterator[Plan]:
    """Yield worlds in which something is left out, the largest cuts first."""
    plan = failure.plan
    if failure.hours + 0.1 < plan.hours:
        yield replace(plan, hours=failure.hours + 0.01)
    if plan.hours > 1:
        yield replace(plan, hours=plan.hours / 2)
    active = plan.faults.active
    for size in (len(active), (len(active) + 1) // 2, 1):
        for at in range(0, len(active), max(1, size)):
            yield replace(plan, faults=plan.faults.without(*active[at : at + size]))
    if len(plan.groups) > 1:
        for group in plan.groups:
            yield replace(plan, groups=tuple(one for one in plan.groups if one is not group))
    yield from simpler_habits(plan)
    default = Settings()
    for field in fields(Settings):
        value = getattr(default, field.name)
        if getattr(plan.settings, field.name) != value:
            yield replace(plan, settings=replace(plan.settings, **{field.name: value}))


def simpler_habits(plan: Plan) -> Iterator[Plan]:
    """Yield worlds in which the tasks and the operator do less."""
    for at in range(len(plan.changes)):
        yield replace(plan, changes=plan.changes[:at] + plan.changes[at + 1 :])
    for at in range(len(plan.turns)):
        yield replace(plan, turns=plan.turns[:at] + plan.turns[at + 1 :])
    for change in (
        replace(plan, start=START),
        replace(plan, reserving=0.0),
        replace(plan, impatient=0.0),
        replace(plan, pausing=0.0),
        replace(plan, monotonic_seconds=0.0),
    ):
        if change != plan:
            yield change
    if plan.commit.median_seconds:
        yield replace(plan, commit=Delay(0.0))
    if plan.shutdown:
        yield replace(plan, shutdown=False)
    if plan.per_hour > 0.1:
        yield replace(plan, per_hour=plan.per_hour / 2)
