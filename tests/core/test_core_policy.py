"""Which policy is in force, compared with trying every minute, and what a switch leads to."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core_model import Play, picture
from fleeting.types import GroupInfo, Listing, State
from fleeting.types import Instance as Listed
from taskscaler import IllegalEvent
from taskscaler.core import (
    Period,
    Policy,
    ScalerState,
    ScheduledPolicy,
    Settings,
    effects,
    events,
    in_force,
)

DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
# Northern and southern summers, half an hour of summer time, two hours of it, none, and a
# zone whose clocks change at midnight.
ZONES = [
    ZoneInfo(name)
    for name in (
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "Australia/Lord_Howe",
        "Antarctica/Troll",
        "Asia/Kolkata",
        "Asia/Beirut",
    )
]
CHANGES = [
    datetime(2026, 3, 8, tzinfo=UTC),
    datetime(2026, 3, 29, tzinfo=UTC),
    datetime(2026, 4, 4, tzinfo=UTC),
    datetime(2026, 10, 3, tzinfo=UTC),
    datetime(2026, 10, 25, tzinfo=UTC),
    datetime(2026, 11, 1, tzinfo=UTC),
    datetime(2026, 12, 31, tzinfo=UTC),
]
EVERY_DAY = (1 << 32) - 2
EVERY_MONTH = (1 << 13) - 2
WEEKDAYS = 0b0011111
WEEK = 0b1111111


def hours(first: int, last: int, *, minutes: range = range(60), weekdays: int = WEEK) -> Period:
    """Return a period of some minutes in each hour from the first to the last."""
    mask = 0
    for hour in range(first, last + 1):
        for minute in minutes:
            mask |= 1 << hour * 60 + minute
    return Period(f"* {first}-{last} * * *", mask, EVERY_DAY, EVERY_MONTH, weekdays, either=False)


def scheduled(idle_count: int, *periods: Period, zone: ZoneInfo | None = None) -> ScheduledPolicy:
    """Return an entry of a schedule."""
    return ScheduledPolicy(Policy(idle_count=idle_count), periods, zone or ZONES[0])


def naive(settings: Settings, at: datetime) -> Policy:
    """Return the policy in force by looking at each field of each period."""
    winner = settings.policy
    for entry in settings.schedule:
        local = at.astimezone(entry.zone)
        for period in entry.periods:
            month = period.months >> local.month & 1
            day = period.days >> local.day & 1
            weekday = period.weekdays >> local.weekday() & 1
            days = (day or weekday) if period.either else (day and weekday)
            if month and days and period.minutes >> local.hour * 60 + local.minute & 1:
                winner = entry.policy
    return winner


@st.composite
def periods(draw: st.DrawFn) -> Period:
    """Draw what cron expressions with lists, ranges and steps lead to."""
    first, last = sorted((draw(st.integers(0, 23)), draw(st.integers(0, 23))))
    step = draw(st.sampled_from([1, 1, 7, 30]))
    start = draw(st.sampled_from([0, 0, 15, 59]))
    period = hours(first, last, minutes=range(start, 60, step))
    every = st.just(EVERY_DAY)
    return replace(
        period,
        days=draw(every | st.integers(0, EVERY_DAY >> 1).map(lambda bits: bits << 1)),
        months=draw(st.just(EVERY_MONTH) | st.just(1 << 3 | 1 << 10)),
        weekdays=draw(st.sampled_from([WEEK, WEEKDAYS, 0b1000000])),
        either=draw(st.booleans()),
    )


schedules = st.lists(
    st.tuples(st.lists(periods(), min_size=1, max_size=2), st.sampled_from(ZONES)),
    min_size=1,
    max_size=3,
).map(
    lambda entries: Settings(
        schedule=tuple(
            ScheduledPolicy(Policy(idle_count=number), tuple(ranges), zone)
            for number, (ranges, zone) in enumerate(entries, 1)
        )
    )
)
moments = st.tuples(st.sampled_from(CHANGES), st.floats(-86_400, 2 * 86_400)).map(
    lambda drawn: drawn[0] + timedelta(seconds=drawn[1])
)


@settings(deadline=None)
@given(schedules, moments)
def test_the_policy_in_force_is_the_one_that_trying_every_minute_finds(
    settings: Settings, at: datetime
) -> None:
    """It is right at once, and in every minute until the moment up to which it is said to hold."""
    held = in_force(settings, at)
    assert held.since == at < held.until <= at + 1.2 * DAY
    minute = at
    while minute < held.until:
        assert naive(settings, minute) == held.policy
        minute = min(minute + MINUTE, max(held.until - timedelta(microseconds=1), minute + MINUTE))


@settings(deadline=None, max_examples=20)
@given(schedules, st.sampled_from(CHANGES))
def test_going_from_look_to_look_meets_every_switch(settings: Settings, start: datetime) -> None:
    """Three days around a change of the clocks, and each minute has had its policy."""
    at, minute = start - DAY, start - DAY
    while at < start + 2 * DAY:
        held = in_force(settings, at)
        while minute < held.until:
            assert naive(settings, minute) == held.policy
            minute += MINUTE
        at = held.until


def test_a_period_in_the_hour_that_is_left_out_does_not_come_that_day() -> None:
    """On 29 March half past two does not occur in Berlin; on the day before and after it does."""
    night = scheduled(1, hours(2, 2), zone=ZoneInfo("Europe/Berlin"))
    settings = Settings(schedule=(night,))
    held = {
        day: any(
            naive(settings, start + number * MINUTE).idle_count
            and in_force(settings, start + number * MINUTE).policy.idle_count
            for number in range(24 * 60)
        )
        for day in (28, 29, 30)
        for start in [datetime(2026, 3, day, tzinfo=UTC)]
    }
    assert held == {28: True, 29: False, 30: True}


def test_a_period_in_the_hour_that_comes_twice_holds_for_two_hours() -> None:
    """On 25 October the hour from two to three comes twice in Berlin, and both count."""
    night = scheduled(1, hours(2, 2), zone=ZoneInfo("Europe/Berlin"))
    settings = Settings(schedule=(night,))
    start = datetime(2026, 10, 25, tzinfo=UTC)
    held = [
        number
        for number in range(6 * 60)
        if in_force(settings, start + number * MINUTE).policy.idle_count
    ]
    assert held == list(range(120))


def test_the_last_entry_that_holds_wins_and_without_any_the_own_policy_does() -> None:
    """Each entry means its own zone's clocks; outside all periods `Settings.policy` holds."""
    settings = Settings(
        policy=Policy(idle_count=9),
        schedule=(
            scheduled(1, hours(8, 17)),
            scheduled(2, hours(8, 17), zone=ZoneInfo("America/New_York")),
        ),
    )
    noon = datetime(2026, 7, 1, 12, tzinfo=UTC)
    found = {
        hour: in_force(settings, noon + timedelta(hours=hour)).policy.idle_count
        for hour in (-5, -1, 1, 9, 10)
    }
    # Eight o'clock in New York is noon in summer, and its evening is 22 o'clock.
    assert found == {-5: 9, -1: 1, 1: 2, 9: 2, 10: 9}


@pytest.mark.parametrize(
    ("schedule", "most"),
    [
        ((), 1),
        ((scheduled(1, hours(0, 23)),), 370),
        ((scheduled(1, hours(8, 17, weekdays=WEEKDAYS)), scheduled(2, hours(0, 5))), 2000),
    ],
)
def test_a_year_takes_few_looks(schedule: tuple[ScheduledPolicy, ...], most: int) -> None:
    """One each midnight, and those at which something changes."""
    settings = Settings(schedule=schedule)
    at, looks = datetime(2026, 1, 1, tzinfo=UTC), 0
    while at < datetime(2027, 1, 1, tzinfo=UTC):
        at = in_force(settings, at).until
        looks += 1
    assert looks <= most


# The effects of a switch. START of `Play` is a Sunday midnight, in UTC.

WORKING_HOURS = scheduled(2, hours(8, 17))
NIGHTLY = Settings(policy=Policy(idle_time=timedelta(minutes=10)), schedule=(WORKING_HOURS,))


def sleep(play: Play, until: float) -> None:
    """Let time pass as the shell does: only when a decision was asked for."""
    while True:
        wake_at = next(
            (one.monotonic for one in reversed(play.todo) if isinstance(one, effects.WakeAt)),
            float("inf"),
        )
        if wake_at > until:
            play.seconds = until
            return
        answer = play.tick(wake_at - play.seconds)
        assert all(
            one.monotonic > play.seconds for one in answer if isinstance(one, effects.WakeAt)
        )
        for one in [one for one in play.todo if isinstance(one, effects.List)]:
            play.todo.remove(one)
            known = [each for each in play.state.instances() if each.group == one.group]
            listed = tuple(Listed(instance.id, State.RUNNING) for instance in known)
            play.say(events.ListingArrived(one.group, Listing(listed)))


def test_a_switch_starts_provisioning_by_itself() -> None:
    """At eight o'clock, with no task in sight, what the policy wants idle is asked for."""
    play = Play(NIGHTLY)
    sleep(play, 8 * 3600 - 0.001)
    assert not play.has(effects.Increase)
    assert not play.state.policy.preemptive
    sleep(play, 8 * 3600)
    assert play.take(effects.Increase).count == 2
    assert play.state.policy.preemptive


def test_a_switch_is_in_force_with_the_first_event_after_it() -> None:
    """No reservation is promised by an outdated policy, even if the scaler was not woken."""
    play = Play(NIGHTLY)
    assert play.say(events.TaskReserved("early")) == []
    play.say(events.TaskReserved("late"), after=8 * 3600.0)
    assert "preemptive" in play.take(effects.Refuse).why


def test_an_impossible_event_does_not_switch_anything() -> None:
    """It is refused as if it had never come; the next one finds the switch."""
    play = Play(NIGHTLY)
    play.seconds = 9 * 3600.0
    before = picture(play.state)
    with pytest.raises(IllegalEvent):
        play.say(events.TaskReleased("unknown"))
    assert picture(play.state) == before
    play.tick()
    assert play.state.policy.idle_count == 2


@pytest.mark.parametrize("how", ["time passes", "a task is released"])
def test_a_switch_out_of_preemptive_mode_serves_waiting_tasks(how: str) -> None:
    """A slot that was promised to a reservation is free for all tasks from that moment on."""
    day = scheduled(1, hours(0, 7))
    relaxed = Policy(idle_time=timedelta(hours=1), preemptive_mode=False)
    trusted = timedelta(days=1)
    play = Play(Settings(max_instances=2, policy=relaxed, schedule=(day,), probe_after=trusted))
    play.list()
    play.grow("a")
    assert play.say(events.TaskReserved("promised")) == []
    play.say(events.TaskAsked("waits"))
    assert "waits" in play.queue()
    play.seconds = 8 * 3600.0
    if how == "time passes":
        play.tick()
    else:
        play.say(events.TaskUnreserved("promised"))
    assert play.take(effects.Grant).key == "waits"


def test_a_wall_clock_that_jumps_is_followed_and_never_makes_it_spin() -> None:
    """Back or forth, the next event finds the policy of the new time; each wake lies ahead."""
    state = ScalerState([GroupInfo("g")], NIGHTLY, name="op")
    monotonic = 0.0
    for hour, idle_count in ((7, 0), (12, 2), (3, 0), (9, 2), (30, 0), (8, 2), (7.99999, 0)):
        wall = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(hours=hour)
        answer = state.apply(events.TimePassed(), events.Now(monotonic, wall))
        wake = [one for one in answer if isinstance(one, effects.WakeAt)][-1]
        assert state.policy.idle_count == idle_count
        assert wake.monotonic >= monotonic + 0.036
        monotonic += 1.0


def test_a_wall_clock_that_stands_still_before_a_switch_is_asked_ten_times_a_second() -> None:
    """The rest of a second does not cause a busy loop."""
    state = ScalerState([GroupInfo("g")], NIGHTLY, name="op")
    wall = datetime(2026, 3, 1, 7, 59, 59, 999_999, tzinfo=UTC)
    answer = state.apply(events.TimePassed(), events.Now(5.0, wall))
    assert answer[-1] == effects.WakeAt(5.1)


def test_a_changed_schedule_is_in_force_at_once() -> None:
    """Whether the old one had come to its end or not."""
    play = Play(NIGHTLY)
    play.list()
    always = replace(NIGHTLY, schedule=(scheduled(3, hours(0, 23)),))
    play.say(events.SettingsChanged(always))
    assert play.state.policy.idle_count == 3
    play.seconds = 86_400.0
    play.say(events.SettingsChanged(replace(NIGHTLY, schedule=())))
    assert play.state.policy == NIGHTLY.policy
