"""A core that is broken on purpose: the simulation must notice each of these, and show how."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from taskscaler.core import Demand, Policy, effects, events, machine
from taskscaler.core.model import operations
from taskscaler.core.model.instance import TrackedInstance
from taskscaler.core.model.throttle import Backoff
from taskscaler.core.rules import listings, placing, removal, reserving, restoring, waking

from .plans import draw_sparse
from .report import describe
from .runs import Failure, play
from .shrink import shrink

if TYPE_CHECKING:
    from collections.abc import Callable

    from .plans import Plan

Patch = pytest.MonkeyPatch


def always(answer: object) -> Callable[..., Any]:
    """Return what takes anything and answers always the same."""

    def give(*_: object, **__: object) -> object:
        return answer

    return give


def ignore_the_limit(patch: Patch) -> None:
    """Let it forget `max_instances`."""
    patch.setattr(Demand, "room", property(always(None)))


def forget_operations(patch: Patch) -> None:
    """Let it ask again although it does not know what came of the last request."""
    patch.setattr(operations.Operations, "outstanding", property(always(0)))
    patch.setattr(operations.Operations, "unanswered", property(always(answer=False)))


def remove_busy_ones(patch: Patch) -> None:
    """Let it take idle for what is busy."""
    patch.setattr(TrackedInstance, "vacant", property(always(answer=True)))


def hand_slots_out_twice(patch: Patch) -> None:
    """Let every task get the first slot."""

    def acquire(self: TrackedInstance, key: str) -> int:
        self.tasks[key] = 0
        self.used += 1
        return 0

    patch.setattr(TrackedInstance, "acquire", acquire)

    def release(self: TrackedInstance, key: str) -> None:
        del self.tasks[key]

    patch.setattr(TrackedInstance, "release", release)


def count_no_uses(patch: Patch) -> None:
    """Let a restart forget how often an instance was used."""
    original = restoring._restore

    def restore(fleet: Any, group: Any, record: Any, *rest: Any) -> None:
        original(fleet, group, msgspec.structs.replace(record, used=0), *rest)

    patch.setattr(restoring, "_restore", restore)


def store_nothing(patch: Patch) -> None:
    """Let it act before anything is stored."""
    patch.setattr(effects.Outbox, "put", always(None))


def keep_the_vanished(patch: Patch) -> None:
    """Let it believe in instances that no listing shows."""
    patch.setattr(listings, "_find_missing", always(None))


def never_pause(patch: Patch) -> None:
    """Let it try again at once after a failure."""
    patch.setattr(Backoff, "failed", always(None))


def never_rest(patch: Patch) -> None:
    """Let it decide again at once, for ever."""

    def wake(*arguments: Any) -> float:
        moment: float = arguments[-1].monotonic
        return moment

    patch.setattr(waking, "after_decision", wake)


def never_shrink(patch: Patch) -> None:
    """Never remove idle instances."""
    patch.setattr(removal, "shrink", always(None))


def never_serve(patch: Patch) -> None:
    """Never give a free slot to a waiting task."""
    patch.setattr(placing, "place", always(None))


def churn(patch: Patch) -> None:
    """Remove the idle capacity of the policy."""

    def surplus(self: Demand) -> int:
        return self.free

    patch.setattr(Demand, "surplus", property(surplus))


def remember_cancelled(patch: Patch) -> None:
    """Let a task that gave up stay in the queue."""
    handlers: dict[Any, Any] = {**machine.HANDLERS, events.TaskCancelled: always(None)}
    patch.setattr(machine, "HANDLERS", handlers)


def promise_too_much(patch: Patch) -> None:
    """Accept every reservation."""
    patch.setattr(reserving, "_lack", always(None))


EAGER = Policy(idle_count=2, idle_time=timedelta(minutes=20))
SMALL: dict[str, Any] = {"max_instances": 2, "capacity_per_instance": 2}
BREAKS: dict[Callable[[Patch], None], tuple[set[str], dict[str, Any]]] = {
    ignore_the_limit: ({"I1"}, {"max_instances": 2, "capacity_per_instance": 1}),
    forget_operations: ({"I1"}, {"max_instances": 2, "capacity_per_instance": 1}),
    remove_busy_ones: ({"I2", "KeyError"}, SMALL),
    hand_slots_out_twice: ({"I3"}, SMALL),
    count_no_uses: ({"I4"}, {"max_use_count": 2, "keep_instance_with_acquisitions": True}),
    store_nothing: ({"I11"}, SMALL),
    keep_the_vanished: ({"I13", "served"}, SMALL),
    never_pause: ({"I9"}, {"backoff_limit": timedelta(minutes=30)}),
    never_rest: ({"rest"}, SMALL),
    never_shrink: ({"I5", "idle most"}, {}),
    never_serve: ({"served", "free"}, {}),
    churn: ({"I6", "reason"}, {"policy": EAGER, "max_instances": 0, "max_use_count": 0}),
    remember_cancelled: ({"I8", "I15"}, SMALL),
    promise_too_much: ({"I7"}, {"policy": Policy(idle_count=1, preemptive_mode=True)}),
}


# It takes many worlds until one shows the violation.
SLOW = {keep_the_vanished}


def plans(changes: dict[str, Any]) -> list[Plan]:
    """Return busy worlds, each with the given changes of its settings."""
    worlds: list[Plan] = []
    for number in range(40):
        plan = draw_sparse(f"catch-{number}", 12.0, quiet=False)
        settings = replace(plan.settings, **changes)
        worlds.append(
            replace(
                plan,
                settings=settings,
                per_hour=2.0,
                changes=(),
                shutdown=False,
                impatient=0.3,
                reserving=0.5,
            )
        )
    return worlds


@pytest.mark.parametrize(
    "break_core",
    [
        pytest.param(one, id=one.__name__, marks=[pytest.mark.long] if one in SLOW else [])
        for one in BREAKS
    ],
)
def test_broken_core_is_caught(break_core: Callable[[Patch], None], monkeypatch: Patch) -> None:
    """Each way to break the core violates the invariant that it should."""
    expected, changes = BREAKS[break_core]
    break_core(monkeypatch)
    found: set[str] = set()
    for plan in plans(changes):
        outcome = play(plan)
        if isinstance(outcome, Failure):
            found.add(outcome.invariant)
            if expected & found:
                return
    pytest.fail(f"expected a violation of one of {expected}, got {found}")


@pytest.mark.long
def test_failure_is_reported_in_a_smaller_world(monkeypatch: Patch) -> None:
    """A report has the seed, a smaller world with the same failure, and the event that shows it."""
    ignore_the_limit(monkeypatch)
    changes = {"max_instances": 1, "capacity_per_instance": 1}
    failure = next(one for plan in plans(changes) if isinstance(one := play(plan), Failure))
    small = shrink(failure, play, runs=60)
    assert small.invariant == failure.invariant == "I1"
    assert small.plan.hours <= failure.plan.hours
    assert len(small.plan.faults.active) <= len(failure.plan.faults.active)
    again = play(small.plan)
    assert isinstance(again, Failure)
    assert (again.what, again.hours) == (small.what, small.hours)
    text = describe(small, seed=failure.plan.seed)
    assert failure.plan.seed in text
    assert "TimePassed" in text.splitlines()[-4:][0] or "Increase" in text


def test_intact_core_passes() -> None:
    """The intact core violates no invariant in the same worlds."""
    outcomes = [play(plan) for plan in plans(SMALL)[:6]]
    assert [one for one in outcomes if isinstance(one, Failure)] == []
