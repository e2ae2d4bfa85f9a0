"""Reservations: their protection, the capacity they count on, and how that expires."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from core_model import Play
from fleeting.types import Accepted, GroupInfo, Instance, Listing, State
from taskscaler.core import Phase, Placement, Policy, Rule, Settings, TaskStatus, effects, events

MINUTE = timedelta(minutes=1)
BRIEF = Policy(idle_time=MINUTE)


def ours(play: Play, group: str) -> list[str]:
    """Return the ids of the instances of a group that are not about to go."""
    known = [one for one in play.state.instances() if one.group == group]
    return [one.id for one in known if one.phase is not Phase.REMOVING]


def answer_all(play: Play) -> None:
    """Do what the core asks for, in a cloud where everything works at once."""
    todo, play.todo = play.todo, []
    for one in todo:
        match one:
            case effects.Increase():
                accepted = Accepted(one.count)
                play.say(events.IncreaseSettled(one.group, one.operation, accepted))
                names = (f"{one.operation}-{number}" for number in range(one.count))
                listed = tuple(
                    Instance(id, State.RUNNING) for id in (*ours(play, one.group), *names)
                )
                play.say(events.ListingArrived(one.group, Listing(listed)))
            case effects.Decrease():
                accepted = Accepted(len(one.ids), one.ids)
                play.say(events.DecreaseSettled(one.group, one.ids, accepted))
            case effects.List():
                stay = tuple(Instance(id, State.RUNNING) for id in ours(play, one.group))
                play.say(events.ListingArrived(one.group, Listing(stay)))
            case effects.Prepare():
                play.say(events.InstancePrepared(one.group, one.id))
            case _:
                pass


def run(play: Play, seconds: float) -> None:
    """Let time pass, in steps, with a cloud that works."""
    for _ in range(math.ceil(seconds / 2)):
        play.tick(2.0)
        for _ in range(3):
            if all(isinstance(one, effects.WakeAt) for one in play.todo):
                break  # Nothing is asked for.
            answer_all(play)
            play.tick()


def idle(play: Play, count: int) -> None:
    """Get instances that are ready and idle, in one group or over several."""
    slots = play.state.settings.capacity_per_instance
    for number in range(count * slots):
        play.say(events.TaskAsked(f"first-{number}"))
    run(play, 10)
    assert len(play.held()) == count * slots
    for key in play.held():
        play.say(events.TaskReleased(key))
    play.todo = [one for one in play.todo if isinstance(one, effects.List)]


def reserve(play: Play, key: str) -> str:
    """Reserve, and return why that was refused; empty if it was not."""
    answer = play.say(events.TaskReserved(key))
    return next((one.why for one in answer if isinstance(one, effects.Refuse)), "")


def ready(play: Play) -> int:
    """Return how many instances take tasks."""
    return [*play.phases().values()].count(Phase.READY)


# Throttling.


def test_throttling_leaves_one_idle_instance_unreserved() -> None:
    """Of three idle instances of two slots, four slots can be reserved; the refusal counts."""
    policy = Policy(idle_time=timedelta(hours=1))
    settings = Settings(capacity_per_instance=2, policy=policy, reservation_throttling=True)
    play = Play(settings)
    idle(play, 3)
    assert [reserve(play, key) for key in "abcd"] == [""] * 4
    why = reserve(play, "e")
    assert "reservation_throttling" in why
    assert "6 free" in why
    assert "4 reserved" in why
    off = replace(settings, reservation_throttling=False)
    play.say(events.SettingsChanged(off))
    assert reserve(play, "e") == ""


def test_throttling_allows_reservations_of_the_idle_target() -> None:
    """A single warm instance would otherwise never be reserved, and never be removed either."""
    policy = Policy(idle_count=1, idle_time=MINUTE)
    play = Play(Settings(policy=policy, reservation_throttling=True))
    run(play, 10)
    assert ready(play) == 1
    assert reserve(play, "a") == ""
    assert "as preemptive mode demands" in reserve(Play(play.state.settings), "b")


def test_throttling_concerns_idle_capacity_only() -> None:
    """With nothing idle, what can be created can still be reserved."""
    play = Play(Settings(max_instances=2, reservation_throttling=True))
    assert [bool(reserve(play, key)) for key in "abc"] == [False, False, True]


# Parting.


def poll(play: Play, number: int) -> None:
    """Hold a reservation at any time: take the next before the last is given back."""
    reserve(play, f"poll-{number}")
    if play.status(f"poll-{number - 1}") is TaskStatus.RESERVED:
        play.say(events.TaskUnreserved(f"poll-{number - 1}"))
    run(play, 10)


@pytest.mark.parametrize(
    "policy",
    [
        BRIEF,
        Policy(idle_time=MINUTE, idle_count=1),
        Policy(idle_time=MINUTE, idle_count=1, preemptive_mode=False),
        Policy(idle_time=MINUTE, preemptive_mode=True),
        Policy(idle_time=MINUTE, scale_factor=2.0),
    ],
)
def test_endless_polling_keeps_no_more_idle_than_the_policy(policy: Policy) -> None:
    """However long reservations follow on each other, idle capacity goes in its time."""
    play = Play(Settings(policy=policy))
    idle(play, 3)
    for number in range(30):
        poll(play, number)
    assert ready(play) == policy.idle_count
    assert policy.preemptive or play.state.demand().reserved, "polling goes on"


def test_a_reservation_that_was_there_before_keeps_its_instance() -> None:
    """Only its own end lets the instance go; those that came later do not matter."""
    play = Play(Settings(policy=BRIEF))
    idle(play, 1)
    assert reserve(play, "old") == ""
    run(play, 70)
    assert play.closed_slots() == 1
    assert reserve(play, "new") == "", "it counts on what can be created"
    run(play, 70)
    assert ready(play) == 1
    play.say(events.TaskUnreserved("old"))
    play.tick(0.1)
    decrease = play.take(effects.Decrease)
    assert [one.rule for one in decrease.decisions] == [Rule.IDLE]
    assert "it was idle for 2m" in decrease.decisions[0].detail
    assert play.closed_slots() == 0


def test_a_task_that_gets_a_slot_on_it_lets_it_stay() -> None:
    """It is then as idle as since the end of that task."""
    play = Play(Settings(policy=BRIEF))
    idle(play, 1)
    reserve(play, "old")
    run(play, 70)
    play.say(events.TaskAsked("old"))
    assert play.closed_slots() == 0
    play.say(events.TaskReleased("old"))
    run(play, 50)
    assert ready(play) == 1
    run(play, 20)
    assert ready(play) == 0


def test_a_promise_is_refused_on_closed_instances_and_kept_where_it_was_given() -> None:
    """In preemptive mode, one of two idle instances is closed; only the other can be promised."""
    policy = Policy(idle_time=MINUTE, preemptive_mode=True)
    play = Play(Settings(policy=policy))
    idle(play, 2)
    reserve(play, "old")
    run(play, 70)
    assert (ready(play), play.closed_slots()) == (1, 1), "one was kept by nothing"
    assert "preemptive" in reserve(play, "new")
    play.say(events.TaskAsked("old"))
    assert "preemptive" in reserve(play, "new"), "nothing is free"
    play.say(events.TaskReleased("old"))
    assert reserve(play, "new") == "", "no instance is closed any more"


def test_closed_instances_that_are_needed_after_all_stay() -> None:
    """More idle capacity keeps the instances that were closed, and they can be closed again."""
    play = Play(Settings(policy=BRIEF))
    idle(play, 1)
    reserve(play, "old")
    run(play, 70)
    assert play.closed_slots() == 1
    wanted = replace(BRIEF, idle_count=1, preemptive_mode=False)
    play.say(events.SettingsChanged(replace(play.state.settings, policy=wanted)))
    play.say(events.TaskUnreserved("old"))
    run(play, 10)
    assert (ready(play), play.closed_slots()) == (1, 0)
    play.say(events.SettingsChanged(replace(play.state.settings, policy=BRIEF)))
    run(play, 10)
    assert ready(play) == 0


def test_a_closed_instance_that_is_lost_is_not_counted_any_more() -> None:
    """Whatever ends its life also opens it."""
    play = Play(Settings(policy=BRIEF))
    idle(play, 1)
    reserve(play, "old")
    run(play, 70)
    (id,) = play.phases()
    assert play.closed_slots() == 1
    play.say(events.InstanceBroke("g", id, "the connection broke"))
    assert play.closed_slots() == 0


def test_the_end_of_an_older_reservation_by_a_task_lets_the_others_go() -> None:
    """Its task takes a slot elsewhere, so that nothing keeps the closed instance any more."""
    trusted = timedelta(days=1)
    play = Play(Settings(capacity_per_instance=2, policy=BRIEF, probe_after=trusted))
    idle(play, 2)
    play.say(events.TaskAsked("runs"))
    for key in ("old-1", "old-2"):
        reserve(play, key)
    run(play, 70)
    assert play.closed_slots() == 2
    reserve(play, "new")
    play.say(events.TaskUnreserved("old-1"))
    run(play, 2)
    assert play.closed_slots() == 2, "the other one is still there"
    play.todo.clear()
    play.say(events.TaskAsked("old-2"))
    task = play.state.task("runs")
    assert task is not None
    assert play.take(effects.Grant).id == task.instance
    assert play.has(effects.WakeAt)
    run(play, 2)
    assert ready(play) == 1
    assert play.status("new") is TaskStatus.RESERVED


def act(play: Play, what: str, key: str) -> None:
    """Let a task do something if it can, or let time pass."""
    status = play.status(key)
    if what == "reserve" and status is None:
        reserve(play, key)
    elif what == "unreserve" and status is TaskStatus.RESERVED:
        play.say(events.TaskUnreserved(key))
    elif what == "ask" and status in (TaskStatus.RESERVED, None):
        promised = status is TaskStatus.RESERVED and play.state.policy.preemptive
        play.say(events.TaskAsked(key))
        assert key in play.held() or not promised, "I7: the slot is there"
    elif what == "release" and key in play.held():
        play.say(events.TaskReleased(key))
    elif what in ("wait", "long"):
        run(play, 70 if what == "long" else 10)


def let_go(play: Play) -> None:
    """Give back all claims."""
    for key in play.queue():
        play.say(events.TaskCancelled(key))
    for key in play.held():
        play.say(events.TaskReleased(key))
    for key in (f"t{number}" for number in range(6)):
        if play.status(key) is TaskStatus.RESERVED:
            play.say(events.TaskUnreserved(key))
    assert play.state.drained


@profile(deadline=None, max_examples=60)
@given(
    capacity=st.integers(1, 3),
    max_instances=st.sampled_from([0, 3]),
    idle_count=st.integers(0, 3),
    preemptive=st.booleans(),
    placement=st.sampled_from(Placement),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["reserve", "unreserve", "ask", "ask", "release", "wait", "long"]),
            st.integers(0, 5),
        ),
        max_size=60,
    ),
)
def test_every_promise_is_kept_and_pollers_keep_nothing_for_ever(
    capacity: int,
    max_instances: int,
    idle_count: int,
    preemptive: bool,  # noqa: FBT001 - Hypothesis passes everything by name
    placement: Placement,
    steps: list[tuple[str, int]],
) -> None:
    """Whatever tasks do: what was promised is free (I7); in the end only the target is idle."""
    policy = Policy(idle_count=idle_count, idle_time=MINUTE, preemptive_mode=preemptive)
    settings = Settings(
        capacity_per_instance=capacity,
        max_instances=max_instances,
        policy=policy,
        placement=placement,
    )
    play = Play(settings, GroupInfo("a"), GroupInfo("b", 2))
    idle(play, 3)
    for what, number in steps:
        act(play, what, f"t{number}")
        demand = play.state.demand()
        assert not preemptive or demand.reserved <= demand.free, "I7 between the steps"
    let_go(play)
    for number in range(25):
        poll(play, number)
    assert ready(play) * capacity < idle_count + capacity
    assert ready(play) * capacity >= min(idle_count, max_instances * capacity or idle_count)
