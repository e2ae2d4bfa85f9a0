"""Which instances go for a limit or for their age, in which order, and which group's first."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from core_growth import UNLIMITED, ask, settle, two_groups
from core_model import START, Play
from fleeting.types import Capability, GroupInfo, Instance, Listing, State
from taskscaler.core import InstanceRecord, Phase, Policy, Rule, Settings, effects, events

ABLE = GroupInfo("g", capabilities=frozenset({Capability.SUSPEND}))
HOUR = timedelta(hours=1)
STILL = replace(UNLIMITED, heartbeat_interval=timedelta(0))


def one_in_each(settings: Settings) -> Play:
    """Return a core with an idle instance in each of two groups, the preferred one older."""
    play = two_groups(replace(settings, group_limits={"spot": 1}))
    ask(play, 2)
    play.grow("s", group="spot")
    play.grow("d", group="on-demand")
    for key in ("t0", "t1"):
        play.say(events.TaskReleased(key))
    play.todo.clear()
    return play


def want(play: Play, idle_count: int) -> None:
    """Let the policy want so many idle slots from now on."""
    policy = replace(play.state.settings.policy, idle_count=idle_count)
    play.say(events.SettingsChanged(replace(play.state.settings, policy=policy)))


def phases(play: Play) -> tuple[Phase, Phase]:
    """Return the phases of the preferred and of the other instance."""
    return play.phase("s", "spot"), play.phase("d", "on-demand")


def test_idle_instances_of_the_last_group_go_first() -> None:
    """Although the preferred one has been idle for longer."""
    play = one_in_each(replace(STILL, policy=Policy(idle_time=HOUR)))
    want(play, 1)
    play.tick(3600.0)
    assert phases(play) == (Phase.READY, Phase.REMOVING)


def test_a_limit_over_all_groups_empties_the_last_one_first() -> None:
    """The operator prefers the first."""
    play = one_in_each(replace(STILL, policy=Policy(idle_time=HOUR)))
    lowered = replace(play.state.settings, max_instances=1)
    play.say(events.SettingsChanged(lowered))
    play.tick()
    assert phases(play) == (Phase.READY, Phase.REMOVING)


def idle(*ids: str, settings: Settings) -> Play:
    """Return a core with idle instances."""
    play = Play(settings, ABLE)
    play.ready(*ids)
    for key in play.held():
        play.say(events.TaskReleased(key))
    play.todo.clear()
    return play


def test_an_instance_that_goes_for_a_limit_is_counted_once() -> None:
    """It is there until it is deleted, and no other one goes for it meanwhile."""
    play = idle("a", "b", "c", settings=replace(STILL, policy=Policy(idle_time=HOUR)))
    play.say(events.SettingsChanged(replace(play.state.settings, max_instances=2)))
    for _ in range(3):
        play.tick(1.0)
        assert [*play.phases().values()].count(Phase.REMOVING) == 1


def test_a_limit_spares_an_instance_that_is_prepared_for_its_suspended_tasks() -> None:
    """Another coming one goes, although it is older."""
    kept = (("sleeper", 0, START),)
    records = [
        InstanceRecord("g", "old", None, START, 0, (), ready_at=START),
        InstanceRecord("g", "keeps", None, START + HOUR, 1, (), ready_at=START, suspended=kept),
    ]
    play = Play(replace(STILL, max_instances=1), ABLE, records=records)
    play.list(Instance("old", State.RUNNING), Instance("keeps", State.RUNNING))
    assert play.one("old").rule is Rule.LIMIT
    assert play.one("keeps").rule is None


def test_an_old_instance_that_sleeps_does_not_hold_up_the_replacement_of_others() -> None:
    """It may sleep for days."""
    play = Play(replace(STILL, max_instance_age=HOUR, policy=Policy(idle_time=2 * HOUR)), ABLE)
    play.ready("a", "b")
    play.tick(3600.0)
    assert play.phase("a") is Phase.DRAINING
    play.say(events.TaskSuspended("task-0"))
    play.relist(Instance("a", State.SUSPENDED), Instance("b", State.RUNNING))
    play.tick(60.0)
    assert (play.phase("a"), play.phase("b")) == (Phase.SUSPENDED, Phase.DRAINING)


def test_several_old_instances_do_not_count_on_the_same_spare_slot() -> None:
    """Of eleven idle ones ten are wanted: one may go, and the next waits for its successor."""
    names = [f"i{number}" for number in range(11)]
    policy = Policy(idle_time=2 * HOUR)
    play = idle(*names, settings=replace(STILL, max_instance_age=HOUR, policy=policy))
    want(play, 10)
    play.tick(3600.0)
    assert [*play.phases().values()].count(Phase.REMOVING) == 1
    assert play.state.demand().outgoing == 1
    assert play.take(effects.Increase).count == 1


def test_the_idle_time_begins_when_an_instance_is_ready() -> None:
    """However long it took to come up."""
    play = Play(replace(STILL, policy=Policy(idle_time=timedelta(minutes=1))))
    play.list()
    ask(play, 1)
    settle(play)
    play.relist(Instance("a", State.RUNNING))
    play.say(events.TaskCancelled("t0"))
    play.say(events.InstancePrepared("g", "a"), after=120.0)
    play.tick(59.0)
    assert play.phase("a") is Phase.READY
    play.tick(1.0)
    assert play.phase("a") is Phase.REMOVING


def test_a_slot_that_is_given_back_before_the_task_was_told_is_not_a_use() -> None:
    """The task gave up while its instance was checked; the idle time goes on."""
    play = idle("a", settings=replace(STILL, policy=Policy(idle_time=timedelta(minutes=2))))
    play.say(events.TaskAsked("gives up"), after=60.0)
    play.take(effects.CheckHealth)
    play.say(events.TaskReleased("gives up"))
    play.say(events.HealthPassed("g", "a"))
    play.tick(60.0)
    assert play.phase("a") is Phase.READY, "the task wanted its capacity a minute ago"
    play.tick(60.0)
    assert play.phase("a") is Phase.REMOVING


def test_demand_within_the_interval_waits_for_the_preferred_group() -> None:
    """The next group is for what the first cannot have, not for what it may not ask for yet."""
    play = two_groups(STILL)
    ask(play, 1)
    settle(play, "spot")
    play.say(events.TaskAsked("later"), after=0.5)
    play.tick()
    assert not play.has(effects.Increase)
    play.tick(0.5)
    assert play.take(effects.Increase).group == "spot"


def test_pending_instances_are_those_that_were_requested() -> None:
    """A listing that calls both of them pending adds none."""
    play = Play(STILL)
    play.list()
    ask(play, 2)
    settle(play)
    play.todo = [one for one in play.todo if not isinstance(one, effects.List)]
    play.say(events.ListingArrived("g", Listing((), pending=2)))
    assert play.state.demand().coming == 2


def test_reservations_count_on_the_smallest_of_all_limits() -> None:
    """On the group's own below `max_instances`; a group without one has room for any number."""
    play = Play(replace(STILL, max_instances=5), GroupInfo("g", max_size=1))
    for key in "ab":
        play.say(events.TaskReserved(key))
    assert play.take(effects.Refuse).key == "b"
    play = Play(STILL, GroupInfo("small", max_size=1), GroupInfo("large"))
    for key in "abc":
        play.say(events.TaskReserved(key))
    assert not play.has(effects.Refuse)
