"""Periods and time zones are compiled or refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from fleeting._decoding import decode
from taskscaler.config import AutoscalerConfig, compile_period, find_zone
from taskscaler.core import in_force

if TYPE_CHECKING:
    from taskscaler.core import Period

MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
WEEKDAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]
MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2032, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - Hypothesis adds the zone


def holds(period: Period, moment: datetime) -> bool:
    """Return whether a moment is in a period, by its bits as documented."""
    day = bool(period.days >> moment.day & 1)
    weekday = bool(period.weekdays >> moment.weekday() & 1)
    return (
        bool(period.minutes >> (moment.hour * 60 + moment.minute) & 1)
        and bool(period.months >> moment.month & 1)
        and ((day or weekday) if period.either else (day and weekday))
    )


@st.composite
def fields(draw: st.DrawFn, least: int, most: int, names: list[str] | None = None) -> str:
    """Return a field of an expression: a list of numbers, names, ranges and steps."""

    def shown(number: int) -> str:
        first = least if names is None or len(names) > 7 else 0
        return names[number - first] if names and draw(st.booleans()) else str(number)

    def item() -> str:
        low, high = sorted((draw(numbers), draw(numbers)))
        kind = draw(st.sampled_from(["one", "range", "steps", "all", "every"]))
        step = draw(st.integers(1, most))
        return {
            "one": shown(low),
            "range": f"{low}-{high}",
            "steps": f"{low}-{high}/{step}",
            "all": "*",
            "every": f"*/{step}",
        }[kind]

    numbers = st.integers(least, most)
    return ",".join(item() for _ in range(draw(st.integers(1, 3))))


EXPRESSIONS = st.tuples(
    fields(0, 59), fields(0, 23), fields(1, 29), fields(1, 12, MONTHS), fields(0, 6, WEEKDAYS)
).map(" ".join)


@given(EXPRESSIONS, MOMENTS)
def test_period_matches_when_cron_would_run(expression: str, moment: datetime) -> None:
    """A period is in force in exactly the minutes in which cron would run a job."""
    minute = moment.replace(second=0, microsecond=0)
    fires = next(CronSim(expression, minute - timedelta(minutes=1))) == minute
    assert holds(compile_period(expression), moment) is fires


@given(st.text(max_size=40))
def test_any_text_is_compiled_or_refused(text: str) -> None:
    """Any text gives a period or a message with a fix."""
    try:
        period = compile_period(text)
    except ValueError as error:
        complaint: str | None = str(error)
    else:
        complaint = None
        assert period.minutes
        assert period.months
    assert complaint is None or "; write " in complaint


@pytest.mark.parametrize(
    ("expression", "inside", "outside"),
    [
        ("* 0-12 * * *", ["2026-03-02 00:00", "2026-03-02 12:59"], ["2026-03-02 13:00"]),
        ("* 8-17 * * 1-5", ["2026-03-02 08:00"], ["2026-03-01 08:00", "2026-03-02 18:00"]),
        ("* * * * MON-SUN", ["2026-03-01 00:00", "2026-03-02 00:00"], []),
        ("* * * * sat-sun", ["2026-02-28 00:00", "2026-03-01 00:00"], ["2026-03-02 00:00"]),
        ("* * * * 0", ["2026-03-01 00:00"], ["2026-03-02 00:00"]),
        ("* * * * 7", ["2026-03-01 00:00"], ["2026-03-02 00:00"]),
        ("*/15 * * * *", ["2026-03-02 00:45"], ["2026-03-02 00:44"]),
        ("5/20 * * * *", ["2026-03-02 00:25", "2026-03-02 00:45"], ["2026-03-02 00:20"]),
        ("* * * jan,DEC *", ["2026-12-01 00:00"], ["2026-03-02 00:00"]),
        ("* * 1 * 1", ["2026-03-01 00:00", "2026-03-02 00:00"], ["2026-03-03 00:00"]),
        ("* * */2 * 1", ["2026-03-09 00:00"], ["2026-03-02 00:00", "2026-03-03 00:00"]),
        ("* * 29 2 *", ["2028-02-29 12:00"], ["2027-02-28 12:00"]),
    ],
)
def test_expression_matches_moments(expression: str, inside: list[str], outside: list[str]) -> None:
    """Ranges, lists, steps, names, three names of Sunday, and cron's rule for two days work."""
    period = compile_period(expression)
    assert period.expression == expression
    assert [moment for moment in inside if not holds(period, datetime.fromisoformat(moment))] == []
    assert [moment for moment in outside if holds(period, datetime.fromisoformat(moment))] == []


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("", "'' has 0 fields; write five"),
        ("* * * *", "has 4 fields; write five"),
        ("0 * * * * *", "has 6 fields; write five"),
        ("@daily", "'@daily' is not supported; write five fields"),
        ("60 * * * *", "'60' is not a valid minute; write 0 to 59"),
        ("* 24 * * *", "'24' is not a valid hour; write 0 to 23"),
        ("* * 0 * *", "'0' is not a valid day of the month; write 1 to 31"),
        ("* * * 13 *", "'13' is not a valid month; write 1 to 12 or JAN to DEC"),
        ("* * * * 8", "'8' is not a valid day of the week; write 1 to 7 or MON to SUN"),
        ("17-8 * * * *", "'17-8' is not a valid minute"),
        ("*/0 * * * *", "'*/0' is not a valid minute"),
        ("1, * * * *", "'1,' is not a valid minute"),
        ("\u0661 * * * *", "is not a valid minute"),
        (f"{'9' * 900} * * * *", "is not a valid minute"),
        (f"{'1,' * 600}1 * * * *", "at most 1000 characters, got 1209; write several periods"),
        ("* * L * *", "'L' as the day of the month is an extension of other crons; write numbers"),
        ("* * LW * *", "'LW' as the day of the month is an extension"),
        ("* * 15W * *", "'15W' as the day of the month is an extension"),
        ("* * ? * *", "'?' as the day of the month is an extension"),
        ("* * * * 5L", "'5L' as the day of the week is an extension"),
        ("* * * * MON#2", "'MON#2' as the day of the week is an extension"),
        ("0 0 31 2 *", "'0 0 31 2 *' is never in force, because its months do not have that day"),
        ("0 0 30 2 *", "is never in force"),
        ("0 0 31 2,4 */2", "is never in force"),
    ],
)
def test_invalid_expression_is_refused(expression: str, complaint: str) -> None:
    """The message names the wrong field and the valid values."""
    with pytest.raises(ValueError, match="write") as caught:
        compile_period(expression)
    assert complaint in str(caught.value)


def test_missing_day_of_the_month_is_valid_with_a_day_of_the_week() -> None:
    """If one of two days is enough, the other one need not exist in the month."""
    period = compile_period("0 0 31 2 1")
    assert holds(period, datetime(2026, 2, 2))  # noqa: DTZ001 - the bits do not depend on a zone


@pytest.mark.parametrize(
    ("period", "start", "hours"),
    [
        ("* 2 * * *", "2026-03-29", 0),
        ("* 1-4 * * *", "2026-03-29", 3),
        ("* 2 * * *", "2026-10-25", 2),
        ("* 1-4 * * *", "2026-10-25", 5),
        ("* 2 * * *", "2026-07-01", 1),
    ],
)
def test_period_follows_daylight_saving(period: str, start: str, hours: int) -> None:
    """A skipped hour is never in force; a repeated hour is in force twice."""
    policy = {"periods": [period], "timezone": "Europe/Berlin", "idle_count": 1}
    settings = decode({"policy": [policy]}, AutoscalerConfig, where="test").settings()
    midnight = datetime.fromisoformat(start).replace(tzinfo=find_zone("Europe/Berlin"))
    minutes = (midnight.astimezone(UTC) + timedelta(minutes=n) for n in range(24 * 60))
    held = sum(in_force(settings, minute).policy.idle_count for minute in minutes)
    assert held == 60 * hours


def test_zone_is_found_by_its_iana_name() -> None:
    """The zone has its daylight saving time."""
    zone = find_zone("Europe/Berlin")
    assert zone == ZoneInfo("Europe/Berlin")
    assert datetime(2026, 7, 1, tzinfo=zone).utcoffset() == timedelta(hours=2)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Europe/Berlni", "did you mean 'Europe/Berlin'?"),
        ("europe/berlin ", "did you mean 'Europe/Berlin'?"),
        ("Berlin", "did you mean 'Europe/Berlin'?"),
        ("America/New York", "did you mean 'America/New_York'?"),
        ("zzzzzz", 'write for example "Europe/Berlin"'),
        ("../../etc/passwd", 'write for example "Europe/Berlin"'),
        ("/etc/localtime", "the time zone '/etc/localtime' does not exist"),
        ("a\0b", "does not exist"),
        ("Europe", "the time zone 'Europe' does not exist"),
    ],
)
def test_unknown_zone_is_refused_with_the_nearest(name: str, hint: str) -> None:
    """The message for a typing error has the nearest name; a path is not a zone."""
    with pytest.raises(ValueError, match=r"the time zone .* does not exist") as caught:
        find_zone(name)
    assert hint in str(caught.value)


@pytest.mark.parametrize("name", ["", "Local"])
def test_missing_zone_is_that_of_this_computer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a name, the zone of this computer is used."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setattr("tzlocal.unix._cache_tz", None)
    zone = find_zone(name)
    assert datetime(2026, 7, 1, tzinfo=zone).utcoffset() == timedelta(hours=9)


def test_unknown_zone_of_this_computer_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the zone of this computer has no name, the message asks for one."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0")
    monkeypatch.setattr("tzlocal.unix._cache_tz", None)
    with pytest.raises(
        ValueError, match=r"time zone of this computer is unknown; write for example timezone ="
    ):
        find_zone("")
