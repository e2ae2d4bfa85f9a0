"""How instances come, fail, vanish, come back and go, as the core sees it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from core_model import START, Play
from fleeting.errors import OutOfCapacity, ProviderError, Throttled
from fleeting.types import Accepted, CreationFailure, Instance, Listing, State
from taskscaler.core import (
    InstanceRecord,
    Phase,
    Policy,
    Rule,
    Settings,
    TombstoneRecord,
    UnknownInstances,
    effects,
    events,
    explain,
)

ROOMY = Policy(idle_time=timedelta(minutes=20))


def test_a_failed_instance_loses_its_tasks_at_once() -> None:
    """An instance that the cloud calls failed is removed, and its tasks are told why."""
    play = Play(Settings(capacity_per_instance=2, policy=ROOMY))
    play.ready("a")
    play.relist(Instance("a", State.FAILED, reason="the disk is broken"))
    revoked = [one for one in play.todo if isinstance(one, effects.Revoke)]
    assert [(one.key, one.cause) for one in revoked] == [
        ("task-0", "the disk is broken"),
        ("task-1", "the disk is broken"),
    ]
    assert play.take(effects.Decrease).ids == ("a",)
    play.say(events.TaskReleased("task-0"))
    assert play.status("task-0") is None


def test_an_instance_that_the_cloud_takes_away_is_not_asked_for_again() -> None:
    """It is already being deleted; only its tasks and its place need attention."""
    play = Play(Settings(policy=ROOMY))
    play.ready("a")
    play.relist(Instance("a", State.DELETING))
    assert play.has(effects.Revoke)
    assert not play.has(effects.Decrease)
    play.relist()
    gone = play.take(effects.Gone)
    assert (gone.id, gone.tasks, gone.reason) == ("a", 1, "the cloud takes it away")


def test_a_missing_instance_is_gone_after_two_listings() -> None:
    """One listing without it may be a mistake of the cloud."""
    play = Play(Settings(policy=ROOMY))
    play.ready("a")
    play.relist()
    assert not play.has(effects.Revoke)
    play.relist()
    assert play.take(effects.Revoke).cause == "it is no longer listed"


def test_an_instance_that_comes_back_after_it_was_given_up_is_removed() -> None:
    """It was ours, so no other program would remove it; and its condition is unknown."""
    play = Play(Settings(policy=ROOMY))
    play.ready("a")
    play.relist()
    play.relist()
    play.relist(Instance("a", State.RUNNING))
    decrease = play.take(effects.Decrease)
    assert (decrease.ids, decrease.decisions[0].rule) == (("a",), Rule.UNKNOWN)
    assert not play.records(TombstoneRecord), "it is one of ours again"
    stored = [
        one for effect in play.todo if isinstance(effect, effects.Persist) for one in effect.put
    ]
    assert "a" in [one.key[2] for one in stored], "a restart must know it"


def test_an_id_that_is_used_again_is_a_new_instance_when_the_answer_names_it() -> None:
    """Static hosts come back under the only ids that they have, and are not taken for strays."""
    play = Play(Settings(policy=Policy()))
    play.ready("host")
    play.say(events.TaskReleased("task-0"))
    play.tick(1.0)
    ids = play.take(effects.Decrease).ids
    play.say(events.DecreaseSettled("g", ids, Accepted(1, ids)))
    play.relist()
    play.relist()
    play.say(events.TaskAsked("next"))
    play.tick()
    increase = play.take(effects.Increase)
    play.relist(Instance("host", State.RUNNING))
    assert play.phases() == {}, "it is not judged before the answer is there"
    play.say(events.IncreaseSettled("g", increase.operation, Accepted(1, ("host",))))
    play.relist(Instance("host", State.RUNNING))
    assert play.take(effects.Prepare).id == "host"
    assert not play.has(effects.Decrease)


def test_a_recreated_instance_is_a_new_one_of_ours() -> None:
    """Another incarnation under the same id has lost the tasks, and is prepared again."""
    play = Play(Settings(policy=ROOMY))
    play.ready("a")
    play.relist(Instance("a", State.RUNNING, incarnation="1"))
    assert not play.has(effects.Revoke), "becoming known is not a replacement"
    play.relist(Instance("a", State.RUNNING, incarnation="2"))
    assert play.take(effects.Revoke).cause == "it was recreated under the same id"
    assert play.take(effects.Prepare).id == "a"
    assert play.one("a").used == 0


def test_a_recreated_foreign_instance_stays_foreign() -> None:
    """Ownership does not come with an id."""
    play = Play()
    play.list(Instance("x", State.RUNNING, incarnation="1"))
    play.relist(Instance("x", State.RUNNING, incarnation="2"))
    assert play.phase("x") is Phase.FOREIGN
    assert not play.has(effects.Prepare)


@pytest.mark.parametrize(
    ("setting", "life"),
    [
        (UnknownInstances.IGNORE, Phase.FOREIGN),
        (UnknownInstances.ADOPT, Phase.PREPARING),
        (UnknownInstances.REMOVE, Phase.REMOVING),
    ],
)
def test_unknown_instances_are_treated_as_the_setting_says(
    setting: UnknownInstances, life: Phase
) -> None:
    """They are ignored, adopted or removed; ignored ones count against the limit."""
    play = Play(Settings(unknown_instances=setting, max_instances=1))
    play.list(Instance("x", State.RUNNING), Instance("y", State.DELETING))
    assert play.phase("x") is life
    assert play.phase("y") is Phase.FOREIGN
    play.say(events.TaskAsked("a"))
    play.tick()
    assert not play.has(effects.Increase)


def test_a_change_of_that_setting_judges_the_ignored_ones_again() -> None:
    """An operator who decides to adopt need not restart."""
    play = Play()
    play.list(Instance("x", State.RUNNING))
    settings = Settings(unknown_instances=UnknownInstances.ADOPT)
    play.say(events.SettingsChanged(settings))
    play.relist(Instance("x", State.RUNNING))
    assert play.take(effects.Prepare).id == "x"


def test_an_accepted_instance_that_fails_makes_room_and_a_pause() -> None:
    """A failure that a listing reports ends the wait for that instance."""
    play = Play()
    play.list()
    play.say(events.TaskAsked("a"))
    play.tick()
    increase = play.take(effects.Increase)
    play.say(events.IncreaseSettled("g", increase.operation, Accepted(1)))
    play.tick(2.0)
    play.take(effects.List)
    error = OutOfCapacity("no such machine today")
    play.say(events.ListingArrived("g", Listing(failures=(CreationFailure("1", error),))))
    play.tick()
    assert play.state.demand().instances == 0
    assert "no such machine today" in explain(play.state.standing())
    assert not play.has(effects.Increase)
    play.tick(1.0)
    assert play.take(effects.Increase).count == 1


def test_an_instance_that_is_created_for_ever_is_given_up() -> None:
    """After the creation timeout it is removed, and the next try waits."""
    play = Play()
    play.list()
    play.say(events.TaskAsked("a"))
    play.tick()
    increase = play.take(effects.Increase)
    play.say(events.IncreaseSettled("g", increase.operation, Accepted(1)))
    play.relist(Instance("a", State.CREATING))
    play.todo.clear()
    play.tick(599.0)
    assert not play.has(effects.Decrease)
    play.seconds += 1.0
    play.relist(Instance("a", State.CREATING))
    assert "did not run within 10m" in play.take(effects.Decrease).decisions[0].detail
    assert play.failures() == 1


def test_no_instance_is_given_up_without_a_listing() -> None:
    """While a cloud does not answer, it is unknown whether a restored instance runs; it does."""
    record = InstanceRecord("g", "a", "1", START, 1, ())
    play = Play(Settings(policy=ROOMY), records=[record])
    for _ in range(10):
        play.take(effects.List)
        play.say(events.ListingFailed("g", ProviderError("out of order")), 600.0)
        play.tick(600.0)
    assert not play.has(effects.Decrease)
    play.relist(Instance("a", State.RUNNING, incarnation="1"))
    assert play.take(effects.Prepare).id == "a"
    play.tick(600.0)
    assert not play.has(effects.Decrease)


def test_a_promise_that_no_listing_shows_is_written_off_after_the_timeout() -> None:
    """As long as listings fail it is still expected; the first one after the timeout ends that."""
    play = Play()
    play.list()
    play.say(events.TaskAsked("a"))
    play.tick()
    increase = play.take(effects.Increase)
    lost = Accepted(0, error=ProviderError("no answer"))
    play.say(events.IncreaseSettled("g", increase.operation, lost, unknown=True))
    play.tick(700.0)
    play.take(effects.List)
    play.say(events.ListingFailed("g", Throttled("slow down", retry_after=timedelta(seconds=30))))
    assert play.state.demand().instances == 1
    play.tick(29.0)
    assert not play.has(effects.List), "as late as the cloud asked for"
    play.tick(1.0)
    play.list()
    assert play.state.demand().instances == 0


def test_a_pause_between_listings_that_the_cloud_asks_for_outlasts_a_change_of_settings() -> None:
    """A shorter interval begins when the pause is over."""
    play = Play()
    play.take(effects.List)
    play.say(events.ListingFailed("g", Throttled("slow down", retry_after=timedelta(minutes=9))))
    play.say(events.SettingsChanged(Settings(update_interval=timedelta(seconds=5))))
    play.tick(539.0)
    assert not play.has(effects.List)
    play.tick(1.0)
    assert play.has(effects.List)


def test_instances_without_an_id_count_as_coming() -> None:
    """Instances that a listing calls pending are not requested again, and count."""
    play = Play(Settings(max_instances=2))
    play.list(pending=2)
    for key in "ab":
        play.say(events.TaskAsked(key))
    play.tick()
    assert not play.has(effects.Increase)
    assert play.state.demand().coming == 2


def test_an_instance_that_does_not_become_ready_is_replaced_after_a_growing_pause() -> None:
    """Creations per time are bounded, and the first success ends the pauses."""
    play = Play()
    play.list()
    play.say(events.TaskAsked("a"))
    play.tick()
    for attempt in range(4):
        increase = play.take(effects.Increase)
        play.say(events.IncreaseSettled("g", increase.operation, Accepted(1)))
        play.relist(Instance(f"i{attempt}", State.RUNNING))
        play.take(effects.Prepare)
        play.say(events.PreparationFailed("g", f"i{attempt}", "it does not answer"))
        play.tick()
        assert play.pause()[0] - play.seconds == 2**attempt
        decrease = play.take(effects.Decrease)
        play.say(events.DecreaseSettled("g", decrease.ids, Accepted(1, decrease.ids)))
        while not play.has(effects.Increase):
            play.tick(0.5)
            play.todo = [one for one in play.todo if not isinstance(one, effects.List)]
            play.say(events.ListingArrived("g", Listing()))
    assert "it does not answer" in play.state.standing().troubles["g"]
    play.grow("good")
    assert play.failures() == 0


def test_reports_about_instances_that_are_gone_are_ignored() -> None:
    """Reports and removals cross on their way."""
    play = Play()
    play.list()
    for event in (
        events.InstancePrepared("g", "x"),
        events.PreparationFailed("g", "x", "gone"),
        events.InstanceBroke("g", "x", "gone"),
    ):
        assert play.say(event) == []
    assert play.failures() == 0


def test_a_broken_instance_gets_no_more_tasks_and_goes_with_its_last_one() -> None:
    """Tasks that still run there are left alone; the replacement is bought at once."""
    play = Play(Settings(capacity_per_instance=2, policy=ROOMY))
    play.ready("a")
    play.say(events.TaskReleased("task-0"))
    play.say(events.InstanceBroke("g", "a", "the connection broke"))
    play.say(events.TaskAsked("next"))
    play.tick()
    assert play.has(effects.Increase)
    assert not play.has(effects.Decrease)
    play.say(events.TaskReleased("task-1"))
    play.tick()
    assert play.take(effects.Decrease).decisions[0].rule is Rule.FAILED


def test_a_broken_idle_instance_goes_at_once() -> None:
    """Nothing runs there, so there is nothing to wait for."""
    play = Play(Settings(policy=ROOMY))
    play.ready("a")
    play.say(events.TaskReleased("task-0"))
    play.say(events.InstanceBroke("g", "a", "the connection broke"))
    play.tick()
    assert play.take(effects.Decrease).ids == ("a",)


def test_removals_are_asked_for_again_until_the_instance_is_gone() -> None:
    """Also when they were accepted, but not while the cloud says that it is deleting."""
    play = Play(Settings(policy=Policy()))
    play.ready("a")
    play.say(events.TaskReleased("task-0"))
    play.tick(1.0)
    ids = play.take(effects.Decrease).ids
    play.say(events.DecreaseSettled("g", ids, Accepted(1, ids)))
    play.relist(Instance("a", State.RUNNING))
    play.tick(59.0)
    assert play.take(effects.Decrease).ids == ids
    error = Throttled("slow down", retry_after=timedelta(seconds=5))
    play.say(events.DecreaseSettled("g", ids, Accepted(0, error=error)))
    play.tick(5.0)
    assert play.take(effects.Decrease).ids == ids
    play.say(events.DecreaseSettled("g", ids, Accepted(1, ids)))
    play.relist(Instance("a", State.DELETING))
    play.tick(120.0)
    assert not play.has(effects.Decrease)
    play.relist()
    assert play.phases() == {}


def test_an_id_that_a_listing_has_twice_counts_once() -> None:
    """A cloud that repeats itself makes no second instance, and hides no missing one."""
    play = Play(Settings(policy=ROOMY))
    play.ready("a")
    twin = Instance("a", State.RUNNING)
    play.relist(twin, twin)
    assert len(play.phases()) == 1
    assert not play.has(effects.Revoke)


def test_a_foreign_instance_is_never_stored() -> None:
    """Not even when its incarnation becomes known; only what is ours must survive."""
    play = Play()
    play.list(Instance("x", State.RUNNING))
    play.relist(Instance("x", State.RUNNING, incarnation="1"))
    play.relist()
    play.relist()
    assert play.phases() == {}
    assert not play.has(effects.Persist)
    assert not play.has(effects.Gone)


def test_only_the_newest_given_up_ids_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scaler that runs for years does not remember every instance it ever had."""
    monkeypatch.setattr("taskscaler.core.model.members.MEMORY", 1)
    play = Play(Settings(policy=ROOMY))
    play.ready("a", "b")
    play.relist()
    play.relist()
    assert len(play.records(TombstoneRecord)) == 1


def test_the_idle_time_restarts_with_each_task() -> None:
    """An instance that was used in between is as idle as since its last task."""
    play = Play(Settings(policy=Policy(idle_time=timedelta(seconds=60))))
    play.ready("a")
    play.say(events.TaskReleased("task-0"))
    play.say(events.TaskAsked("short"), after=30.0)
    play.say(events.TaskReleased("short"), after=1.0)
    play.tick(59.0)
    assert not play.has(effects.Decrease)
    play.tick(1.0)
    assert play.take(effects.Decrease).decisions[0].detail == "a: it was idle for 1m"


def test_an_answer_about_an_instance_that_is_gone_is_ignored() -> None:
    """The listing was faster than the answer to the removal."""
    play = Play()
    play.ready("a")
    play.say(events.TaskReleased("task-0"))
    play.tick(1.0)
    ids = play.take(effects.Decrease).ids
    play.relist()
    play.relist()
    assert play.phases() == {}
    play.say(events.DecreaseSettled("g", ids, Accepted(1, ids)))
    assert play.phases() == {}


@pytest.mark.parametrize(("ready", "failures"), [(False, 1), (True, 0)])
def test_only_a_failure_to_come_up_makes_the_group_pause(
    ready: bool,  # noqa: FBT001 - pytest passes parameters by name
    failures: int,
) -> None:
    """An instance that fails after it has served says nothing about creating others."""
    play = Play(Settings(policy=ROOMY))
    if ready:
        play.ready("a")
    else:
        play.list()
        play.say(events.TaskAsked("task"))
        play.tick()
        increase = play.take(effects.Increase)
        play.say(events.IncreaseSettled("g", increase.operation, Accepted(1)))
        play.relist(Instance("a", State.CREATING))
    play.relist(Instance("a", State.FAILED, reason="the disk is broken"))
    assert play.failures() == failures
    assert play.take(effects.Decrease).ids == ("a",)


def test_the_end_of_the_last_task_on_a_used_up_instance_asks_for_a_decision_at_once() -> None:
    """Its place is needed by others, so its removal does not wait for the next regular moment."""
    play = Play(Settings(max_use_count=1, policy=ROOMY))
    play.ready("a")
    play.todo.clear()
    play.say(events.TaskReleased("task-0"), after=1.0)
    assert play.take(effects.WakeAt).monotonic == play.seconds


def test_removals_that_had_no_effect_are_not_forgotten_between_listings() -> None:
    """The next decision comes when the removal is to be asked for again, if not before."""
    hour = timedelta(hours=1)
    settings = Settings(update_interval=hour, update_interval_when_expecting=hour)
    play = Play(settings)
    play.ready("a")
    play.say(events.TaskReleased("task-0"))
    play.tick(1.0)
    ids = play.take(effects.Decrease).ids
    play.say(events.DecreaseSettled("g", ids, Accepted(1, ids)))
    play.tick()
    play.todo.clear()
    play.say(events.ListingArrived("g", Listing((Instance("a", State.RUNNING),))))
    play.todo.clear()
    play.tick()
    assert play.take(effects.WakeAt).monotonic == play.seconds + 60.0


def test_a_name_that_an_answer_gave_is_good_for_one_instance() -> None:
    """An id that comes back once more after that is a stray like any other."""
    play = Play(Settings(max_instances=5, policy=ROOMY))
    play.list()
    for key in "xy":
        play.say(events.TaskAsked(key))
    play.tick()
    increase = play.take(effects.Increase)
    play.say(events.IncreaseSettled("g", increase.operation, Accepted(2, ("a", "b"))))
    play.relist(Instance("a", State.CREATING))
    for key in "xy":
        play.say(events.TaskCancelled(key))
    play.relist()
    play.relist()
    play.relist(Instance("a", State.RUNNING))
    assert play.take(effects.Decrease).ids == ("a",)


def test_an_instance_that_came_back_counts_before_it_is_judged() -> None:
    """As long as an answer is awaited that may name it, it is neither ours nor not; it is there."""
    play = Play(Settings(max_instances=2, missed_updates=1, policy=ROOMY))
    play.ready("a")
    play.relist()
    play.say(events.TaskAsked("next"))
    play.tick()
    increase = play.take(effects.Increase)
    play.relist(Instance("a", State.RUNNING))
    assert play.state.demand().instances == 2, "it, and the one that is asked for"
    play.say(events.IncreaseSettled("g", increase.operation, Accepted(1)))
    play.relist(Instance("a", State.RUNNING))
    assert play.state.demand().instances == 2
