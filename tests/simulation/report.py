"""Describes a failure: its seed, its world, and the events before it."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, cast

import msgspec

from fleeting.types import Accepted, Instance, Listing
from taskscaler.core import Decision, Settings

if TYPE_CHECKING:
    from .runs import Failure

__all__ = ("describe",)


def describe(failure: Failure, *, seed: str, last: int = 60) -> str:
    """Return a failure as text.

    Args:
        failure: the failure, already in its smallest world.
        seed: the seed of the world in which it was found.
        last: how many of the newest events to show.
    """
    plan = failure.plan
    changed = [
        f"{field.name}={getattr(plan.settings, field.name)!r}"
        for field in fields(Settings)
        if getattr(plan.settings, field.name) != getattr(Settings(), field.name)
    ]
    faults = [f"{name}={getattr(plan.faults, name):.3g}" for name in plan.faults.active]
    lines = [
        f"seed {seed}: {failure.invariant} does not hold after {failure.hours:.3f} hours:",
        f"  {failure.what}",
        "the smallest world found in which this happens:",
        f"  hours={plan.hours:.3f} per_hour={plan.per_hour:g} runs={plan.runs}",
        f"  reserving={plan.reserving} impatient={plan.impatient} pausing={plan.pausing}",
        f"  commit={plan.commit} monotonic_seconds={plan.monotonic_seconds:g}",
        f"  changes at {[round(hour, 3) for hour, _ in plan.changes]} shutdown={plan.shutdown}",
        f"  turns={[(one.kind, round(one.hour, 3)) for one in plan.turns]} start={plan.start}",
        *(f"  {group}" for group in plan.groups),
        f"  faults: {', '.join(faults) or 'none'}",
        f"  settings: {', '.join(changed) or 'the defaults'}",
        f"its last {min(last, len(failure.history))} events:",
    ]
    for now, event, answer in list(failure.history)[-last:]:
        seconds = now.monotonic - plan.monotonic_seconds
        lines.append(f"  {seconds:12.3f}  {brief(event)}")
        lines += [f"{'':16}-> {brief(effect)}" for effect in answer]
    return "\n".join(lines)


def brief(value: Any) -> str:
    """Return a value as short text, without names of fields."""
    match value:
        case Listing():
            pending = f" +{value.pending} pending" if value.pending else ""
            text = "[" + " ".join(map(brief, value.instances)) + pending + "]"
        case Instance():
            text = f"{value.id}/{value.incarnation}:{value.state.value}"
        case Accepted():
            error = f" ({value.error})" if value.error else ""
            text = f"{value.count} {' '.join(value.ids)}{error}"
        case Decision():
            text = f"<{value.rule.value} {value.decided:+d} {value.clamped_by}{value.detail}>"
        case Settings():
            text = "..."
        case tuple():
            text = "(" + ", ".join(map(brief, cast("tuple[Any, ...]", value))) + ")"
        case msgspec.Struct():
            shown = (getattr(value, name) for name in value.__struct_fields__)
            text = f"{type(value).__name__} " + " ".join(map(brief, shown))
        case _:
            text = str(value)
    return text
