"""Suspended tasks after a restart."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from core_model import START, Play
from fleeting.types import Capability, GroupInfo, Instance, State
from taskscaler.core import InstanceRecord, Phase, Policy, Rule, Settings, effects, events

ROOMY = Policy(idle_time=timedelta(hours=10))
ABLE = GroupInfo("g", capabilities=frozenset({Capability.SUSPEND}))


@pytest.mark.parametrize("keep", [True, False])
def test_an_instance_with_suspended_and_lost_tasks_stays_for_the_suspended_ones(
    keep: bool,  # noqa: FBT001 - pytest passes it by name
) -> None:
    """New tasks get it only if the operator trusts it."""
    record = InstanceRecord(
        "g", "a", None, START, 2, ("ran",), ready_at=START, suspended=(("task-0", 1, START),)
    )
    settings = Settings(capacity_per_instance=2, keep_instance_with_acquisitions=keep)
    play = Play(settings, ABLE, records=[record])
    play.list(Instance("a", State.RUNNING))
    play.say(events.TaskResumed("task-0"))
    play.say(events.InstancePrepared("g", "a"))
    assert play.take(effects.Grant).slot == 1
    assert play.phase("a") is (Phase.READY if keep else Phase.DRAINING)


def test_a_slot_that_no_longer_exists_is_not_restored() -> None:
    """The operator made the instances smaller meanwhile."""
    kept = (("task-0", 1, START),)
    record = InstanceRecord("g", "a", None, START, 2, (), suspended=kept)
    play = Play(Settings(capacity_per_instance=1), ABLE, records=[record])
    assert play.suspended() == []


def test_a_wall_clock_that_was_set_back_prolongs_no_suspension() -> None:
    """A suspension in the future counts from now, and does not hold up others."""
    hour = timedelta(hours=1)
    kept = (("future", 0, START + hour),)
    records = [InstanceRecord("g", "a", None, START + hour, 1, (), suspended=kept)]
    settings = Settings(suspend_time_to_live=timedelta(minutes=1), max_instance_age=2 * hour)
    play = Play(settings, ABLE, records=records)
    play.list(Instance("a", State.SUSPENDED))
    play.tick(60.0)
    assert play.take(effects.Revoke).key == "future"
    assert play.phase("a") is Phase.REMOVING


def test_slots_and_tasks_that_a_store_has_twice_are_restored_once() -> None:
    """A broken store costs the second of them its place, and not the scaler its life."""
    first = (("x", 0, START), ("y", 0, START))
    second = (("x", 1, START), ("z", 1, START))
    later = START + timedelta(seconds=1)
    records = [
        InstanceRecord("g", "b", None, later, 2, (), suspended=second),
        InstanceRecord("g", "a", None, START, 2, (), suspended=first),
    ]
    play = Play(Settings(capacity_per_instance=2), ABLE, records=records)
    kept = {one.key: (one.instance, one.slot) for one in play.state.suspended()}
    assert kept == {"x": ("a", 0), "z": ("b", 1)}


def test_a_restored_instance_that_the_cloud_does_not_understand_keeps_its_suspended_task() -> None:
    """It need not run, so running late is not a failure to create it."""
    kept = (("task-0", 0, START),)
    record = InstanceRecord("g", "a", None, START, 1, (), ready_at=START, suspended=kept)
    play = Play(Settings(creation_timeout=timedelta(seconds=10)), ABLE, records=[record])
    for _ in range(20):
        play.relist(Instance("a", State.UNKNOWN))
    assert not play.has(effects.Revoke)
    play.say(events.SuspendedTaskDropped("task-0"))
    play.relist(Instance("a", State.UNKNOWN))
    assert play.phase("a") is Phase.REMOVING, "nothing keeps it any more"


def test_a_sleeping_task_can_be_given_up_before_its_instance_is_seen_again() -> None:
    """After a restart the instance is used like any other then."""
    record = InstanceRecord("g", "a", None, START, 1, (), suspended=(("task-0", 0, START),))
    play = Play(Settings(policy=ROOMY), ABLE, records=[record])
    play.say(events.SuspendedTaskDropped("task-0"))
    assert play.phase("a") is Phase.CREATING
    play.list(Instance("a", State.RUNNING))
    play.say(events.InstancePrepared("g", "a"))
    assert play.state.demand().free == 1


def test_a_record_with_a_suspended_task_survives_its_encoding() -> None:
    """Times and slots come back as they were."""
    kept = (("task-0", 1, START),)
    record = InstanceRecord("g", "a", None, START, 2, (), Rule.AGE, "old", START, kept)
    encoded = msgspec.json.encode(record)
    assert msgspec.json.decode(encoded, type=InstanceRecord) == record
