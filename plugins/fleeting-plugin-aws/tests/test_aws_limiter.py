"""The request limit, and the pauses between attempts."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleeting_plugin_aws._limiter import Limiter, Shared, pause


def test_burst() -> None:
    """Two seconds' worth of requests are sent at once; further ones wait in turn."""
    limiter = Limiter(10.0)
    waits = [limiter.take(1000.0) for _ in range(22)]
    assert waits[:20] == pytest.approx([0.0] * 20)
    assert waits[20:] == pytest.approx([0.1, 0.2])


def test_first_request_never_waits() -> None:
    """The first request does not wait, however low the rate is."""
    limiter = Limiter(0.1)
    assert limiter.take(1000.0) == pytest.approx(0.0)
    assert limiter.take(1000.0) == pytest.approx(10.0)


def test_no_burst_after_throttling() -> None:
    """After AWS has throttled a request, the next one waits."""
    limiter = Limiter(10.0)
    limiter.exhaust(1000.0)
    assert limiter.take(1000.0) == pytest.approx(0.1)


@given(times=st.lists(st.floats(0, 100), min_size=1), rate=st.floats(0.1, 50))
def test_rate_is_kept(times: list[float], rate: float) -> None:
    """No span of time contains more requests than the rate and one burst allow."""
    limiter = Limiter(rate)
    sent = sorted(at + limiter.take(at) for at in sorted(times))
    for count, at in enumerate(sent, 1):
        assert count <= rate * (at - sent[0]) + max(2 * rate, 1) + 1e-6


def test_account_and_region_share_a_limiter() -> None:
    """Each account and region has one limiter, and the lowest rate applies."""
    shared = Shared()
    first = shared.limiter("123", "eu-central-1", "", 10.0)
    assert shared.limiter("123", "eu-central-1", "", 5.0) is first
    assert first.requests_per_second == 5.0
    assert shared.limiter("123", "eu-west-1", "", 10.0) is not first
    assert shared.limiter("456", "eu-central-1", "", 10.0) is not first


def test_pauses() -> None:
    """Pauses double up to a limit, and up to half of each is random."""
    assert [pause(attempt, 1.0) for attempt in (1, 2, 3)] == [0.5, 1.0, 2.0]
    assert pause(1, 0.0) == 0.25
    assert pause(50, 1.0) == 20.0


@pytest.mark.anyio
async def test_many_requests_do_not_hold_up_another() -> None:
    """Of the requests that come one for each instance, one waits; others overtake the rest."""
    limiter = Limiter(25.0)
    limiter.exhaust(anyio.current_time())
    ended: list[str] = []

    async def wait(name: str, **options: bool) -> None:
        await limiter.wait(**options)
        ended.append(name)

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(lambda: wait("push", one_by_one=True))
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(wait, "removal")
    assert ended.index("removal") < 5
