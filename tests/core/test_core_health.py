"""Checks of instances: before a slot is handed out, and from time to time."""

from __future__ import annotations

from datetime import timedelta

import pytest

from core_model import START, Play
from fleeting.types import Accepted, Capability, GroupInfo, Instance, State
from taskscaler.core import Phase, Policy, Rule, Settings, effects, events
from taskscaler.core.model.checks import CHECKS_AT_ONCE
from taskscaler.core.model.decisions import Clamp

ROOMY = Policy(idle_time=timedelta(hours=10))
QUIET = timedelta(0)


def settings(**changes: object) -> Settings:
    """Return settings under which idle instances stay, and nothing is checked by the clock."""
    values = {"policy": ROOMY, "heartbeat_interval": QUIET, "capacity_per_instance": 2} | changes
    return Settings(**values)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - of many types


def idle(play: Play, *ids: str) -> None:
    """Get ready instances without tasks."""
    play.ready(*ids)
    for number in range(len(ids) * play.state.settings.capacity_per_instance):
        play.say(events.TaskReleased(f"task-{number}"))
    play.todo.clear()


def test_a_slot_on_an_instance_that_proved_itself_lately_is_handed_out_at_once() -> None:
    """Within `probe_after` of a task's end there is nothing to wait for."""
    play = Play(settings())
    idle(play, "a")
    play.say(events.TaskAsked("next"), after=9.9)
    assert play.take(effects.Grant).key == "next"
    assert not play.has(effects.CheckHealth)


def test_a_slot_behind_a_silent_connection_is_handed_out_when_the_check_has_passed() -> None:
    """One check serves all tasks that wait for it, in their order, and asks no cloud."""
    play = Play(settings())
    idle(play, "a")
    play.say(events.TaskAsked("first"), after=10.0)
    play.say(events.TaskAsked("second"))
    assert not play.has(effects.Grant)
    check = play.take(effects.CheckHealth)
    assert (check.group, check.id, check.timeout_seconds, check.cloud) == ("g", "a", 10.0, False)
    answer = play.say(events.HealthPassed("g", "a"), after=3.0)
    grants = [one for one in answer if isinstance(one, effects.Grant)]
    assert [(one.key, one.slot) for one in grants] == [("first", 0), ("second", 1)]
    play.say(events.TaskReleased("first"))
    play.say(events.TaskAsked("third"), after=9.0)
    assert "third" in play.held()
    assert not play.has(effects.CheckHealth), "it proved itself 9 seconds ago"


def test_the_end_of_a_task_that_did_not_reach_the_instance_proves_nothing() -> None:
    """Tasks that hang on a dead instance would otherwise hide that it is dead."""
    play = Play(settings(capacity_per_instance=1, max_instances=1))
    idle(play, "a")
    play.say(events.TaskAsked("hangs"))
    play.say(events.TaskReleased("hangs"), after=240.0)
    play.say(events.TaskAsked("next"))
    assert not any(isinstance(one, effects.Grant) and one.key == "next" for one in play.todo)
    assert play.take(effects.CheckHealth).id == "a"
    play.say(events.HealthFailed("g", "a", "dead"))
    assert play.queue() == ["next"]


def test_always_checked_is_a_setting() -> None:
    """With a `probe_after` of nothing each task waits for a check."""
    play = Play(settings(probe_after=timedelta(0), capacity_per_instance=1))
    play.ready("a")
    play.take(effects.CheckHealth)
    play.say(events.HealthPassed("g", "a"))
    assert play.take(effects.Grant).key == "task-0"
    play.say(events.TaskReleased("task-0"))
    play.say(events.TaskAsked("next"))
    assert play.take(effects.CheckHealth).id == "a"


def test_a_failed_check_sends_the_tasks_back_to_the_front_of_the_queue() -> None:
    """They keep their order, the instance counts no use, and gets no task until it is well."""
    play = Play(settings(max_use_count=9, max_instances=1))
    idle(play, "a")
    for key in ("first", "second", "third"):
        play.say(events.TaskAsked(key), after=20.0)
    play.say(events.HealthFailed("g", "a", "no answer"))
    instance = play.one("a")
    assert play.queue() == ["first", "second", "third"]
    assert [play.state.place(key) for key in ("first", "second", "third")] == [1, 2, 3]
    assert (instance.used, instance.available) == (2, 0)
    demand = play.state.demand()
    assert (demand.free, demand.unhealthy, demand.unavailable) == (0, 2, 0)
    play.todo.clear()
    play.tick(10.0)
    assert play.take(effects.CheckHealth).cloud, "the next one asks the cloud, too"
    answer = play.say(events.HealthPassed("g", "a"))
    assert [one.key for one in answer if isinstance(one, effects.Grant)] == ["first", "second"]
    assert play.state.demand().unhealthy == 0


def test_an_instance_that_keeps_failing_is_replaced() -> None:
    """The third failure in a row condemns it; a task that waits gets another instance before."""
    play = Play(settings(capacity_per_instance=1))
    idle(play, "a")
    play.say(events.TaskAsked("next"), after=60.0)
    play.say(events.HealthFailed("g", "a", "no answer"))
    play.tick()
    assert play.take(effects.Increase).count == 1, "unhealthy capacity is none"
    for _ in range(2):
        play.tick(10.0)
        play.say(events.HealthFailed("g", "a", "no answer"))
    play.tick()
    decrease = play.take(effects.Decrease)
    assert decrease.ids == ("a",)
    assert decrease.decisions[0].rule is Rule.UNHEALTHY
    assert "failed 3 checks in a row, the last: no answer" in decrease.decisions[0].detail
    assert play.state.demand().unhealthy == 0


@pytest.mark.parametrize("remove", [True, False])
def test_tasks_on_an_instance_that_keeps_failing_run_on_unless_the_operator_says_else(
    remove: bool,  # noqa: FBT001 - pytest passes it by name
) -> None:
    """It takes no further task in either case."""
    play = Play(
        settings(
            failure_threshold=1,
            heartbeat_interval=timedelta(minutes=1),
            remove_unhealthy_with_tasks=remove,
        )
    )
    play.ready("a")
    play.tick(60.0)
    assert play.take(effects.CheckHealth).cloud
    play.say(events.HealthFailed("g", "a", "dead"))
    assert play.has(effects.Revoke) is remove
    assert play.phase("a") is (Phase.REMOVING if remove else Phase.READY)
    assert play.one("a").available == 0
    play.say(events.TaskReleased("task-0"))
    play.say(events.TaskReleased("task-1"))
    play.tick(10.0)
    play.say(events.HealthFailed("g", "a", "dead"))
    assert play.phase("a") is Phase.REMOVING


def test_an_instance_that_answers_before_its_last_task_ends_is_not_replaced() -> None:
    """Its removal was not asked for yet, so it serves again."""
    play = Play(settings(failure_threshold=1, heartbeat_interval=timedelta(minutes=1)))
    play.ready("a")
    play.say(events.TaskReleased("task-0"))
    play.tick(60.0)
    play.say(events.HealthFailed("g", "a", "no answer"))
    assert play.one("a").available == 0
    play.tick(10.0)
    play.say(events.HealthPassed("g", "a"))
    play.say(events.TaskReleased("task-1"))
    assert play.one("a").available == 2


def answer_checks(play: Play, *, lost: bool, dead: tuple[str, ...] = ()) -> None:
    """Answer the checks that are under way."""
    checks = [one for one in play.todo if isinstance(one, effects.CheckHealth)]
    play.todo = [one for one in play.todo if isinstance(one, effects.Increase | effects.Decided)]
    for one in checks:
        if lost or one.id in dead:
            play.say(events.HealthFailed("g", one.id, "no answer"))
        else:
            play.say(events.HealthPassed("g", one.id))


def removed(play: Play) -> list[str]:
    """Return the instances whose removal was asked for."""
    return [id for id, phase in play.phases().items() if phase is Phase.REMOVING]


def warm(count: int, **changes: object) -> Play:
    """Return a play with so many idle instances that the policy wants."""
    policy = Policy(idle_count=count, idle_time=timedelta(hours=10))
    chosen = {"policy": policy, "capacity_per_instance": 1, "update_interval": timedelta(days=1)}
    play = Play(settings(**chosen, heartbeat_interval=timedelta(minutes=5), **changes))
    play.list()
    play.grow(*(f"i-{number}" for number in range(count)))
    play.todo.clear()
    return play


def test_a_minute_without_a_network_does_not_replace_the_fleet() -> None:
    """A tenth is replaced, once; the others serve again, and are not bought a second time."""
    play = warm(100)
    play.tick(299.0)
    for second in range(120):
        play.tick(1.0)
        answer_checks(play, lost=second < 60)
        if second == 50:
            trouble = play.state.standing().troubles["g"]
            assert "checks fail on 90 instances of 90, and fewer have answered since" in trouble
            assert "at most 10 instances may be replaced in 5m" in trouble
    assert len(removed(play)) == 10
    assert sum(one.count for one in play.todo if isinstance(one, effects.Increase)) <= 10
    (held,) = [one.decision for one in play.todo if isinstance(one, effects.Decided)]
    assert (held.rule, held.decided, held.clamp) == (Rule.UNHEALTHY, 0, Clamp.FAIL_TOGETHER)
    assert play.state.demand().unhealthy == 0
    assert play.state.standing().troubles == {}


def test_a_fleet_that_stays_silent_is_replaced_a_part_at_a_time() -> None:
    """The fault may be in the instances after all."""
    play = warm(20)
    play.tick(299.0)
    for _ in range(640):
        play.tick(1.0)
        answer_checks(play, lost=True)
    assert len(removed(play)) == 2 + 1 + 1, (
        "a tenth at first, and a tenth of the rest after 5 and 10 minutes"
    )


def test_instances_that_fail_while_others_answer_are_replaced_at_once() -> None:
    """Then the fault is theirs."""
    play = warm(20)
    dead = tuple(f"i-{number}" for number in range(8))
    play.tick(299.0)
    for _ in range(30):
        play.tick(1.0)
        answer_checks(play, lost=False, dead=dead)
    assert sorted(removed(play)) == sorted(dead)


def test_idle_capacity_is_not_bought_for_one_failed_check() -> None:
    """The instance is expected back; a task that waits gets another one at once."""
    play = warm(1)
    play.tick(300.0)
    play.say(events.HealthFailed("g", "i-0", "no answer"))
    play.tick()
    assert not play.has(effects.Increase)
    demand = play.state.demand()
    assert (demand.unhealthy, demand.recovering) == (1, 1)
    play.say(events.TaskAsked("task"))
    play.tick()
    assert play.take(effects.Increase).count == 1


@pytest.mark.parametrize("how", ["failed", "given up"])
def test_a_last_use_that_fell_through_is_none(how: str) -> None:
    """One failed check, or a task that does not wait for it, costs no instance its last use."""
    play = Play(settings(capacity_per_instance=1, max_use_count=2))
    idle(play, "a")
    play.say(events.TaskAsked("last"), after=60.0)
    if how == "failed":
        play.say(events.HealthFailed("g", "a", "no answer"))
        assert play.queue() == ["last"]
    else:
        play.say(events.TaskReleased("last"))
        play.say(events.TaskAsked("last"))
    play.tick(10.0)
    assert play.phase("a") is Phase.READY
    play.say(events.HealthPassed("g", "a"))
    assert play.take(effects.Grant).key == "last"
    assert play.phase("a") is Phase.DRAINING
    play.say(events.TaskReleased("last"))
    assert play.one("a").rule is Rule.USED_UP


def test_a_task_that_gives_up_during_the_check_leaves_nothing_behind() -> None:
    """The slot is free, the use is not counted, and the check ends in nothing."""
    play = Play(settings())
    idle(play, "a")
    play.say(events.TaskAsked("next"), after=60.0)
    play.say(events.TaskReleased("next"))
    assert play.one("a").used == 2
    assert not any(
        isinstance(one, effects.Grant) for one in play.say(events.HealthPassed("g", "a"))
    )
    assert play.state.drained


def test_an_instance_that_vanishes_during_the_check_sends_its_tasks_back() -> None:
    """They never knew their slot, so they lost nothing; they are not told, and wait on."""
    play = Play(settings(missed_updates=1))
    idle(play, "a")
    play.say(events.TaskAsked("next"), after=60.0)
    play.tick()
    play.take(effects.CheckHealth)
    play.list()
    assert not play.has(effects.Revoke)
    assert play.queue() == ["next"]
    assert play.say(events.HealthPassed("g", "a")) == [], "a late answer means nothing"
    assert play.say(events.HealthFailed("g", "a", "late")) == []


def test_quiet_instances_are_checked_in_time() -> None:
    """An instance that was quiet for the interval is checked; one that was used is not."""
    play = Play(settings(heartbeat_interval=timedelta(minutes=5)))
    idle(play, "a", "b")
    play.say(events.TaskAsked("busy"), after=5.0)
    play.say(events.TaskReleased("busy", proved=True), after=100.0)
    play.tick(200.0)
    assert play.take(effects.CheckHealth).id == "b"
    play.say(events.HealthPassed("g", "b"))
    play.tick(99.0)
    assert not play.has(effects.CheckHealth)
    play.tick(1.0)
    assert play.take(effects.CheckHealth).id == "a"


def test_a_large_fleet_is_not_checked_all_at_once() -> None:
    """So many checks are under way at a time; each that ends makes room for the next."""
    play = Play(settings(capacity_per_instance=1, heartbeat_interval=timedelta(minutes=1)))
    ids = [f"i-{number}" for number in range(CHECKS_AT_ONCE + 2)]
    idle(play, *ids)
    play.tick(60.0)
    checks = [one for one in play.todo if isinstance(one, effects.CheckHealth)]
    assert len(checks) == CHECKS_AT_ONCE
    play.todo.clear()
    play.say(events.HealthPassed("g", checks[0].id))
    assert play.take(effects.WakeAt).monotonic == play.seconds
    play.tick()
    assert play.take(effects.CheckHealth).id not in {one.id for one in checks}


def test_an_announced_interruption_ends_the_placing_and_begins_the_replacement() -> None:
    """A task that runs there goes on; an idle instance goes; a new one does not even begin."""
    play = Play(settings())
    idle(play, "busy", "idle")
    wants_two = Policy(idle_count=2, idle_time=timedelta(hours=1))
    play.say(events.SettingsChanged(settings(policy=wants_two)))
    play.say(events.TaskAsked("task"))
    play.say(events.InterruptionAnnounced("g", "busy", "spot"))
    play.say(events.InterruptionAnnounced("g", "idle", "spot"))
    play.say(events.InterruptionAnnounced("g", "unknown", "spot"))
    lives = play.phases()
    assert lives == {"busy": Phase.DRAINING, "idle": Phase.REMOVING}
    play.tick()
    assert play.take(effects.Increase).count == 1, "two idle slots are wanted, on one instance"
    decrease = play.take(effects.Decrease)
    assert (decrease.ids, decrease.decisions[0].rule) == (("idle",), Rule.INTERRUPTED)
    play.say(events.TaskReleased("task"))
    assert play.phase("busy") is Phase.REMOVING


def interrupt(play: Play, id: str, seconds: float) -> None:
    """Announce the end of an instance in so many seconds, and decide."""
    deadline = START + timedelta(seconds=play.seconds + seconds)
    play.say(events.InterruptionAnnounced("g", id, "spot", deadline))
    play.tick(1.0)


def test_a_replacement_comes_before_an_announced_deadline() -> None:
    """The task that runs may end until then; else the replacement is ready for it."""
    play = Play(settings(capacity_per_instance=1, policy=Policy()))
    play.ready("a")
    play.todo.clear()
    interrupt(play, "a", 120.0)
    increase = play.take(effects.Increase)
    assert (increase.count, increase.decision.rule) == (1, Rule.ENDANGERED)
    assert increase.decision.demand.endangered == 1
    assert play.held() == ["task-0"]
    play.say(events.IncreaseSettled("g", increase.operation, Accepted(1)))
    play.relist(Instance("a", State.RUNNING), Instance("b", State.RUNNING))
    play.say(events.InstancePrepared("g", "b"))
    play.tick(5.0)
    assert play.phase("b") is Phase.READY, "it waits for the task, although idle_time is nothing"
    assert play.has(effects.List), "the end of the instance is seen soon"
    play.say(events.TaskReleased("task-0"))
    play.tick()
    assert play.phases() == {"a": Phase.REMOVING, "b": Phase.REMOVING}


@pytest.mark.parametrize("seconds", [None, 3 * 86400.0])
def test_nothing_is_bought_for_a_deadline_that_is_far_or_unknown(seconds: float | None) -> None:
    """The task will probably have ended by then."""
    play = Play(settings(capacity_per_instance=1))
    play.ready("a")
    play.todo.clear()
    if seconds is None:
        play.say(events.InterruptionAnnounced("g", "a", "spot"))
        play.tick(1.0)
    else:
        interrupt(play, "a", seconds)
    assert play.phase("a") is Phase.DRAINING
    assert not play.has(effects.Increase)


def test_an_endangered_task_that_loses_its_slot_is_counted_once() -> None:
    """Its replacement was requested already when it asks for another slot."""
    play = Play(settings(capacity_per_instance=1, missed_updates=1))
    play.ready("a")
    play.todo.clear()
    interrupt(play, "a", 120.0)
    increase = play.take(effects.Increase)
    play.say(events.IncreaseSettled("g", increase.operation, Accepted(1)))
    play.relist()
    assert play.take(effects.Revoke).key == "task-0"
    play.say(events.TaskReleased("task-0"))
    play.say(events.TaskAsked("task-0"))
    play.tick(5.0)
    assert not play.has(effects.Increase)
    assert play.state.demand().endangered == 0


def test_an_instance_that_is_interrupted_before_it_is_ready_goes() -> None:
    """No task could use it."""
    play = Play(settings(), GroupInfo("g"))
    play.list()
    play.say(events.TaskAsked("task"))
    play.tick()
    increase = play.take(effects.Increase)
    play.say(events.IncreaseSettled("g", increase.operation, Accepted(increase.count)))
    play.relist(Instance("a", State.CREATING))
    play.say(events.InterruptionAnnounced("g", "a", "spot"))
    assert play.phase("a") is Phase.REMOVING
    play.say(events.InterruptionAnnounced("g", "a", "again"))
    assert play.one("a").reason == "spot"


@pytest.mark.parametrize("when", [Phase.SUSPENDED, Phase.RESUMING, Phase.PREPARING])
def test_an_instance_that_is_interrupted_while_it_sleeps_or_wakes_goes_after_its_tasks(
    when: Phase,
) -> None:
    """Its suspended tasks may be resumed, no others get a slot; a restart does not forget it."""
    able = GroupInfo("g", capabilities=frozenset({Capability.SUSPEND}))
    play = Play(settings(), able)
    play.ready("a")
    play.say(events.TaskReleased("task-1"))
    play.say(events.TaskSuspended("task-0"))
    play.tick()
    play.say(events.SuspendSettled("g", ("a",), Accepted(1, ("a",))))
    play.relist(Instance("a", State.SUSPENDED))
    for life in (Phase.SUSPENDED, Phase.RESUMING, Phase.PREPARING):
        if life is Phase.RESUMING:
            play.say(events.TaskResumed("task-0"))
        elif life is Phase.PREPARING:
            play.relist(Instance("a", State.RUNNING))
        assert play.phase("a") is life
        if life is when:
            (persist,) = play.say(events.InterruptionAnnounced("g", "a", "spot"))[:1]
            assert isinstance(persist, effects.Persist)
            assert [getattr(one, "reason", "") for one in persist.put] == ["spot"]
    play.say(events.InstancePrepared("g", "a"))
    assert play.phase("a") is Phase.DRAINING
    play.say(events.TaskReleased("task-0"))
    assert play.phase("a") is Phase.REMOVING
    assert play.one("a").rule is Rule.INTERRUPTED


def test_a_used_up_instance_that_keeps_failing_is_taken_down_if_the_operator_says_so() -> None:
    """Its last task would never end."""
    play = Play(
        settings(
            capacity_per_instance=1,
            max_use_count=1,
            failure_threshold=1,
            heartbeat_interval=timedelta(minutes=1),
            remove_unhealthy_with_tasks=True,
        )
    )
    play.ready("a")
    assert play.phase("a") is Phase.DRAINING
    play.tick(60.0)
    play.say(events.HealthFailed("g", "a", "dead"))
    assert play.take(effects.Revoke).key == "task-0"
    assert play.phase("a") is Phase.REMOVING


@pytest.mark.parametrize("kind", [events.InterruptionAnnounced, events.InstanceBroke])
def test_a_task_is_not_sent_to_an_instance_that_began_to_go_during_its_check(
    kind: type[events.InterruptionAnnounced | events.InstanceBroke],
) -> None:
    """It did not know its slot yet, so it takes another one, or waits for that."""
    play = Play(settings(capacity_per_instance=1))
    idle(play, "goes", "stays")
    play.say(events.TaskAsked("first"), after=60.0)
    play.say(events.TaskAsked("second"))
    play.say(events.HealthPassed("g", "stays"))
    assert play.take(effects.Grant).key == "second"
    play.say(events.TaskReleased("second"))
    play.say(kind("g", "goes", "spot"))
    assert play.take(effects.Grant) == effects.Grant("first", "g", "stays", 0)
    assert play.phase("goes") is Phase.REMOVING
    assert play.say(events.HealthPassed("g", "goes")) == []
