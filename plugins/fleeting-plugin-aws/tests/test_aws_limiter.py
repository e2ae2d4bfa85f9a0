"""How many requests go out per second, and how long to wait after one that failed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleeting_plugin_aws._limiter import Limiter, Shared, pause


def test_a_burst_goes_out_at_once() -> None:
    """After a rest, so many requests go at once as two seconds bring; the others wait in turn."""
    limiter = Limiter(10.0)
    waits = [limiter.take(1000.0) for _ in range(22)]
    assert waits[:20] == pytest.approx([0.0] * 20)
    assert waits[20:] == pytest.approx([0.1, 0.2])


def test_a_slow_limiter_lets_the_first_one_go() -> None:
    """However few requests there may be, the first one after a rest does not wait."""
    limiter = Limiter(0.1)
    assert limiter.take(1000.0) == pytest.approx(0.0)
    assert limiter.take(1000.0) == pytest.approx(10.0)


def test_exhausted_means_no_burst() -> None:
    """After AWS has said that it was too much, the next request waits for its turn."""
    limiter = Limiter(10.0)
    limiter.exhaust(1000.0)
    assert limiter.take(1000.0) == pytest.approx(0.1)


@given(times=st.lists(st.floats(0, 100), min_size=1), rate=st.floats(0.1, 50))
def test_the_rate_is_kept(times: list[float], rate: float) -> None:
    """In no span of time go more requests than the rate and one burst allow."""
    limiter = Limiter(rate)
    sent = sorted(at + limiter.take(at) for at in sorted(times))
    for count, at in enumerate(sent, 1):
        assert count <= rate * (at - sent[0]) + max(2 * rate, 1) + 1e-6


def test_groups_of_an_account_and_region_share() -> None:
    """What AWS counts together has one limiter, and the lower rate of two holds."""
    shared = Shared()
    first = shared.limiter("123", "eu-central-1", "", 10.0)
    assert shared.limiter("123", "eu-central-1", "", 5.0) is first
    assert first.requests_per_second == 5.0
    assert shared.limiter("123", "eu-west-1", "", 10.0) is not first
    assert shared.limiter("456", "eu-central-1", "", 10.0) is not first


def test_pauses_grow_and_differ() -> None:
    """Each pause can be twice the one before, up to a limit, and chance decides over half of it."""
    assert [pause(attempt, 1.0) for attempt in (1, 2, 3)] == [0.5, 1.0, 2.0]
    assert pause(1, 0.0) == 0.25
    assert pause(50, 1.0) == 20.0
