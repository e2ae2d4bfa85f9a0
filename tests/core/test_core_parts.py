"""The parts of the core that are functions or small structures, each for itself."""

from __future__ import annotations

import gc
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core_model import Play
from fleeting.errors import OutOfCapacity, PermissionDenied
from fleeting.types import Accepted, CreationFailure, Instance, Listing, State
from taskscaler.core import Demand, OperationRecord, Policy, Settings, effects, events, explain
from taskscaler.core.model.agenda import Agenda
from taskscaler.core.model.demand import target_idle
from taskscaler.core.model.indexes import AgeQueue, SlotIndex
from taskscaler.core.model.lifecycle import TRANSITIONS, Phase, Trigger
from taskscaler.core.model.listing import ListingSchedule
from taskscaler.core.model.members import Members
from taskscaler.core.model.operations import Operation, Operations
from taskscaler.core.model.tasks import TaskBook
from taskscaler.core.model.throttle import Backoff

if TYPE_CHECKING:
    from taskscaler.core.model.instance import TrackedInstance

START = datetime(2026, 3, 1, tzinfo=UTC)

counts = st.integers(0, 1000)
demands = st.builds(
    Demand,
    waiting=counts,
    reserved=counts,
    promised=st.just(0),
    acquired=counts,
    free=counts,
    coming=counts,
    unavailable=counts,
    target=counts,
    slots_per_instance=st.integers(1, 20),
    instances=counts,
    max_instances=counts,
    recent=counts,
    recovering=counts,
    endangered=counts,
)


@given(demands)
def test_wanted_instances_just_cover_the_shortfall(demand: Demand) -> None:
    """The instances wanted are the fewest that cover the tasks that wait and the idle target."""
    bought = demand.wanted * demand.slots_per_instance
    assert bought >= demand.shortfall
    assert bought - demand.slots_per_instance < max(demand.shortfall, 1)


@given(demands)
def test_nothing_is_bought_and_removable_at_once(demand: Demand) -> None:
    """A shortfall and a surplus exclude each other, so no removal can cause a purchase."""
    assert not (demand.wanted and demand.surplus > 0)


@given(demands)
def test_surplus_is_needed_by_neither_tasks_nor_the_policy(demand: Demand) -> None:
    """Waiting tasks come first; reservations and the idle target may be the same slots.

    Coming slots serve waiting tasks, and do not replace ready ones.
    """
    unserved = max(0, demand.waiting + demand.endangered - demand.coming)
    now = demand.free - unserved - max(demand.reserved, demand.target)
    assert demand.surplus == min(now, demand.acquired + demand.free - demand.recent)
    assert demand.surplus <= demand.free
    there = demand.free + demand.coming + demand.recovering
    assert demand.shortfall >= demand.waiting + demand.endangered + demand.target - there


@given(demands)
def test_room_is_the_rest_of_the_limit(demand: Demand) -> None:
    """Nothing can be added at or above the limit; zero means no limit."""
    if demand.max_instances == 0:
        assert demand.room is None
    else:
        assert demand.room == max(0, demand.max_instances - demand.instances)


@pytest.mark.parametrize(
    ("policy", "acquired", "target"),
    [
        (Policy(), 100, 0),
        (Policy(idle_count=3), 0, 3),
        (Policy(idle_count=3, scale_factor=0.5), 4, 3),
        (Policy(idle_count=3, scale_factor=0.5), 7, 4),
        (Policy(scale_factor=0.1), 1, 1),
        (Policy(scale_factor=2.0, scale_factor_limit=5), 10, 5),
        (Policy(idle_count=9, scale_factor=2.0, scale_factor_limit=5), 10, 9),
    ],
)
def test_idle_target_is_the_larger_of_count_and_factor(
    policy: Policy, acquired: int, target: int
) -> None:
    """The factor is rounded up and limited; the count is a floor."""
    assert target_idle(policy, acquired) == target


@pytest.mark.parametrize(
    ("policy", "preemptive"),
    [
        (Policy(), False),
        (Policy(idle_count=1), True),
        (Policy(idle_count=1, preemptive_mode=False), False),
        (Policy(preemptive_mode=True), True),
    ],
)
def test_preemptive_mode_follows_the_idle_count_unless_told(
    policy: Policy,
    preemptive: bool,  # noqa: FBT001 - pytest passes parameters by name
) -> None:
    """Reservations need a free slot exactly if idle ones are kept, or as the operator says."""
    assert policy.preemptive is preemptive


@pytest.mark.parametrize(
    "wrong",
    [{"capacity_per_instance": 0}, {"max_instances": -1}, {"max_use_count": -1}],
)
def test_settings_refuse_impossible_values(wrong: dict[str, int]) -> None:
    """A message names the setting that is wrong."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Settings(**wrong)  # type: ignore[arg-type] # one key of the right type each


NOW = events.Now(0.0, START)


def members(capacity: int, max_use_count: int = 0) -> Members:
    """Return the members of a group, none so far."""
    settings = Settings(capacity_per_instance=capacity, max_use_count=max_use_count)
    return Members("g", settings, Agenda())


def ready(members: Members, number: int) -> TrackedInstance:
    """Return another ready instance."""
    instance = members.add(f"i{number}", State.RUNNING, None, Phase.CREATING, NOW)
    members.step(instance, Trigger.RUNS)
    members.step(instance, Trigger.PREPARED)
    return instance


@given(
    spread=st.booleans(),
    capacity=st.integers(1, 4),
    choices=st.lists(st.tuples(st.sampled_from(["new", "take", "give", "go"]), st.integers(0, 99))),
)
def test_slot_search_agrees_with_a_scan(
    spread: bool,  # noqa: FBT001 - Hypothesis passes arguments by name
    capacity: int,
    choices: list[tuple[str, int]],
) -> None:
    """Packing finds the fullest instance, spreading the emptiest, the oldest among equals."""
    group = members(capacity)
    index = SlotIndex(capacity, Agenda(), spread=spread)
    serving: list[TrackedInstance] = []
    for step, (what, number) in enumerate(choices):
        best = index.best()
        if what == "new":
            instance = ready(group, step)
            serving.append(instance)
            index.update(instance)
        elif what == "take" and best is not None:
            index.acquire(best, f"t{step}")
        elif serving:
            instance = serving[number % len(serving)]
            if what == "give" and instance.tasks:
                index.release(instance, next(iter(instance.tasks)))
            elif what == "go":
                group.step(instance, Trigger.DISMISSED)
                serving.remove(instance)
                index.update(instance)
        able = [one for one in serving if one.available]
        sign = -1 if spread else 1
        expected = min(able, key=lambda one: (sign * one.available, one.number), default=None)
        assert index.best() is expected
        assert index.free == sum(one.available for one in able)
        assert index.acquired == sum(len(one.tasks) for one in group)


def test_slot_search_keeps_no_more_dead_entries_than_live_ones() -> None:
    """Instances that come and go below one that stays are not remembered for ever."""
    group = members(2)
    index = SlotIndex(2, Agenda(), spread=False)
    oldest = ready(group, 0)
    index.update(oldest)
    for number in range(1, 5000):
        instance = ready(group, number)
        index.update(instance)
        group.step(instance, Trigger.DISMISSED)
        index.update(instance)
    assert index.best() is oldest
    assert sum(len(bucket) for bucket in index._buckets) < 100


def test_lowest_free_slot_is_given_and_uses_are_counted() -> None:
    """Slot numbers start at 0 and are used again; each start of a task is a use."""
    instance = ready(members(3, max_use_count=4), 1)
    assert [instance.acquire(key) for key in "abc"] == [0, 1, 2]
    assert instance.available == 0
    instance.release("b")
    assert instance.available == 1
    assert instance.acquire("d") == 1
    instance.release("a")
    assert (instance.used, instance.used_up, instance.available) == (4, True, 0)


# How an instance gets into each phase.
PATHS = {
    Phase.CREATING: (),
    Phase.PREPARING: (Trigger.RUNS,),
    Phase.READY: (Trigger.RUNS, Trigger.PREPARED),
    Phase.DRAINING: (Trigger.RUNS, Trigger.RETURNED),
    Phase.SUSPENDING: (Trigger.RUNS, Trigger.STOPS),
    Phase.SUSPENDED: (Trigger.STOPPED,),
    Phase.RESUMING: (Trigger.STOPPED, Trigger.WAKES),
    Phase.REMOVING: (Trigger.DISMISSED, Trigger.CLEARED),
    Phase.FOREIGN: (),
    Phase.GONE: (Trigger.VANISHED,),
}


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("trigger", Trigger)
def test_phases_change_only_as_the_table_says(phase: Phase, trigger: Trigger) -> None:
    """A trigger leads where the table says, or is refused with nothing changed."""
    group = members(1)
    first = Phase.FOREIGN if phase is Phase.FOREIGN else Phase.CREATING
    instance = group.add("i", State.RUNNING, None, first, NOW)
    for step in PATHS[phase]:
        group.step(instance, step)
    assert instance.phase is phase
    if trigger in TRANSITIONS[phase]:
        group.step(instance, trigger)
        assert instance.phase is TRANSITIONS[phase][trigger]
    else:
        with pytest.raises(KeyError):
            group.step(instance, trigger)
        assert instance.phase is phase
    assert len(group) == (instance.phase is not Phase.GONE)


def test_every_instance_can_be_dismissed_and_can_vanish() -> None:
    """Both are defined for every phase, and nothing leads back from GONE."""
    alive = {phase: moves for phase, moves in TRANSITIONS.items() if phase is not Phase.GONE}
    assert all(moves[Trigger.VANISHED] is Phase.GONE for moves in alive.values())
    assert all(Trigger.DISMISSED in moves for moves in alive.values())
    assert all(
        TRANSITIONS[moves[Trigger.DISMISSED]].get(Trigger.CLEARED) is Phase.REMOVING
        for phase, moves in alive.items()
        if phase is not Phase.REMOVING
    )
    assert TRANSITIONS[Phase.GONE] == {}


def test_pauses_double_up_to_the_limit_and_end_with_a_success() -> None:
    """A failure during a pause belongs to the one that caused it."""
    backoff = Backoff()
    first, limit = timedelta(seconds=1), timedelta(seconds=5)
    pauses: list[float] = []
    now = 100.0
    for _ in range(5):
        backoff.failed(now, "no", first=first, limit=limit)
        backoff.failed(now, "no again", first=first, limit=limit)
        pauses.append(backoff.until - now)
        now = backoff.until
    assert pauses == [1, 2, 4, 5, 5]
    assert (backoff.failures, backoff.reason) == (5, "no again")
    backoff.succeeded(now)
    assert (backoff.failures, backoff.until, backoff.reason) == (0, 0.0, "")


def test_a_pause_is_as_long_as_the_cloud_asks_for() -> None:
    """The cloud's pause counts if it is longer than ours, even beyond the limit."""
    backoff = Backoff()
    second = timedelta(seconds=1)
    backoff.failed(0.0, "slow down", first=second, limit=second, retry_after=timedelta(seconds=90))
    assert backoff.until == 90.0


def test_operations_are_claimed_the_oldest_first_and_closed_when_done() -> None:
    """An instance is set against the oldest operation that waits for one."""
    operations = Operations()
    for name, count in (("a", 2), ("b", 1)):
        operations.add(Operation(name, count, 0.0, START))
    assert operations.unanswered
    assert "a" in operations
    assert [getattr(operations.claim(one), "id", None) for one in "wxyz"] == ["a", "a", "b", None]
    assert operations.outstanding == 0
    assert all(name in operations for name in "ab"), "open until they are answered"
    operations.settle("a", 2)
    assert not operations.is_open(operations.settle("b", None))
    assert not any(name in operations for name in "ab")


def test_failed_instances_are_not_expected_any_more() -> None:
    """Failures count against answered operations only, the oldest first."""
    operations = Operations()
    for name in "abc":
        operations.add(Operation(name, 2, 0.0, START))
    operations.settle("b", 2)
    operations.settle("c", 1)
    assert [one.id for one in operations.fail(3)] == ["b", "c"]
    assert operations.outstanding == 2
    assert operations.fail(1) == []
    operations.add(Operation("d", 2, 0.0, START))
    operations.add(Operation("e", 2, 0.0, START))
    operations.settle("d", 2)
    operations.settle("e", 2)
    assert [one.id for one in operations.fail(1)] == ["d"], "what is counted out is left alone"


def test_only_answered_operations_are_written_off() -> None:
    """An operation whose call is still under way is not given up, however old."""
    operations = Operations()
    operations.add(Operation("a", 2, 10.0, START))
    operations.add(Operation("b", 2, 10.0, START))
    operations.settle("b", None)
    assert operations.write_off(9.0, 0) == {}
    assert {one.id: lost for one, lost in operations.write_off(10.0, 0).items()} == {"b": 2}
    assert "a" in operations


def test_queue_serves_in_order_and_forgets_the_cancelled() -> None:
    """A task that was cancelled and asks again goes to the end of the queue."""
    tasks = TaskBook(Agenda())
    for key in "abc":
        tasks.wait(key)
    tasks.cancel("a")
    tasks.wait("a")
    assert list(tasks.waiting) == ["b", "c", "a"]
    assert [tasks.take_next() for _ in range(3)] == ["b", "c", "a"]
    assert not tasks.waiting


def test_outbox_stores_the_newest_of_each_record_before_anything_else() -> None:
    """A record that is put and dropped in one event is only dropped, and the other way round."""
    out = effects.Outbox()
    old, new = (OperationRecord("g", "o", count, START) for count in (1, 2))
    out.put(old)
    out.drop(old.key)
    out.put(new)
    out.put(OperationRecord("g", "p", 1, START))
    out.drop(("operation", "g", "p"))
    (persist,) = out.finish()
    assert persist.put == (new,)  # type: ignore[attr-defined] # a Persist, or the test fails here
    assert persist.drop == (("operation", "g", "p"),)  # type: ignore[attr-defined] # as above


def test_an_instance_that_does_not_belong_is_not_queued_by_age() -> None:
    """It would have to be dropped again."""
    group = members(1)
    queue = AgeQueue(lambda _: None, group)
    queue.add(ready(group, 1))
    assert queue.bound() is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("throttle_limit", 0.0),
        ("throttle_burst", -1),
        ("failure_threshold", 0),
        ("shutdown_deletion_retries", -1),
        ("cooldown", timedelta(seconds=-1)),
        ("probe_timeout", timedelta(0)),
    ],
)
def test_further_settings_that_cannot_be_meant_are_refused(name: str, value: object) -> None:
    """The message names the setting."""
    with pytest.raises(ValueError, match=name):
        Settings(**{name: value})  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - of many types


# Refusals of a provider.


def test_an_instance_whose_provider_refuses_is_kept_and_prepared_again() -> None:
    """A missing permission is the fault of the group: growth pauses, the instance does not go."""
    play = Play(Settings(max_instances=2))
    play.list()
    play.say(events.TaskAsked("a"))
    play.tick()
    play.take(effects.Increase)
    play.relist(Instance("i", State.RUNNING))
    play.take(effects.Prepare)
    refusal = PermissionDenied("SendSSHPublicKey is not allowed")
    play.say(events.PreparationFailed("g", "i", "not allowed", refusal))
    assert play.phase("i") is Phase.PREPARING
    assert play.take(effects.Prepare).pause_seconds == 300.0
    assert play.failures() == 1
    assert "instance i did not become ready: not allowed" in explain(play.state.standing())
    play.say(events.TaskAsked("b"))
    play.tick(60.0)
    assert not play.has(effects.Increase)
    play.say(events.InstancePrepared("g", "i"))
    assert play.phase("i") is Phase.READY


def test_no_instance_is_replaced_because_its_provider_refuses() -> None:
    """Checks that the provider refuses let the instance serve no one, but replace it never."""
    play = Play()
    play.ready("i")
    for _ in range(10):
        play.tick(600.0)
        if play.has(effects.CheckHealth):
            play.take(effects.CheckHealth)
            play.say(events.HealthFailed("g", "i", "no", PermissionDenied("no")))
    assert play.phase("i") is Phase.READY


# Failures that listings repeat.


def test_a_failure_that_is_listed_again_is_one_failure() -> None:
    """A failure counts once, however many listings have it; its id tells."""
    play = Play()
    play.list()
    for number in range(2):
        play.say(events.TaskAsked(f"task-{number}"))
    play.tick()
    increase = play.take(effects.Increase)
    play.say(events.IncreaseSettled("g", increase.operation, Accepted(2)))
    one, two = (CreationFailure(id, OutOfCapacity("none left")) for id in ("1", "2"))
    for failures, count in (((one,), 1), ((one,), 1), ((one, two), 2), ((two,), 2)):
        play.tick(60.0)
        play.take(effects.List)
        play.say(events.ListingArrived("g", Listing(failures=failures)))
        assert play.failures() == count
        play.todo.clear()


def test_only_the_newest_failures_are_remembered() -> None:
    """Ids that no listing has any more are forgotten, the oldest first."""
    schedule = ListingSchedule(Agenda())
    failures = [CreationFailure(str(n), OutOfCapacity("none left")) for n in range(1_500)]
    assert len(schedule.take_new(failures)) == 1_500
    assert schedule.take_new(failures) == []
    schedule.take_new(failures[1_400:])
    assert len(schedule.take_new(failures[:1_400])) == 500


def test_many_instances_cost_the_garbage_collector_nothing() -> None:
    """It visits neither them, nor what finds them by their ids or free slots."""
    play = Play(Settings(policy=Policy(idle_time=timedelta(hours=9)), capacity_per_instance=2))
    play.ready("a", "b")
    group = play.state._fleet.group("g")
    gc.collect()
    for instance in group.members:
        assert instance.tasks
        assert not any(gc.is_tracked(one) for one in (instance, instance.health, instance.tasks))
    assert not gc.is_tracked(group.members._by_id)
    assert not any(gc.is_tracked(entry) for bucket in group.slots._buckets for entry in bucket)


def test_many_waiting_tasks_cost_the_garbage_collector_nothing() -> None:
    """The queue has an entry for each, and no object that the collector visits."""
    play = Play()
    play.list()
    gc.collect()
    before = len(gc.get_objects())
    for number in range(1_000):
        play.state.apply(events.TaskAsked(f"t{number}"), events.Now(1.0, START))
    gc.collect()
    assert len(gc.get_objects()) - before < 100
