"""Each rule of the books catches a core that breaks it on purpose."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from fleeting.types import Capability, GroupInfo
from taskscaler.config.periods import compile_period, find_zone
from taskscaler.core import Demand, Policy, ScheduledPolicy, Settings, events, machine
from taskscaler.core.model import policy as policies
from taskscaler.core.model.checks import Checks
from taskscaler.core.model.fleet import Fleet
from taskscaler.core.model.operations import Operations
from taskscaler.core.model.throttle import TokenBucket
from taskscaler.core.rules import growth, placing, removal, reserving
from taskscaler.simulation import Delay, Faults, GroupModel

from . import runs
from .plans import Plan, Turn
from .runs import Failure, play

if TYPE_CHECKING:
    from collections.abc import Callable

Patch = pytest.MonkeyPatch

MINUTE = timedelta(minutes=1)
GROUP = GroupModel(
    GroupInfo("group-0", capabilities=frozenset([Capability.SUSPEND])), boot=Delay(20.0)
)
OTHER = replace(GROUP, info=replace(GROUP.info, id="group-1"))
SMALL = replace(GROUP, info=replace(GROUP.info, max_size=2))
SETTINGS = Settings(
    capacity_per_instance=2,
    policy=Policy(idle_time=10 * MINUTE),
    update_interval=2 * MINUTE,
    update_interval_when_expecting=timedelta(seconds=10),
)
PLAN = Plan(
    seed="books",
    hours=3.0,
    settings=SETTINGS,
    groups=(GROUP,),
    faults=Faults(),
    per_hour=90.0,
    runs=Delay(240.0, 0.6),
)


@dataclass(frozen=True)
class Case:
    """A way to break the core.

    Attributes:
        break_core: does it.
        expected: the name of the rule that must catch it.
        settings: what is special about the settings.
        plan: what is special about the world.
    """

    break_core: Callable[[Patch], None]
    expected: str
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    plan: dict[str, Any] = field(default_factory=dict[str, Any])


def always(answer: object) -> Callable[..., Any]:
    """Return what takes anything and answers always the same."""

    def give(*_: object, **__: object) -> object:
        return answer

    return give


def with_fields(patch: Patch, owner: Any, name: str, **fields: Any) -> None:
    """Let a rule see other fields of the fleet, which is its first argument.

    Args:
        patch: undoes it.
        owner: the module of the rule.
        name: the name of the rule.
        fields: for each field, a function of the fleet that returns its value.
    """
    original = getattr(owner, name)

    def rule(fleet: Any, *arguments: Any) -> Any:
        before = {one: getattr(fleet, one) for one in fields}
        for one, value in fields.items():
            setattr(fleet, one, value(fleet))
        try:
            return original(fleet, *arguments)
        finally:
            for one, old in before.items():
                setattr(fleet, one, old)

    patch.setattr(owner, name, rule)


def handle_with_fields(patch: Patch, kind: Any, **fields: Any) -> None:
    """Let the handler of an event see other fields of the fleet."""

    class Owner:
        rule = staticmethod(machine.HANDLERS[kind])

    with_fields(patch, Owner, "rule", **fields)
    patch.setattr(machine, "HANDLERS", {**machine.HANDLERS, kind: Owner.rule})


def backwards(fleet: Any) -> Any:
    """Return the groups in the wrong order."""
    return fleet.groups[::-1]


def no_time(_: object) -> float:
    """Return an idle time of zero."""
    return 0.0


def remove_early(patch: Patch) -> None:
    """Remove instances before `idle_time`."""
    with_fields(patch, removal, "shrink", idle_seconds=no_time)


def forget_the_peak(patch: Patch) -> None:
    """Remove capacity that was needed within `idle_time`."""

    def unneeded(self: Demand) -> int:
        return self.staying - max(0, self.wanting - self.coming) - self.target

    patch.setattr(Demand, "unneeded", property(unneeded))


def remove_late(patch: Patch) -> None:
    """Remove nothing in every other hour."""
    shrink = removal.shrink

    def seldom(fleet: Any, demand: Any, now: Any, out: Any) -> None:
        if now.monotonic % 7200.0 < 3600.0:
            shrink(fleet, demand, now, out)

    patch.setattr(removal, "shrink", seldom)


def grant_after_drain(patch: Patch) -> None:
    """Grant a free slot to a new task although the scaler drains."""
    handle_with_fields(patch, events.TaskAsked, refusing=always(""))


def reserve_after_drain(patch: Patch) -> None:
    """Accept reservations although the scaler drains."""
    handle_with_fields(patch, events.TaskReserved, refusing=always(""))


def buy_after_drain(patch: Patch) -> None:
    """Request idle capacity although the scaler drains."""
    with_fields(patch, growth, "grow", refusing=always(""))


def grant_backwards(patch: Patch) -> None:
    """Grant slots in the last group first."""
    handle_with_fields(patch, events.TaskAsked, groups=backwards)


def grow_backwards(patch: Patch) -> None:
    """Ask the last group first."""
    with_fields(patch, growth, "grow", groups=backwards)


def shrink_backwards(patch: Patch) -> None:
    """Empty the preferred group first."""
    with_fields(patch, removal, "shrink", groups=backwards)


def ignore_lowered_limits(patch: Patch) -> None:
    """Keep what is above a limit."""
    patch.setattr(removal, "enforce_limits", always(None))


def enforce_a_lower_limit(patch: Patch) -> None:
    """Remove one instance more than the limit demands."""

    def lower(fleet: Any) -> Settings:
        settings: Settings = fleet.settings
        return replace(settings, max_instances=settings.max_instances - 1)

    with_fields(patch, removal, "enforce_limits", settings=lower)


def take_no_tokens(patch: Patch) -> None:
    """Never empty the token bucket."""
    patch.setattr(TokenBucket, "take", always(None))


def grant_without_probe(patch: Patch) -> None:
    """Take every instance for one that works."""
    patch.setattr(Fleet, "probe_after_seconds", property(always(1e9), always(None)), raising=False)


def check_no_quiet_ones(patch: Patch) -> None:
    """Check no instance for its heartbeat."""
    patch.setattr(Checks, "due", always(()))


def replace_all_sick(patch: Patch) -> None:
    """Replace all instances that fail together."""
    patch.setattr(Checks, "_fail_together", always(answer=False))


def replace_all_old(patch: Patch) -> None:
    """Replace all old instances at once."""

    def aged(group: Any, seconds: float, now: Any) -> list[Any]:
        too_old = removal._too_old(group, seconds, now)
        return [one for one in too_old if one.phase.value == "ready"]

    patch.setattr(removal, "_aged", aged)


def hide_reasons(patch: Patch) -> None:
    """Tell only one of the reasons of a request."""
    decisions = removal._decisions

    def first(*arguments: Any) -> Any:
        return decisions(*arguments)[:1]

    patch.setattr(removal, "_decisions", first)


def promise_everything(patch: Patch) -> None:
    """Accept every reservation."""
    patch.setattr(reserving, "_lack", always(None))


def ignore_throttling(patch: Patch) -> None:
    """Accept a reservation that leaves too little capacity unreserved."""
    patch.setattr(reserving, "_leaves_too_little", always(answer=False))


def serve_one_at_a_time(patch: Patch) -> None:
    """Serve only the first of the waiting tasks."""

    def place(fleet: Any, now: Any, out: Any) -> None:
        for group in fleet.groups:
            if fleet.tasks.waiting and (instance := group.slots.best()) is not None:
                placing.bind(fleet, fleet.tasks.take_next(), group, instance, now, out)
                return

    patch.setattr(placing, "place", place)


def forget_the_clock_change(patch: Patch) -> None:
    """Take minutes of the clock for minutes of time."""

    def steady(_zone: Any, _minute: Any, minutes: int) -> int:
        return minutes

    patch.setattr(policies, "_steady", steady)


def claim_strangers(patch: Patch) -> None:
    """Let a stranger take the place of an instance that the answer named."""
    patch.setattr(Operations, "_late", always(()))

    def claim(self: Any, id: str, *, likely: bool = False) -> Any:
        del likely
        operation = next((one for one in self._open.values() if one.outstanding), None)
        if operation is None:
            return None
        operation.seen += 1
        operation.names.discard(id)
        return self._close_if_done(operation)

    patch.setattr(Operations, "claim", claim)


def grow_never(patch: Patch) -> None:
    """Request nothing."""
    patch.setattr(growth, "_request", always([]))


def drained_at(hour: float, **settings: Any) -> dict[str, Any]:
    """Return a world whose manager drains."""
    return {"turns": (Turn(hour, "drain"),), **settings}


def lowered_at(hour: float, **settings: Any) -> dict[str, Any]:
    """Return a world in which the operator changes the settings."""
    return {"changes": ((hour, replace(SETTINGS, **settings)),)}


IDLE = Policy(idle_count=6, idle_time=10 * MINUTE)
LESS = lowered_at(1.5, policy=Policy(idle_count=2, idle_time=10 * MINUTE))
TWO = {"groups": (SMALL, OTHER)}
NIGHT = ScheduledPolicy(IDLE, (compile_period("0-59 3-4 * * 1-7"),), find_zone("Europe/Berlin"))
CASES = (
    Case(remove_early, "reason"),
    Case(forget_the_peak, "reason", {"policy": IDLE}),
    Case(remove_late, "idle most"),
    Case(grant_after_drain, "drain", plan=drained_at(1.0)),
    Case(reserve_after_drain, "drain", plan=drained_at(1.0, reserving=0.5)),
    Case(buy_after_drain, "drain", {"policy": IDLE}, drained_at(1.0, faults=Faults(vanish=30.0))),
    Case(grant_backwards, "order", {"policy": IDLE}, TWO),
    Case(grow_backwards, "order", plan={"groups": (GROUP, OTHER)}),
    Case(shrink_backwards, "reason", {"policy": IDLE}, {**TWO, **LESS, "per_hour": 4.0}),
    Case(ignore_lowered_limits, "limits", plan=lowered_at(1.0, max_instances=1)),
    Case(ignore_lowered_limits, "limits", plan=lowered_at(1.0, group_limits={"group-0": 1})),
    Case(enforce_a_lower_limit, "reason", {"max_instances": 4}, {"impatient": 1.0}),
    Case(take_no_tokens, "tokens", {"throttle_limit": 0.01, "throttle_burst": 1}),
    Case(grant_without_probe, "health", {"policy": IDLE}),
    Case(check_no_quiet_ones, "health", {"policy": IDLE}),
    Case(
        replace_all_sick,
        "reason",
        {"policy": replace(IDLE, idle_count=30)},
        {"faults": Faults(network=2.0), "per_hour": 4.0},
    ),
    Case(
        replace_all_old,
        "reason",
        {"policy": Policy(idle_time=60 * MINUTE), "max_instance_age": 30 * MINUTE},
        {"per_hour": 400.0},
    ),
    Case(
        hide_reasons,
        "reason",
        {"max_use_count": 5, "max_instance_age": 10 * MINUTE},
        {"groups": (replace(GROUP, reply=Delay(20.0)),), "per_hour": 400.0},
    ),
    Case(promise_everything, "promise", {"max_instances": 2}, {"reserving": 1.0, "impatient": 1.0}),
    Case(ignore_throttling, "promise", {"reservation_throttling": True}, {"reserving": 1.0}),
    Case(
        serve_one_at_a_time,
        "free",
        {"capacity_per_instance": 8},
        {"groups": (replace(GROUP, boot=Delay(200.0)),), "per_hour": 400.0},
    ),
    Case(
        forget_the_clock_change,
        "policy",
        {"schedule": (NIGHT,)},
        {"start": datetime(2026, 3, 28, 23, tzinfo=UTC), "per_hour": 30.0},
    ),
    Case(
        claim_strangers,
        "stranger",
        plan={"groups": (replace(GROUP, names=True),), "faults": Faults(add=20.0)},
    ),
    Case(grow_never, "growth"),
)


# The others are long proofs, because all of them together take a minute.
QUICK = {remove_early, grant_after_drain, take_no_tokens, promise_everything, claim_strangers}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            one,
            id=one.break_core.__name__,
            marks=[] if one.break_core in QUICK else [pytest.mark.long],
        )
        for one in CASES
    ],
)
def test_broken_core_is_caught(case: Case, monkeypatch: Patch) -> None:
    """Each way to break the core is caught by its rule, and the intact core passes."""
    plan = replace(PLAN, settings=replace(SETTINGS, **case.settings), **case.plan)
    intact = play(plan)
    assert not isinstance(intact, Failure), (intact.invariant, intact.what)
    case.break_core(monkeypatch)
    found: list[str] = []
    for number in range(5):
        outcome = play(replace(plan, seed=f"books-{number}"))
        found += [outcome.invariant] if isinstance(outcome, Failure) else []
        if case.expected in found:
            return
    pytest.fail(f"expected {case.expected!r}, got {found}")


def test_churn_is_caught(monkeypatch: Patch) -> None:
    """At a constant random load, idle capacity may not cost many instances more."""
    calm = replace(PLAN, calm=True, settings=replace(SETTINGS, policy=IDLE))
    assert not isinstance(play(calm), Failure)
    monkeypatch.setattr(runs, "CHURN", 0.5)
    monkeypatch.setattr(runs, "CHURN_SLACK", 0)
    outcome = play(calm)
    assert isinstance(outcome, Failure)
    assert outcome.invariant == "churn"
