"""A failure is shrunk and described."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from taskscaler.core import Settings
from taskscaler.simulation import Faults

from .plans import Plan, Turn, draw_groups, draw_sparse
from .report import describe
from .runs import Failure, Figures
from .shrink import shrink


def fail(plan: Plan) -> Figures | Failure:
    """Play no world; fail after three hours if replies are lost and there are two groups."""
    if plan.hours >= 3 and "lost" in plan.faults.active and len(plan.groups) == 2:
        return Failure(plan, "I1", "too many", 3.0, ())
    return Figures(worlds=1)


def test_shrinking_keeps_only_the_cause() -> None:
    """Shrinking leaves out all that the failure does not need, and keeps the rest."""
    groups, faults = draw_groups(Random(1), 2), Faults(lost=0.1, late=0.1)
    turns = (Turn(1.0, "kill"), Turn(2.0, "drain"))
    plan = replace(draw_sparse("shrink", 12.0), groups=groups, faults=faults, turns=turns)
    failure = fail(plan)
    assert isinstance(failure, Failure)
    small = shrink(failure, fail, runs=1000).plan
    assert small.faults == Faults(lost=0.1)
    assert small.settings == Settings()
    assert small.turns == ()
    assert small.groups == groups
    assert 3 <= small.hours < 3.1


def test_shrinking_is_bounded() -> None:
    """No more worlds are played than the limit allows."""
    plan = replace(
        draw_sparse("shrink", 12.0), groups=draw_groups(Random(1), 2), faults=Faults(lost=0.1)
    )
    failure = fail(plan)
    assert isinstance(failure, Failure)
    assert shrink(failure, fail, runs=0) is failure


def test_description_names_seed_invariant_and_world() -> None:
    """A description has the seed, the invariant, the observation, and what is not a default."""
    plan = replace(draw_sparse("shrink", 12.0), settings=Settings(), faults=Faults(lost=0.1))
    text = describe(Failure(plan, "I1", "too many", 3.0, ()), seed="shrink")
    assert "seed shrink: I1 does not hold after 3.000 hours:\n  too many\n" in text
    assert "faults: lost=0.1\n  settings: the defaults\n" in text
