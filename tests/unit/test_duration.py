from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleeting.types import Duration

UNITS = {"h": 3600, "m": 60, "s": 1, "ms": 1e-3, "us": 1e-6, "\u00b5s": 1e-6, "\u03bcs": 1e-6}


@given(st.timedeltas())
def test_formatted_duration_is_parsed_again(value: timedelta) -> None:
    """Any length of time, to the microsecond, can be formatted and parsed again."""
    duration = Duration(value.days, value.seconds, value.microseconds)
    assert Duration.parse(str(duration)) == value


@given(st.lists(st.tuples(st.integers(0, 10_000), st.sampled_from(sorted(UNITS))), min_size=1))
def test_parts_add_up(parts: list[tuple[int, str]]) -> None:
    """A duration is the sum of its parts, in any order."""
    text = "".join(f"{number}{unit}" for number, unit in parts)
    total = sum((timedelta(seconds=UNITS[unit]) * number for number, unit in parts), timedelta())
    assert Duration.parse(text) == total
    assert Duration.parse(f"-{text}") == -total


@given(st.text())
def test_any_other_text_is_refused(text: str) -> None:
    """Any text is parsed or refused with a `ValueError` that quotes it."""
    try:
        Duration.parse(text)
    except ValueError as error:
        message = str(error)
    else:
        return
    assert repr(text) in message


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20m0s", 1200),
        ("1h30m", 5400),
        ("250ms", 0.25),
        ("0", 0),
        ("-0", 0),
        (" 90s ", 90),
        ("+1.5h", 5400),
        (".5s", 0.5),
        ("5.s", 5),
        ("1500us", 0.0015),
        ("3000ns", 0.000003),
        ("-1m30s", -90),
    ],
)
def test_notation_is_that_of_go(text: str, seconds: float) -> None:
    """Fractions, signs and all units of Go's notation are accepted."""
    assert Duration.parse(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "-", "5", "s", "5 m", "1h 30m", "1d", "1e3s", "--1s", "1.2.3s", ".s", "\u0663s"]
)
def test_no_duration(text: str) -> None:
    """A text that is not a duration is refused, and the message has an example."""
    with pytest.raises(ValueError, match='write for example "90s"'):
        Duration.parse(text)


def test_too_long() -> None:
    """A number that no `timedelta` can hold is refused in words, not as an overflow."""
    with pytest.raises(ValueError, match="longer than the longest supported duration"):
        Duration.parse("9" * 40 + "h")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (timedelta(0), "0s"),
        (timedelta(minutes=20), "20m"),
        (timedelta(days=2, seconds=5), "48h5s"),
        (timedelta(seconds=-90), "-1m30s"),
        (timedelta(seconds=59, microseconds=123456), "59.123456s"),
        (timedelta(microseconds=1), "0.000001s"),
    ],
)
def test_duration_is_formatted(value: timedelta, text: str) -> None:
    """The text has hours, minutes and seconds, without parts that are zero."""
    assert str(Duration(value.days, value.seconds, value.microseconds)) == text
