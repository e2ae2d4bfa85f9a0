"""Requests without a result: lost replies, overdue instances, groups that do not answer."""

from __future__ import annotations

from dataclasses import replace

from core_growth import ON_DEMAND, SPOT, UNLIMITED, ask, settle, two_groups, wake_at
from core_model import Play
from fleeting.errors import OutOfCapacity, ProviderError
from fleeting.types import Accepted, GroupInfo, Instance, Listing, State
from taskscaler.core import OperationRecord, Phase, effects, events, explain
from taskscaler.core.model.decisions import Clamp


def test_a_lost_reply_delays_the_next_group_by_a_tenth_of_the_creation_timeout() -> None:
    """After a minute the second group is asked for the same, the first not for twice as many."""
    play = two_groups(replace(UNLIMITED, max_instances=5))
    ask(play, 2)
    increase = play.take(effects.Increase, "spot")
    lost = Accepted(0, error=ProviderError("no answer"))
    play.say(events.IncreaseSettled("spot", increase.operation, lost, unknown=True))
    play.tick(59.0)
    assert not play.has(effects.Increase)
    assert wake_at(play) == 60.0
    play.tick(1.0)
    increase = play.take(effects.Increase)
    assert (increase.group, increase.count) == ("on-demand", 2)
    demand = play.state.demand()
    assert (demand.overdue, demand.instances) == (2, 4), "the limit counts them all the while"


def test_the_next_overdue_request_is_woken_for_and_not_only_the_last() -> None:
    """The task of the first request waits no longer because of the second."""
    play = two_groups()
    play.tick(60.0)  # Listings are under way, so nothing wakes for the next ones.
    ask(play, 1)
    lose(play, group="spot")
    play.tick(30.0)
    ask(play, 1, "later")
    lose(play, group="spot")
    play.tick(5.0)
    assert wake_at(play) == 120.0


def test_after_a_lost_reply_the_only_group_is_asked_again_where_there_is_room() -> None:
    """It waits a tenth of the creation timeout, and the limit counts what may still come."""
    for limit, count in ((0, 2), (3, 1), (2, 0)):
        play = Play(replace(UNLIMITED, max_instances=limit))
        play.list()
        ask(play, 2)
        lose(play)
        play.tick(59.0)
        assert not play.has(effects.Increase)
        play.tick(1.0)
        assert [one.count for one in play.todo if isinstance(one, effects.Increase)] == (
            [count] if count else []
        )


def test_after_a_lost_reply_pending_instances_are_not_requested_again() -> None:
    """The cloud intends to create them."""
    play = Play(UNLIMITED)
    play.list()
    ask(play, 2)
    lose(play)
    play.tick(30.0)
    play.list(pending=2)
    play.tick(60.0)
    assert not play.has(effects.Increase)


def lose(play: Play, told: int | None = None, group: str = "g") -> None:
    """Let the answer to a request get lost; the provider may tell what it created."""
    increase = play.take(effects.Increase, group)
    accepted = Accepted(told or 0, error=ProviderError("no answer"))
    if told == increase.count:
        accepted = Accepted(increase.count)
    known = told is not None
    play.say(
        events.IncreaseSettled(group, increase.operation, accepted, unknown=not known, told=known)
    )


def test_a_provider_that_tells_what_a_lost_request_created_saves_the_wait() -> None:
    """The rest is requested after the pause; if it comes after all it is ours, and limited."""
    play = Play(replace(UNLIMITED, max_instances=4))
    play.list()
    ask(play, 3)
    lose(play, told=1)
    assert play.state.demand().coming == 1
    play.tick(1.0)
    increase = play.take(effects.Increase)
    assert (increase.count, increase.decision.clamp) == (1, Clamp.MAX_INSTANCES)
    left = [(one.count, one.unlikely) for one in play.records(OperationRecord)]
    assert left == [(1, 2), (1, 0)]
    play.say(events.IncreaseSettled("g", increase.operation, Accepted(1)))
    play.relist(*map(_creating, "abcd"))
    assert all(one is Phase.CREATING for one in play.phases().values()), "all are ours"
    assert not play.records(OperationRecord)


def test_a_lost_request_that_created_all_is_a_success() -> None:
    """There is nothing to pause for."""
    play = Play(UNLIMITED)
    play.list()
    ask(play, 2)
    lose(play, told=2)
    assert (play.failures(), play.state.demand().coming) == (0, 2)


def test_unlikely_instances_are_written_off_in_the_end() -> None:
    """After the creation timeout they count no more, and that is not a failure."""
    play = Play(replace(UNLIMITED, max_instances=1))
    play.list()
    ask(play, 1)
    lose(play, told=0)
    play.tick(1.0)
    assert not play.has(effects.Increase), "one may still come, and no more is allowed"
    play.relist()
    play.tick(600.0)
    play.relist()
    assert play.take(effects.Increase).count == 1
    assert play.failures() == 1


def test_a_launch_that_is_first_seen_as_it_ends_is_replaced_at_once() -> None:
    """Most likely it is the one that was requested; if another comes, that is ours as well."""
    play = Play(UNLIMITED)
    play.list()
    ask(play, 1)
    settle(play)
    play.relist(Instance("a", State.DELETING))
    assert play.phase("a") is Phase.REMOVING
    play.tick(1.0)
    assert settle(play) == 1
    assert play.state.demand().instances == 3, "one of them may still come"
    play.relist(*map(_creating, "bc"))
    assert all(one is Phase.CREATING for one in play.phases().values()), "both are ours"


def test_overdue_instances_are_not_requested_of_their_group_again() -> None:
    """A single group is only asked for what came later, and nothing exceeds what is needed."""
    play = Play(UNLIMITED)
    play.list()
    ask(play, 2)
    settle(play)
    play.tick(60.0)
    assert not play.has(effects.Increase)
    (held,) = play.state.blocked
    assert (held.clamp, held.decided) == (Clamp.OVERDUE, 0)
    assert "2 instances, requested more than 1m ago" in held.clamped_by
    ask(play, 3, "more")
    assert settle(play) == 3
    assert "2 overdue" in explain(play.state.standing())
    play.take(effects.List)
    play.say(events.ListingArrived("g", Listing(tuple(map(_creating, "abcde")))))
    play.tick(1.0)
    assert play.state.demand().overdue == 0
    assert not play.has(effects.Increase)


def _creating(id: str) -> Instance:
    return Instance(id, State.CREATING)


def test_a_cloud_that_means_to_create_for_ever_does_not_hold_the_next_group_off() -> None:
    """Instances pending at the start are counted, and after a minute not waited for."""
    play = Play(UNLIMITED, SPOT, ON_DEMAND)
    play.list(group="spot", pending=2)
    play.list(group="on-demand")
    ask(play, 2)
    assert not play.has(effects.Increase)
    play.tick(60.0)
    play.list(group="spot", pending=2)
    assert settle(play, "on-demand") == 2
    while not any(isinstance(one, effects.List) and one.group == "spot" for one in play.todo):
        play.tick(1.0)
    play.list(group="spot", pending=1)
    assert play.state.demand().overdue == 0, "it is getting on"


def test_a_request_without_an_answer_holds_the_rest_off_for_some_seconds_only() -> None:
    """Its request may still succeed, but later tasks need not wait for that."""
    play = two_groups()
    ask(play, 1)
    hanging = play.take(effects.Increase, "spot")
    ask(play, 1, "later")
    assert not play.has(effects.Increase)
    assert wake_at(play) == 6.0
    play.tick(6.0)
    assert settle(play, "on-demand") == 1
    play.say(events.IncreaseSettled("spot", hanging.operation, Accepted(1)))
    play.tick(1.0)
    assert not play.has(effects.Increase)


def test_a_first_listing_that_hangs_holds_the_next_group_off_for_some_seconds_only() -> None:
    """Demand does not wait for the whole timeout of a call to a group that may be dead."""
    play = Play(UNLIMITED, SPOT, ON_DEMAND)
    play.list(group="on-demand")
    ask(play, 1)
    assert not play.has(effects.Increase)
    assert wake_at(play) == 6.0
    play.tick(6.0)
    assert settle(play, "on-demand") == 1


def test_an_instance_that_comes_too_late_costs_one_more_until_a_listing_shows_both() -> None:
    """It is taken for what a lost request created; the limit holds as soon as both are seen."""
    play = Play(replace(UNLIMITED, max_instances=2))
    play.list()
    ask(play, 1)
    lose(play)
    late, real = Instance("late", State.RUNNING), Instance("real", State.RUNNING)
    play.relist(late)
    assert play.phases() == {"late": Phase.PREPARING}
    assert play.state.demand().instances == 1
    play.relist(late, real)
    assert play.phases() == {"late": Phase.PREPARING, "real": Phase.FOREIGN}
    assert play.state.demand().room == 0


def test_an_answer_that_was_lost_is_no_success() -> None:
    """It ends no cooldown, whatever became of the request."""
    play = two_groups(UNLIMITED, SPOT, GroupInfo("on-demand", 0))
    ask(play, 1)
    settle(play, "spot", OutOfCapacity("none left"))
    play.tick(1.0)
    increase = play.take(effects.Increase, "spot")
    lost = events.IncreaseSettled("spot", increase.operation, Accepted(0), unknown=True)
    play.say(lost)
    play.tick()
    assert play.pause("spot")[1] == 300.0
