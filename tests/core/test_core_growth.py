"""How fast growth goes, in which group, and what holds it back."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from core_model import Play
from fleeting.errors import (
    GroupGone,
    OutOfCapacity,
    PermissionDenied,
    ProviderError,
    QuotaExceeded,
    Throttled,
)
from fleeting.types import Accepted, CreationFailure, GroupInfo, Instance, Listing, State
from taskscaler.core import Settings, effects, events, explain
from taskscaler.core.model.decisions import Clamp
from taskscaler.core.model.throttle import TokenBucket

UNLIMITED = Settings(throttle_limit=math.inf)
SPOT, ON_DEMAND = GroupInfo("spot"), GroupInfo("on-demand")


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


def two_groups(settings: Settings | None = None, *groups: GroupInfo) -> Play:
    """Return a play with two empty groups that are listed."""
    play = Play(settings or UNLIMITED, *(groups or (SPOT, ON_DEMAND)))
    play.list(group="spot")
    play.list(group="on-demand")
    return play


def wake_at(play: Play) -> float:
    """Return when the core wants to be woken."""
    return next(one.monotonic for one in reversed(play.todo) if isinstance(one, effects.WakeAt))


# The token bucket.


@given(
    limit=st.sampled_from([0.1, 1.0, 3.0, 7.0, 100.0, 1e6]),
    burst=st.integers(0, 20),
    wishes=st.lists(st.tuples(st.floats(0.0, 3.0), st.integers(1, 30)), max_size=30),
    start=st.floats(0.0, 1e7),
)
def test_no_window_has_more_than_the_burst_and_the_tokens_that_came(
    limit: float, burst: int, wishes: list[tuple[float, int]], start: float
) -> None:
    """Any stretch of time has at most burst + limit * length requests."""
    bucket = TokenBucket(Settings(throttle_limit=limit, throttle_burst=burst))
    now = start
    taken: list[tuple[float, int]] = []
    for pause, wish in wishes:
        now += pause
        available = bucket.available(now)
        assert available is not None
        assert 0 <= available <= bucket.burst
        if available == 0:
            assert bucket.ready_at(1) > now, "who is to wait is told for how long"
            assert bucket.available(bucket.ready_at(1)) == 1, "and not in vain"
        count = min(wish, available)
        bucket.take(count, now)
        taken.append((now, count))
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            length = taken[last][0] - taken[first][0]
            total = sum(count for _, count in taken[first : last + 1])
            assert total <= bucket.burst + limit * length + 1e-3


@given(st.integers(1, 20), st.floats(0.01, 1000.0), st.floats(0.0, 1e6))
def test_a_bucket_that_was_left_alone_is_full(burst: int, limit: float, start: float) -> None:
    """After burst / limit seconds everything is there again, and never more than that."""
    bucket = TokenBucket(Settings(throttle_limit=limit, throttle_burst=burst))
    bucket.take(burst, start)
    assert bucket.available(start + burst / limit + 1e-6) == burst
    assert bucket.available(start + 1e9) == burst


@pytest.mark.parametrize(
    ("settings", "burst"),
    [
        (Settings(throttle_limit=2.5), 3),
        (Settings(throttle_limit=0.2), 1),
        (Settings(throttle_limit=5, max_instances=40), 40),
        (Settings(throttle_limit=5, max_instances=40, throttle_burst=7), 7),
    ],
)
def test_the_burst_is_the_setting_or_the_limit_of_instances_or_of_the_rate(
    settings: Settings, burst: int
) -> None:
    """Zero is `max_instances`, and without that what comes in one second."""
    assert TokenBucket(settings).available(0.0) == burst


def test_used_tokens_stay_used_when_the_settings_change() -> None:
    """A reload neither fills the bucket nor empties it."""
    bucket = TokenBucket(Settings(throttle_limit=1, throttle_burst=10))
    bucket.take(4, 100.0)
    bucket.configure(Settings(throttle_limit=2, throttle_burst=20), 100.0)
    assert bucket.available(100.0) == 16
    bucket.configure(Settings(throttle_limit=2, throttle_burst=3), 100.0)
    assert bucket.available(100.0) == 0
    assert bucket.ready_at(1) == pytest.approx(100.5)
    bucket.configure(UNLIMITED, 100.0)
    assert bucket.available(100.0) is None
    bucket.take(1000, 100.0)
    bucket.configure(Settings(throttle_limit=2, throttle_burst=3), 101.0)
    assert bucket.available(101.0) == 3


def test_a_large_demand_gets_its_burst_at_once_and_the_rest_as_tokens_come() -> None:
    """With a burst of three and one per second, five instances take until the second second."""
    settings = Settings(throttle_limit=1, throttle_burst=3, increase_interval=timedelta(0))
    play = Play(settings)
    play.list()
    ask(play, 5)
    increase = play.take(effects.Increase)
    assert (increase.count, increase.decision.clamp) == (3, Clamp.THROTTLED)
    assert "1 new instances per second" in increase.decision.clamped_by
    play.say(events.IncreaseSettled("g", increase.operation, Accepted(3)))
    play.tick()
    assert not play.has(effects.Increase)
    assert wake_at(play) == 1.0
    for second in (1.0, 2.0):
        play.tick(second - play.seconds)
        assert settle(play) == 1
    play.tick(1.0)
    assert not play.has(effects.Increase)


def test_the_bucket_is_shared_by_all_groups() -> None:
    """Tokens that the first group takes are gone for the second."""
    settings = Settings(throttle_limit=0.01, throttle_burst=3)
    play = two_groups(settings, GroupInfo("spot", 2), ON_DEMAND)
    ask(play, 4)
    assert play.take(effects.Increase, "spot").count == 2
    other = play.take(effects.Increase, "on-demand")
    assert (other.count, other.decision.clamp) == (1, Clamp.THROTTLED)


@profile(deadline=None, max_examples=30)
@given(
    limit=st.sampled_from([0.3, 1.0, 7.0]),
    arrivals=st.lists(st.floats(0.0, 20.0), min_size=1, max_size=30),
    interval=st.sampled_from([0.0, 1.0, 3.7]),
)
def test_requests_keep_the_interval_and_the_rate_and_everybody_is_served(
    limit: float, arrivals: list[float], interval: float
) -> None:
    """Woken only when it wants to be, it asks for all in the end, and never too fast."""
    settings = Settings(
        throttle_limit=limit, throttle_burst=2, increase_interval=timedelta(seconds=interval)
    )
    play = Play(settings)
    play.list()
    asked: list[tuple[float, int]] = []
    todo = sorted(arrivals)
    for _ in range(1000):
        if todo and todo[0] <= wake_at(play):
            play.seconds = max(play.seconds, todo.pop(0))
            play.say(events.TaskAsked(f"t{len(todo)}"))
        elif not todo and sum(count for _, count in asked) == len(arrivals):
            break
        else:
            play.seconds = max(play.seconds, wake_at(play))
            play.tick()
            assert wake_at(play) > play.seconds
        if play.has(effects.Increase):
            asked.append((play.seconds, settle(play)))
    assert sum(count for _, count in asked) == len(arrivals)
    assert all(earlier + interval <= later for (earlier, _), (later, _) in pairwise(asked))
    for first in range(len(asked)):
        total = sum(count for _, count in asked[first:])
        assert total <= 2 + limit * (asked[-1][0] - asked[first][0]) + 1e-6


def test_demand_within_the_interval_is_requested_together() -> None:
    """The first task is served at once, the nine that follow by one request a second later."""
    play = Play()
    play.list()
    ask(play, 1, "first")
    assert settle(play) == 1
    for number in range(9):
        play.say(events.TaskAsked(f"t{number}"), after=0.1)
        play.tick()
    assert not play.has(effects.Increase)
    assert wake_at(play) == 1.0
    play.tick(1.0 - play.seconds)
    assert settle(play) == 9


# Errors by class.


def test_a_group_without_capacity_is_passed_over_for_its_cooldown_and_then_preferred_again() -> (
    None
):
    """The next one gets the rest at once; after the cooldown the order of preference holds."""
    play = two_groups()
    ask(play, 2)
    assert settle(play, "spot", OutOfCapacity("none left")) == 2
    play.tick()
    assert settle(play, "on-demand") == 2
    ask(play, 2, "later")
    play.tick(299.0)
    assert settle(play, "on-demand") == 2
    assert "none left" in play.state.standing().troubles["spot"]
    play.tick(1.0)
    ask(play, 2, "latest")
    assert settle(play, "spot") == 2


def test_only_when_nothing_else_is_to_be_had_is_it_asked_again_before() -> None:
    """The other group is full, so the ordinary pauses decide, and no cooldown."""
    play = two_groups(UNLIMITED, SPOT, GroupInfo("on-demand", 1))
    ask(play, 3)
    settle(play, "spot", OutOfCapacity("none left"))
    play.tick()
    assert settle(play, "on-demand") == 1
    play.tick()
    assert not play.has(effects.Increase)
    assert wake_at(play) == 1.0
    play.tick(1.0)
    assert settle(play, "spot", OutOfCapacity("still none left")) == 2
    play.tick(2.0)
    assert settle(play, "spot") == 2
    play.tick()
    assert play.pause("spot")[1] == play.seconds, "a success ends the cooldown"


def test_the_other_group_failing_too_does_not_make_the_first_wait_longer() -> None:
    """Both are passed over, so both are tried again as their pauses end."""
    play = two_groups()
    ask(play, 1)
    settle(play, "spot", OutOfCapacity("none left"))
    play.tick()
    settle(play, "on-demand", OutOfCapacity("none left here either"))
    play.tick(1.0)
    assert settle(play, "spot", OutOfCapacity("none left")) == 1
    play.tick()
    assert settle(play, "on-demand") == 1


def test_a_cooldown_for_the_quota_ends_when_an_instance_of_the_group_is_gone() -> None:
    """A removed instance gives its quota back, but not capacity."""
    for error, preferred in (
        (QuotaExceeded("8 of 8 used"), "spot"),
        (OutOfCapacity("none left"), "on-demand"),
    ):
        play = two_groups()
        ask(play, 1)
        settle(play, "spot")
        play.relist(Instance("a", State.RUNNING), group="spot")
        play.say(events.InstancePrepared("spot", "a"))
        ask(play, 1, "next")
        settle(play, "spot", error)
        play.tick()
        settle(play, "on-demand")
        play.relist(Instance("b", State.RUNNING), group="on-demand")
        play.say(events.InstancePrepared("on-demand", "b"))
        play.relist(group="spot")
        play.relist(group="spot")
        assert list(play.phases()) == ["b"]
        play.tick(10.0)
        ask(play, 1, "last")
        assert play.take(effects.Increase).group == preferred


@pytest.mark.parametrize(
    "error", [PermissionDenied("the key has expired"), GroupGone("no such group")]
)
def test_failures_that_only_the_operator_can_fix_pause_for_long(
    error: ProviderError,
) -> None:
    """The group pauses for as long as any pause may last; the next one serves at once."""
    play = two_groups()
    ask(play, 1)
    settle(play, "spot", error)
    play.tick()
    assert settle(play, "on-demand") == 1
    assert play.pause("spot")[0] == 300.0
    alone = Play()
    alone.list()
    ask(alone, 1)
    settle(alone, error=error)
    alone.tick()
    assert str(error) in explain(alone.state.standing())
    assert wake_at(alone) == 300.0
    alone.tick(299.0)
    assert not alone.has(effects.Increase)
    alone.tick(1.0)
    assert alone.has(effects.Increase)


def test_a_throttled_group_waits_as_told_or_else_longer_each_time() -> None:
    """With no word from the cloud the pause doubles; with one it is what the cloud says."""
    play = Play(UNLIMITED)
    play.list()
    ask(play, 1)
    for pause in (1.0, 2.0, 4.0):
        settle(play, error=Throttled("slow down"))
        play.tick()
        assert play.pause() == (play.seconds + pause, play.seconds)
        assert play.state.blocked[0].clamp is Clamp.PAUSED
        play.tick(pause)
    settle(play, error=Throttled("slow down", retry_after=timedelta(seconds=77)))
    play.tick()
    assert play.pause() == (play.seconds + 77.0, play.seconds), "no cooldown"


def test_failures_that_a_listing_reports_have_their_class_too() -> None:
    """A cloud that accepts everything and then has nothing to give is passed over as well."""
    play = two_groups()
    ask(play, 1)
    settle(play, "spot")
    play.tick(2.0)
    play.take(effects.List, "spot")
    play.say(
        events.ListingArrived(
            "spot", Listing(failures=(CreationFailure("1", OutOfCapacity("none left")),))
        )
    )
    play.tick(60.0)
    assert play.take(effects.Increase).group == "on-demand"


# Requests without a result must not hold up others.


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
    assert play.take(effects.Increase).group == "on-demand"
    (first,) = play.state.blocked
    assert (first.group, first.clamp, first.decided) == ("spot", Clamp.OVERDUE, 0)
    assert "2 instances, requested more than 1m ago" in first.clamped_by
    demand = play.state.demand()
    assert (demand.overdue, demand.instances) == (2, 4), "the limit counts them all the while"


def test_overdue_instances_are_not_requested_of_their_group_again() -> None:
    """A single group is only asked for what came later, and nothing exceeds what is needed."""
    play = Play(UNLIMITED)
    play.list()
    ask(play, 2)
    settle(play)
    play.tick(60.0)
    assert not play.has(effects.Increase)
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


# Limits.


def test_the_limit_of_a_group_is_the_smaller_of_its_own_and_the_operators() -> None:
    """The rest goes to the next group, and `max_instances` is over all groups."""
    limits = {"spot": 2, "on-demand": 9}
    settings = replace(UNLIMITED, group_limits=limits, max_instances=6)
    play = two_groups(settings, GroupInfo("spot", 5), GroupInfo("on-demand", 3))
    ask(play, 10)
    spot, other = play.take(effects.Increase, "spot"), play.take(effects.Increase, "on-demand")
    assert (spot.count, spot.decision.clamp) == (2, Clamp.GROUP_LIMIT)
    assert (other.count, other.decision.clamp) == (3, Clamp.GROUP_LIMIT)
    both = two_groups(replace(settings, group_limits={"spot": 2}), SPOT, ON_DEMAND)
    ask(both, 10)
    assert both.take(effects.Increase, "spot").count == 2
    last = both.take(effects.Increase, "on-demand")
    assert (last.count, last.decision.clamp) == (4, Clamp.MAX_INSTANCES)


def test_reservations_know_the_operators_limit_of_a_group() -> None:
    """Two instances of one slot are two reservations, whatever the group could have."""
    play = Play(Settings(group_limits={"g": 2}), GroupInfo("g", 5))
    play.list()
    answers = [play.say(events.TaskReserved(key)) for key in "abc"]
    assert [bool(answer) for answer in answers] == [False, False, True]
