"""Why something was decided, is held back or waits, and what of it a restart must not forget."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta

import pytest

from core_model import START, Play
from fleeting.errors import (
    OutOfCapacity,
    ProviderError,
    Throttled,
)
from fleeting.types import Accepted, Instance, Listing, State
from taskscaler.core import (
    GroupRecord,
    Phase,
    Policy,
    Rule,
    Settings,
    Standing,
    counted,
    effects,
    events,
    explain,
)
from taskscaler.core.model.decisions import Clamp
from taskscaler.core.model.explain import describe

UNLIMITED = Settings(throttle_limit=math.inf)


def ask(play: Play, count: int, prefix: str = "t") -> None:
    """Let so many tasks wait, then decide."""
    for number in range(count):
        play.say(events.TaskAsked(f"{prefix}{number}"))
    play.tick()


def settle(play: Play, group: str = "g", error: ProviderError | None = None) -> int:
    """Answer the request to a group, wholly or with a refusal; return how many it asked for."""
    increase = play.take(effects.Increase, group)
    accepted = Accepted(0 if error else increase.count, error=error)
    play.say(events.IncreaseSettled(group, increase.operation, accepted))
    return increase.count


def _creating(id: str) -> Instance:
    """Return an instance that is being created."""
    return Instance(id, State.CREATING)


# The record of decisions.


def held_back(play: Play) -> list[tuple[str, Clamp | None]]:
    """Return what was told to be held back, and forget that it was told."""
    told = [one.decision for one in play.todo if isinstance(one, effects.Decided)]
    play.todo = [one for one in play.todo if not isinstance(one, effects.Decided)]
    return [(one.group, one.clamp) for one in told]


def test_a_demand_that_is_held_back_is_reported_once() -> None:
    """A pause has other seconds left each time, and is the same pause all the while."""
    play = Play(UNLIMITED)
    play.list()
    assert held_back(play) == []
    ask(play, 1)
    assert held_back(play) == [], "an answer that is awaited for a moment is not recorded"
    settle(play, error=Throttled("slow down", retry_after=timedelta(seconds=50)))
    play.tick()
    assert held_back(play) == [("g", Clamp.PAUSED)]
    for _ in range(10):
        play.tick(1.0)
    assert held_back(play) == []
    play.say(events.SettingsChanged(replace(UNLIMITED, group_limits={"g": 0})))
    play.tick(40.0)
    assert held_back(play) == [("g", Clamp.GROUP_LIMIT)]
    play.say(events.TaskCancelled("t0"))
    play.tick()
    ask(play, 1, "again")
    assert held_back(play) == [("g", Clamp.GROUP_LIMIT)], "it had ended meanwhile"


def test_a_decision_carries_every_input_of_the_formula() -> None:
    """By the names that operators know, in one line."""
    policy = Policy(idle_count=2, scale_factor=0.5, scale_factor_limit=4, preemptive_mode=False)
    play = Play(Settings(capacity_per_instance=2, max_instances=7, policy=policy))
    play.say(events.TaskReserved("r"))
    ask(play, 3)
    play.list()
    decision = play.take(effects.Increase).decision
    assert decision.demand.inputs == {
        "instance_count": 0,
        "max_instance_count": 7,
        "capacity_per_instance": 2,
        "max_use_count": 0,
        "slots_per_instance": 2,
        "acquired": 0,
        "pending": 3,
        "endangered": 0,
        "reserved": 1,
        "promised": 0,
        "idle": 0,
        "outgoing": 0,
        "unready": 0,
        "overdue": 0,
        "unavailable_capacity": 0,
        "unhealthy": 0,
        "recovering": 0,
        "suspended": 0,
        "moving": 0,
        "idle_count": 2,
        "scale_factor": 0.5,
        "scale_factor_limit": 4,
        "recently_needed": 5,
        "required": 3,
    }
    line = describe(decision)
    assert line.startswith("g: +3 instances because tasks wait for slots (instance_count=0 ")
    assert "scale_factor=0.5 " in line
    held = replace_limit(play)
    assert "g: no instances of +" in held
    assert ", held back by max_instances (" in held


def replace_limit(play: Play) -> str:
    """Lower the limit to one instance, and return the line of the decision that follows."""
    settings = replace(play.state.settings, max_instances=1)
    play.say(events.SettingsChanged(settings))
    play.say(events.IncreaseSettled("g", "op-1", Accepted(3)))
    ask(play, 5, "more")
    play.tick(1.0)
    (decision,) = play.state.blocked
    assert decision.rule is Rule.TASKS_WAIT
    return describe(decision)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 tasks"), (1, "1 task"), (-1, "-1 task"), (2, "2 tasks")]
)
def test_a_noun_agrees_with_its_count(count: int, text: str) -> None:
    """Only one has the singular."""
    assert counted(count, "task") == text


# One task.


def test_a_task_is_told_its_place_and_the_coming_slots() -> None:
    """One sentence with numbers for one task, whatever has become of it."""
    play = Play(Settings(capacity_per_instance=2, max_instances=1))
    play.list()
    ask(play, 4)
    play.tick(90.0)
    standing = play.state.standing()
    play.say(events.TaskCancelled("t0"))
    assert [play.state.place(f"t{number}") for number in range(4)] == [None, 1, 2, 3]
    assert explain(standing, key="t3", place=4, waiting_seconds=90.2) == (
        "task 't3' has waited 1m30s and is number 4 of 4 in the queue; no slot is coming: "
        "0 slots in use, 0 free, 0 coming, 2 overdue; 1 of at most 1 instance; "
        "g: held back by max_instances"
    )
    settle(play)
    ask(play, 0)
    coming = replace_coming(play)
    assert "is number 2 of 3 in the queue; it gets one of the slots that are coming: 0" in explain(
        coming, key="t2", place=2
    )
    third = explain(coming, key="t3", place=3)
    assert "the slots that are coming are for the first 2 tasks:" in third


def replace_coming(play: Play) -> Standing:
    """Show the requested instance in a listing, and return the summary."""
    play.take(effects.List)
    play.say(events.ListingArrived("g", Listing((_creating("a"),))))
    play.tick()
    assert [*play.phases().values()].count(Phase.CREATING) == 1
    return play.state.standing()


def test_a_task_that_does_not_wait_is_told_so() -> None:
    """It holds a slot, has a reservation only, or is not known at all."""
    standing = Play().state.standing()
    assert explain(standing, key="x", holds="slot 0 of 'a' in 'g'") == (
        "task 'x' does not wait: it holds slot 0 of 'a' in 'g'"
    )
    assert "has a reservation and has not asked" in explain(standing, key="x", reserved=True)
    assert explain(standing, key="x").startswith("task 'x' neither waits nor holds a slot")


def test_an_explanation_names_the_setting_for_foreign_instances() -> None:
    """A count of foreign instances comes with the command that removes them and the setting."""
    play = Play(Settings(max_instances=1))
    play.list(Instance("x", State.RUNNING))
    ask(play, 1)
    told = explain(play.state.standing())
    assert "; 1 of at most 1 instance (1 foreign: " in told
    assert "`fleeting group decrease`, or see unknown_instances)" in told


# Pauses that outlast a restart.


def stored(play: Play) -> GroupRecord | None:
    """Return the record of the group that is stored last."""
    found: GroupRecord | None = None
    for one in play.todo:
        if isinstance(one, effects.Persist):
            found = next((put for put in one.put if isinstance(put, GroupRecord)), found)
            found = None if ("group", "g", "") in one.drop else found
    return found


def test_pauses_and_cooldowns_outlast_a_restart_and_not_their_time() -> None:
    """A scaler that is restarted all the time does not try all the time."""
    play = Play(UNLIMITED)
    play.list()
    ask(play, 1)
    settle(play, error=OutOfCapacity("none left"))
    play.tick(1.0)
    settle(play, error=OutOfCapacity("none left"))
    play.tick()
    record = stored(play)
    assert record == GroupRecord(
        "g",
        2,
        START + timedelta(seconds=3),
        START + timedelta(seconds=301),
        "none left",
    )
    assert record is not None
    again = Play(UNLIMITED, records=(record, replace_group(record)))
    assert stored(again) is None, "what is as it was stored is not stored again"
    again.list()
    ask(again, 1)
    assert not again.has(effects.Increase)
    assert "a pause of 3s after 2 failures in a row, the last: none left" in explain(
        again.state.standing()
    )
    again.tick(3.0)
    settle(again)
    again.relist(Instance("a", State.RUNNING))
    again.say(events.InstancePrepared("g", "a"))
    again.tick()
    assert stored(again) is None
    assert any(
        ("group", "g", "") in one.drop for one in again.todo if isinstance(one, effects.Persist)
    )


def replace_group(record: GroupRecord) -> GroupRecord:
    """Return the record of a group that is not driven any more."""
    return GroupRecord("elsewhere", 9, record.paused_until, record.passed_over_until, "gone")


def test_a_wall_clock_that_jumped_back_makes_no_pause_for_ever() -> None:
    """A pause that is stored until next year is as long as the longest pause."""
    late = START + timedelta(days=365)
    play = Play(UNLIMITED, records=(GroupRecord("g", 1, late, late, "no"),))
    play.list()
    ask(play, 1)
    assert "a pause of 5m after 1 failure" in play.state.blocked[0].clamped_by
    assert play.cooldown() == 300.0
    early = START - timedelta(days=1)
    over = Play(UNLIMITED, records=(GroupRecord("g", 1, early, early, "no"),))
    over.list()
    ask(over, 1)
    assert over.has(effects.Increase)
    assert over.cooldown() == 0.0


def test_the_inputs_are_the_settings_where_they_have_their_names() -> None:
    """Of four slots only one may be used, if an instance runs one task in its life."""
    play = Play(Settings(capacity_per_instance=4, max_use_count=1))
    ask(play, 2)
    play.list()
    increase = play.take(effects.Increase)
    inputs = increase.decision.demand.inputs
    assert (inputs["capacity_per_instance"], inputs["max_use_count"]) == (4, 1)
    assert (inputs["slots_per_instance"], increase.count) == (1, 2)
