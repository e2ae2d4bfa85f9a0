"""Why a task waits, or was refused: one sentence with the numbers that decided it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import UTC

import msgspec

from fleeting.types import Duration
from taskscaler.core.model.decisions import Decision
from taskscaler.core.model.demand import Demand
from taskscaler.core.model.obstacles import Obstacle
from taskscaler.core.model.wording import counted, plural

__all__ = ("Lack", "Standing", "describe", "explain", "hindrance", "queued", "refusal")

# Some phases need a hint when they appear in a sentence.
_HINTS = {"foreign": "foreign: remove them by `fleeting group decrease`, or see unknown_instances"}


class Standing(msgspec.Struct, frozen=True):
    """A summary of the whole scaler at one moment.

    Attributes:
        demand: the inputs of the next decision.
        phases: how many instances are in each phase, by the phase's value.
        blocked: decisions that the newest pass could not carry out fully, by group.
        troubles: the last failure of each group that has one, by the group's id.
        obstacles: what keeps instances from getting ready, or from staying healthy.
        gone: the ids of the groups that do not exist any more.
    """

    demand: Demand
    phases: Mapping[str, int]
    blocked: tuple[Decision, ...]
    troubles: Mapping[str, str]
    obstacles: tuple[Obstacle, ...] = ()
    gone: tuple[str, ...] = ()


class Lack(enum.Enum):
    """Reasons to refuse a reservation."""

    NOT_FREE = "no slot is free at once, as preemptive mode demands"
    NO_CAPACITY = "no unreserved slot is free, and no more can be added"
    THROTTLED = (
        "this would leave less idle capacity unreserved than one instance has "
        "(reservation_throttling)"
    )


def explain(
    standing: Standing,
    *,
    key: str | None = None,
    place: int | None = None,
    waiting_seconds: float | None = None,
    holds: str = "",
    reserved: bool = False,
    held_back: str = "",
) -> str:
    """Return, in one sentence, why tasks wait or one of them does.

    Args:
        standing: the summary, of now or as it was stored.
        key: the task in question; None for all.
        place: its place in the queue, 1 for the next to be served; None if it does not wait.
        waiting_seconds: for how long it has waited, if that is known.
        holds: a description of the slot that it holds; empty if it holds none.
        reserved: whether it has a reservation that it has not used yet.
        held_back: which jobs wait although the scaler does not know them yet, and why.
    """
    if key is None:
        return _all(standing, held_back)
    demand = standing.demand
    if place is not None:
        queue = queued(key, place, demand.waiting, waiting_seconds)
        return f"{queue}; {_outlook(demand, place)}: {_situation(standing)}"
    if holds:
        return f"task {key!r} does not wait: it holds {holds}"
    if reserved:
        return f"task {key!r} has a reservation and has not asked for its slot; {_slots(demand)}"
    return f"task {key!r} neither waits nor holds a slot, so it is not known here; {_all(standing)}"


def queued(key: str, place: int, waiting: int, waiting_seconds: float | None) -> str:
    """Return how long a task has waited, and its place in the queue.

    Args:
        key: the task's.
        place: 1 for the next to be served.
        waiting: how many tasks are in the queue.
        waiting_seconds: for how long it has waited; None if that is not known.
    """
    waits = "waits"
    if waiting_seconds is not None:
        digits = 1 if waiting_seconds < 10 else 0  # noqa: PLR2004 -- tenths matter only for short times
        waits = f"has waited {Duration(seconds=round(waiting_seconds, digits))}"
    return f"task {key!r} {waits} and is number {place} of {waiting} in the queue"


def _all(standing: Standing, held_back: str = "") -> str:
    demand = standing.demand
    if not demand.waiting:
        return f"{held_back or 'no task waits'}; {_slots(demand)}"
    verb = "waits" if demand.waiting == 1 else "wait"
    why = f"{counted(demand.waiting, 'task')} {verb} for a slot: {_situation(standing)}"
    return f"{why}; {held_back}" if held_back else why


def _outlook(demand: Demand, place: int) -> str:
    """Tell whether the slots that are coming reach as far as this place."""
    if place <= demand.coming:
        some = "the slot that is" if demand.coming == 1 else "one of the slots that are"
        return f"it gets {some} coming"
    if demand.coming:
        first = "task" if demand.coming == 1 else f"{demand.coming} tasks"
        return f"the slots that are coming are for the first {first}"
    return "no slot is coming"


def describe(decision: Decision) -> str:
    """Return a decision on one line, with every input of the formula."""
    done = "no instances"
    if decision.decided:
        done = f"{decision.decided:+d} {plural(decision.decided, 'instance')}"
    of = f" of {decision.wanted:+d}" if decision.decided != decision.wanted else ""
    held = f", held back by {decision.clamped_by}" if decision.clamped_by else ""
    inputs = " ".join(f"{name}={value:g}" for name, value in decision.demand.inputs.items())
    return f"{decision.group}: {done}{of} because {decision.rule.value}{held} ({inputs})"


def refusal(standing: Standing, lack: Lack) -> str:
    """Return why a reservation is refused."""
    return f"{lack.value}: {_situation(standing)}"


def _situation(standing: Standing) -> str:
    return f"{_slots(standing.demand)}; {_instances(standing)}{_reasons(standing)}"


def _slots(demand: Demand) -> str:
    text = f"{counted(demand.acquired, 'slot')} in use, {demand.free} free, {demand.coming} coming"
    for count, word in (
        (demand.overdue, "overdue"),
        (demand.unavailable, "unavailable"),
        (demand.unhealthy, "unhealthy"),
        (demand.suspended, "suspended"),
        (demand.reserved, "reserved"),
    ):
        text += f", {count} {word}" if count else ""
    return text


def _instances(standing: Standing) -> str:
    lives = ", ".join(
        f"{count} {_HINTS.get(word, word)}" for word, count in standing.phases.items() if count
    )
    most = standing.demand.max_instances
    count = counted(standing.demand.instances, "instance")
    if most:
        count = f"{standing.demand.instances} of at most {counted(most, 'instance')}"
    return count + (f" ({lives})" if lives else "")


def _reasons(standing: Standing) -> str:
    blocked = {one.group: f"held back by {one.clamped_by}" for one in standing.blocked}
    # The reason why a group is held back may name its last failure.
    troubles = {
        group: trouble
        for group, trouble in standing.troubles.items()
        if trouble not in blocked.get(group, "")
    }
    reasons = [f"{group}: {why}" for one in (troubles, blocked) for group, why in one.items()]
    said = " ".join(reasons)
    reasons += [hindrance(one, said) for one in standing.obstacles]
    return "".join(f"; {reason}" for reason in reasons)


def hindrance(obstacle: Obstacle, told: str = "") -> str:
    """Return what fails, on how many instances, how often, since when, and why.

    Args:
        obstacle: the stage that fails.
        told: what was said already; the reason is not repeated.
    """
    one = obstacle
    where = f" on {counted(one.instances, 'instance')}" if one.instances else ""
    last = "" if one.reason in told else f", the last: {one.reason}"
    return (
        f"{one.group}: {one.stage.value} failed {counted(one.times, 'time')}{where} since "
        f"{one.since.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}{last}"
    )
