"""Decisions in situations that an operator would recognise."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest

from core_model import START, Play, picture
from fleeting.errors import OutOfCapacity, PermissionDenied
from fleeting.types import Accepted, GroupInfo, Instance, Listing, State
from taskscaler import IllegalEvent
from taskscaler.core import (
    InstanceRecord,
    OperationRecord,
    Phase,
    Placement,
    Policy,
    Rule,
    ScalerState,
    Settings,
    effects,
    events,
    explain,
)

ROOMY = Policy(idle_time=timedelta(minutes=20))


def test_first_thing_is_a_listing_and_nothing_is_decided_before_it() -> None:
    """A group is not scaled before it is known what it has."""
    play = Play()
    play.say(events.TaskAsked("a"))
    play.tick()
    assert not play.has(effects.Increase)
    assert "not listed yet" in explain(play.state.standing())
    play.list()
    assert play.take(effects.Increase).count == 1


def test_tasks_that_wait_are_bought_for_in_one_request() -> None:
    """Ten tasks on instances of four slots make one request for three instances, with reasons."""
    play = Play(Settings(capacity_per_instance=4))
    play.list()
    for number in range(10):
        play.say(events.TaskAsked(f"t{number}"))
    play.tick()
    increase = play.take(effects.Increase)
    assert increase.count == 3
    assert increase.decision.rule is Rule.TASKS_WAIT
    assert increase.decision.demand.waiting == 10
    assert (increase.decision.wanted, increase.decision.clamped_by) == (3, "")
    play.say(events.TaskAsked("late"))
    play.tick()
    assert not play.has(effects.Increase), "room for twelve is on its way"


def test_an_increase_is_stored_before_it_is_asked_for() -> None:
    """The record of the operation is in front of the request, under the same name."""
    play = Play()
    play.list()
    play.say(events.TaskAsked("a"))
    answer = play.tick()
    kinds = [type(effect) for effect in answer]
    assert kinds.index(effects.Persist) < kinds.index(effects.Increase)
    persist, increase = play.take(effects.Persist), play.take(effects.Increase)
    assert OperationRecord("g", increase.operation, 1, START) in persist.put


@pytest.mark.parametrize("placement", Placement)
def test_placement_fills_or_spreads(placement: Placement) -> None:
    """With one slot used on `b`, packing goes on there, spreading goes to the empty `a`."""
    play = Play(Settings(capacity_per_instance=3, placement=placement, policy=ROOMY))
    play.ready("a", "b")
    held = {one.key: one.instance for one in play.state.held()}
    on_b = [key for key, instance in held.items() if instance == "b"]
    for key in held:
        if key != on_b[0]:
            play.say(events.TaskReleased(key))
    play.todo.clear()
    play.say(events.TaskAsked("new"))
    assert play.take(effects.Grant).id == ("b" if placement is Placement.PACK else "a")


def test_idle_instances_go_after_their_time_and_the_rest_stays_as_policy_wants() -> None:
    """Of three idle instances two go when the policy keeps one slot idle."""
    policy = Policy(idle_count=1, idle_time=timedelta(seconds=60), preemptive_mode=False)
    play = Play(Settings(policy=policy))
    for number in range(3):
        play.say(events.TaskAsked(f"t{number}"))
    play.list()
    play.grow("a", "b", "c", "d")
    for number in range(3):
        play.say(events.TaskReleased(f"t{number}"))
    play.todo.clear()
    play.tick(59.0)
    assert not play.has(effects.Decrease)
    play.tick(1.0)
    decrease = play.take(effects.Decrease)
    assert len(decrease.ids) == 3
    assert [one.rule for one in decrease.decisions] == [Rule.IDLE]
    assert [*play.phases().values()].count(Phase.READY) == 1


def test_an_instance_serves_as_often_as_it_may_and_is_then_removed() -> None:
    """Its free slots are unavailable from its last use on; it goes when the last task ends."""
    play = Play(Settings(capacity_per_instance=2, max_use_count=3, policy=ROOMY))
    play.ready("a")
    play.say(events.TaskReleased("task-0"))
    play.say(events.TaskAsked("third"))
    assert play.phase("a") is Phase.DRAINING
    play.say(events.TaskReleased("third"))
    demand = play.state.demand()
    assert (demand.acquired, demand.free, demand.unavailable) == (1, 0, 1)
    play.tick()
    assert not play.has(effects.Decrease)
    play.say(events.TaskReleased("task-1"))
    play.tick()
    decrease = play.take(effects.Decrease)
    assert decrease.decisions[0].rule is Rule.USED_UP
    assert "use count" in decrease.decisions[0].detail


def test_the_next_group_takes_over_when_the_first_has_no_capacity() -> None:
    """A refusal makes the first group pause; the rest of the demand goes to the next one."""
    play = Play(Settings(max_instances=3), GroupInfo("spot", 2), GroupInfo("on-demand"))
    play.list(group="spot")
    play.list(group="on-demand")
    for key in "abc":
        play.say(events.TaskAsked(key))
    play.tick()
    spot, other = play.take(effects.Increase, "spot"), play.take(effects.Increase, "on-demand")
    assert (spot.count, spot.decision.clamped_by) == (2, "the group's size of 2")
    assert other.count == 1
    refusal = Accepted(0, error=OutOfCapacity("none of these today"))
    play.say(events.IncreaseSettled("spot", spot.operation, refusal))
    play.say(events.IncreaseSettled("on-demand", other.operation, Accepted(1)))
    play.tick(1.0)
    assert play.take(effects.Increase, "on-demand").count == 2
    assert "none of these today" in explain(play.state.standing())


def test_a_group_that_cannot_be_listed_is_passed_over() -> None:
    """The next group serves meanwhile, and the sentence says why."""
    play = Play(Settings(), GroupInfo("a"), GroupInfo("b"))
    play.take(effects.List, "a")
    play.say(events.ListingFailed("a", PermissionDenied("the key has expired")))
    play.list(group="b")
    play.say(events.TaskAsked("t"))
    play.tick()
    assert play.take(effects.Increase).group == "b"
    assert "the key has expired" in explain(play.state.standing())


def test_reservations_without_preemption_count_on_instances_that_can_be_created() -> None:
    """The limit of two instances with two slots gives four reservations, and a reason after."""
    play = Play(Settings(capacity_per_instance=2, max_instances=2), GroupInfo("g", 5))
    play.list()
    for number in range(4):
        assert play.say(events.TaskReserved(f"r{number}")) == []
    (refusal,) = play.say(events.TaskReserved("r4"))
    assert isinstance(refusal, effects.Refuse)
    assert "no more can be added" in refusal.why
    assert "4 reserved" in refusal.why
    play.tick()
    assert not play.has(effects.Increase), "a reservation buys nothing"
    play.say(events.TaskUnreserved("r0"))
    assert play.say(events.TaskReserved("r4")) == []


def test_without_any_limit_every_reservation_is_possible() -> None:
    """There is always potential capacity, and with a group's own size there is that."""
    play = Play()
    assert all(play.say(events.TaskReserved(str(number))) == [] for number in range(1000))
    sized = Play(Settings(), GroupInfo("g", 1))
    assert sized.say(events.TaskReserved("a")) == []
    assert isinstance(sized.say(events.TaskReserved("b"))[0], effects.Refuse)


def test_preemptive_reservations_are_promises_of_slots_that_are_free_now() -> None:
    """No other task gets such a slot, and the task with the promise gets it before the queue."""
    policy = Policy(idle_count=1, idle_time=timedelta(minutes=20))
    play = Play(Settings(policy=policy, max_instances=1))
    assert isinstance(play.say(events.TaskReserved("early"))[0], effects.Refuse)
    play.list()
    assert play.take(effects.Increase).decision.rule is Rule.IDLE_CAPACITY
    play.say(events.IncreaseSettled("g", "op-1", Accepted(1)))
    play.relist(Instance("a", State.RUNNING))
    play.say(events.InstancePrepared("g", "a"))
    assert play.say(events.TaskReserved("promised")) == []
    play.todo.clear()
    play.say(events.TaskAsked("other"))
    assert not play.has(effects.Grant)
    play.say(events.SettingsChanged(play.state.settings))
    assert not play.has(effects.Grant), "whatever makes it look again"
    play.say(events.TaskAsked("promised"))
    assert play.take(effects.Grant).key == "promised"
    play.say(events.TaskReleased("promised"))
    assert play.take(effects.Grant).key == "other"


def test_a_reservation_protects_capacity_from_removal() -> None:
    """An idle instance stays while a reservation counts on it, and goes afterwards."""
    play = Play(Settings(policy=Policy()))
    play.ready("a")
    play.say(events.TaskReserved("later"))
    play.say(events.TaskReleased("task-0"))
    play.tick(10.0)
    assert not play.has(effects.Decrease)
    play.say(events.TaskUnreserved("later"))
    play.tick(0.1)
    assert play.take(effects.Decrease).ids == ("a",)


def test_a_restart_finds_instances_use_counts_and_open_requests_again() -> None:
    """Known instances are prepared again, used-up and interrupted ones go, promises still count."""
    records = (
        InstanceRecord("g", "fresh", None, START, 1, ()),
        InstanceRecord("g", "used-up", None, START, 2, ()),
        InstanceRecord("g", "busy", None, START, 1, ("task",)),
        InstanceRecord("elsewhere", "x", None, START, 1, ()),
        OperationRecord("g", "old-1", 1, START),
    )
    play = Play(Settings(max_use_count=2), records=records)
    running = [Instance(id, State.RUNNING) for id in ("fresh", "used-up", "busy", "promised")]
    play.list(*running)
    prepared = {one.id for one in play.todo if isinstance(one, effects.Prepare)}
    assert prepared == {"fresh", "promised"}
    assert set(play.take(effects.Decrease).ids) == {"used-up", "busy"}
    assert play.one("fresh").used == 1
    assert play.state.expected == 0
    with pytest.raises(IllegalEvent):
        play.say(events.RecordsRestored(()))


def test_restored_instances_that_are_gone_are_forgotten() -> None:
    """An instance that is missing from the listings is dropped from the store."""
    record = InstanceRecord("g", "a", "1", START, 0, ())
    play = Play(Settings(), records=[record])
    play.list()
    play.todo.clear()
    play.relist()
    assert play.take(effects.Gone).id == "a"
    assert play.take(effects.Persist).drop == (record.key,)


def test_settings_that_cannot_change_are_refused_and_the_others_act_at_once() -> None:
    """A lowered limit creates nothing; what cannot change is named."""
    play = Play(Settings(max_instances=1))
    play.list()
    for key in "ab":
        play.say(events.TaskAsked(key))
    play.tick()
    play.take(effects.Increase)
    before = picture(play.state)
    wrong = replace(play.state.settings, capacity_per_instance=2)
    with pytest.raises(IllegalEvent, match="capacity_per_instance"):
        play.say(events.SettingsChanged(wrong))
    assert picture(play.state) == before
    play.say(events.IncreaseSettled("g", "op-1", Accepted(1)))
    play.say(events.SettingsChanged(replace(play.state.settings, max_instances=2)))
    play.tick(1.0)
    assert play.take(effects.Increase).count == 1


def test_shutdown_refuses_tasks_and_removes_everything_that_is_ours() -> None:
    """Waiting tasks are refused, running ones lose their slots, late arrivals are removed too."""
    play = Play(Settings(policy=ROOMY))
    play.ready("a")
    play.say(events.TaskAsked("waits"))
    play.tick()
    increase = play.take(effects.Increase)
    play.say(events.ShutdownAsked(remove=True))
    play.tick()
    assert play.take(effects.Refuse).key == "waits"
    assert play.take(effects.Revoke).key == "task-0"
    assert play.take(effects.Decrease).decisions[0].rule is Rule.SHUTDOWN
    play.say(events.DecreaseSettled("g", ("a",), Accepted(1, ("a",))))
    play.say(events.IncreaseSettled("g", increase.operation, Accepted(1)))
    before = play.state.finished
    play.relist(Instance("late", State.RUNNING))
    assert play.take(effects.Decrease).ids == ("late",)
    play.say(events.DecreaseSettled("g", ("late",), Accepted(1, ("late",))))
    play.relist()
    play.relist()
    assert (before, play.state.finished) == (False, True)
    for event in (events.TaskReserved("x"), events.TaskAsked("y")):
        assert isinstance(play.say(event)[0], effects.Refuse)


def test_shutdown_without_removal_is_finished_at_once() -> None:
    """The instances stay as they are, and no decision touches them any more."""
    play = Play(Settings(policy=Policy()))
    play.ready("a")
    play.say(events.ShutdownAsked(remove=False))
    assert play.state.finished
    play.say(events.TaskReleased("task-0"))
    play.tick(100.0)
    assert not play.has(effects.Decrease)


@pytest.mark.parametrize(
    "event",
    [
        events.ListingArrived("nowhere", Listing()),
        events.IncreaseSettled("g", "never-asked", Accepted(1)),
        events.TaskUnreserved("unknown"),
        events.TaskCancelled("unknown"),
        events.TaskReleased("unknown"),
    ],
)
def test_impossible_events_are_refused(event: events.Event) -> None:
    """An impossible event raises, and nothing has changed."""
    play = Play()
    before = picture(play.state)
    with pytest.raises(IllegalEvent):
        play.say(event)
    assert picture(play.state) == before


@pytest.mark.parametrize("groups", [(), (GroupInfo("a"), GroupInfo("a"))])
def test_a_scaler_needs_groups_and_each_once(groups: tuple[GroupInfo, ...]) -> None:
    """A fleet that is named twice would be scaled twice."""
    with pytest.raises(IllegalEvent):
        ScalerState(groups, Settings(), name="op")


def test_explanation_names_the_numbers_and_the_limit() -> None:
    """One sentence says how much there is, and what holds more back."""
    play = Play(Settings(max_instances=1, policy=ROOMY))
    play.ready("a")
    assert explain(play.state.standing()).startswith("no task waits; 1 slot in use")
    play.say(events.TaskAsked("next"))
    play.tick()
    assert explain(play.state.standing()) == (
        "1 task waits for a slot: 1 slot in use, 0 free, 0 coming; "
        "1 of at most 1 instance (1 ready); g: held back by max_instances"
    )
    play.say(events.TaskAsked("another"))
    assert explain(play.state.standing()).startswith("2 tasks wait")


def test_a_demand_that_just_fits_is_not_clamped() -> None:
    """Exactly as many as the group and the limit allow is not reported as held back."""
    play = Play(Settings(max_instances=2), GroupInfo("g", 2))
    play.list()
    for key in "ab":
        play.say(events.TaskAsked(key))
    play.tick()
    assert play.take(effects.Increase).decision.clamped_by == ""


def test_a_shorter_interval_takes_effect_at_once() -> None:
    """A shortened interval applies at once."""
    play = Play()
    play.list()
    play.todo.clear()
    shorter = replace(play.state.settings, update_interval=timedelta(seconds=5))
    play.say(events.SettingsChanged(shorter))
    play.tick(5.0)
    assert play.has(effects.List)


def test_shutdown_waits_for_instances_and_for_those_that_may_yet_come() -> None:
    """Either one alone is enough to go on."""
    play = Play()
    play.list()
    play.say(events.TaskAsked("a"))
    play.tick()
    increase = play.take(effects.Increase)
    play.say(events.ShutdownAsked(remove=True))
    assert not play.state.finished, "an answer is awaited"
    play.say(events.IncreaseSettled("g", increase.operation, Accepted(1)))
    play.tick()
    assert not play.state.finished, "an instance is awaited"
    play.relist(Instance("late", State.RUNNING))
    assert not play.state.finished, "an instance is to be removed"


def test_a_held_slot_is_stored_until_it_is_released() -> None:
    """The record of an instance names its tasks and counts its uses before the slot is given."""
    play = Play(Settings(policy=ROOMY))
    play.ready("a")
    play.todo.clear()
    a = play.one("a")
    record = InstanceRecord("g", "a", None, a.created_at, 1, (), ready_at=a.ready_at)
    play.say(events.TaskReleased("task-0"))
    assert play.take(effects.Persist).put == (record,)
    play.say(events.TaskAsked("next"))
    persist = play.todo[0]
    assert isinstance(persist, effects.Persist)
    assert persist.put == (msgspec.structs.replace(record, used=2, tasks=("next",)),)
    assert isinstance(play.todo[1], effects.Grant)


def test_reservations_count_on_coming_instances() -> None:
    """At the limit, slots on an instance that is being created can still be reserved."""
    play = Play(Settings(capacity_per_instance=2, max_instances=1))
    play.list()
    play.say(events.TaskAsked("a"))
    play.tick()
    assert play.say(events.TaskReserved("b")) == []
    assert isinstance(play.say(events.TaskReserved("c"))[0], effects.Refuse)


def test_a_change_out_of_preemptive_mode_serves_waiting_tasks_at_once() -> None:
    """A slot that was promised to a reservation is then free for all tasks."""
    policy = Policy(idle_count=1, idle_time=timedelta(minutes=20))
    play = Play(Settings(policy=policy, max_instances=1))
    play.list()
    play.grow("a")
    assert play.say(events.TaskReserved("promised")) == []
    play.say(events.TaskAsked("waits"))
    assert "waits" in play.queue()
    relaxed = replace(play.state.settings, policy=replace(policy, preemptive_mode=False))
    play.say(events.SettingsChanged(relaxed))
    assert play.take(effects.Grant).key == "waits"
