"""Why a task waits, or was refused: one sentence, with the numbers that decided it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from taskscaler.core.decisions import Decision
from taskscaler.core.demand import Demand

__all__ = ("Standing", "explain", "refusal")


class Standing(msgspec.Struct, frozen=True):
    """Where everything stands at one moment.

    Attributes:
        demand: the inputs of the next decision.
        lives: how many instances are in each life, by its word.
        blocked: what the newest decision could not have, group by group.
        troubles: the last failure of each group that has one, by the group's id.
    """

    demand: Demand
    lives: Mapping[str, int]
    blocked: tuple[Decision, ...]
    troubles: Mapping[str, str]


def explain(standing: Standing) -> str:
    """Return why tasks wait, or that none does."""
    demand = standing.demand
    if not demand.waiting:
        return f"no task waits; {_slots(demand)}"
    tasks = "1 task waits" if demand.waiting == 1 else f"{demand.waiting} tasks wait"
    return f"{tasks} for a slot: {_slots(demand)}; {_instances(standing)}{_reasons(standing)}"


def refusal(standing: Standing, *, preemptive: bool) -> str:
    """Return why a reservation is refused."""
    rule = (
        "no slot is free at once, as preemptive mode demands"
        if preemptive
        else "no slot is free, and none can be added"
    )
    return f"{rule}: {_slots(standing.demand)}; {_instances(standing)}{_reasons(standing)}"


def _slots(demand: Demand) -> str:
    text = f"{demand.acquired} slots in use, {demand.free} free, {demand.coming} coming"
    text += f", {demand.unavailable} unavailable" if demand.unavailable else ""
    return text + (f", {demand.reserved} reserved" if demand.reserved else "")


def _instances(standing: Standing) -> str:
    lives = ", ".join(f"{count} {word}" for word, count in standing.lives.items() if count)
    most = standing.demand.max_instances
    limit = f" of at most {most}" if most else ""
    return f"{standing.demand.instances}{limit} instances" + (f" ({lives})" if lives else "")


def _reasons(standing: Standing) -> str:
    blocked = {one.group: f"held back by {one.clamped_by}" for one in standing.blocked}
    told = {**standing.troubles, **blocked}
    return "".join(f"; {group}: {reason}" for group, reason in told.items())
