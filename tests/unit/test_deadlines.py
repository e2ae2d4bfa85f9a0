"""Calls of foreign code: the deadline, the shield, and cancellations that are a bug."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from fleeting import CancelledInside, DeadlineExceeded, call_within

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run on both event loops."""
    return str(request.param)


async def test_a_call_returns_and_raises_what_it_does() -> None:
    """A result and an exception of the call come out unchanged, with and without a deadline."""

    async def answer() -> int:
        return 42

    async def fail() -> int:
        raise KeyError("mine")

    for seconds in (None, 60.0):
        assert await call_within(seconds, answer) == 42
        with pytest.raises(KeyError, match="mine"):
            await call_within(seconds, fail)


@pytest.mark.parametrize("shield", [False, True])
async def test_a_call_that_hangs_is_cancelled_at_its_deadline(shield: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """The deadline holds for shielded calls too."""
    cancelled: list[bool] = []

    async def hang() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.append(True)

    with pytest.raises(DeadlineExceeded, match=r"it did not return within 0\.01s"):
        await call_within(0.01, hang, shield=shield)
    assert cancelled == [True]


async def test_a_cancellation_from_outside_interrupts_a_call() -> None:
    """It stays a cancellation, and nothing after the call runs."""
    with anyio.move_on_after(0.01) as scope:
        await call_within(60, anyio.sleep_forever)
        pytest.fail("the call must be cancelled")
    assert scope.cancelled_caught


async def test_a_cancellation_from_outside_does_not_interrupt_a_shielded_call() -> None:
    """Clean-up goes on in a cancelled scope."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        await call_within(60, lambda: anyio.sleep(0.01), shield=True)
        scope.shield = True
    assert not scope.cancelled_caught


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_cancellation_inside_a_call_is_an_error() -> None:
    """On asyncio, awaiting a cancelled task inside the call must not end the caller silently."""

    async def await_cancelled() -> None:
        task = asyncio.ensure_future(asyncio.sleep(60))
        task.cancel()
        await task

    with pytest.raises(CancelledInside, match="cancelled inside"):
        await call_within(60, await_cancelled)
