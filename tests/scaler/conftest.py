"""Runs every test of the scaler on both event loops, with a clock that jumps.

On both, the clock stands still while any task can run, and jumps to the next
deadline when none can. So an hour of backoff takes no time, and nothing depends
on how fast the machine is.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, cast

import pytest
import trio.testing
from typing_extensions import override

if TYPE_CHECKING:
    from typing import Any


# As after a year of uptime, where a float has few digits left for fractions of a second.
START_SECONDS = 3e7

# No test needs half a day of this clock.
LIMIT_SECONDS = 12 * 3600.0


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop on which waiting for a timer takes no time.

    Where asyncio would sleep in its selector, the clock is set to the exact moment
    of the next timer. Adding the length of the sleep instead could, for want of
    digits, stop just before that moment and never arrive.
    """

    def __init__(self) -> None:
        super().__init__(_JumpingSelector(self))
        self.now = START_SECONDS
        self._clock_resolution = 1e-6

    @override
    def time(self) -> float:
        return self.now

    def jump(self) -> None:
        """Set the clock to the next timer."""
        # The timers that asyncio itself sleeps by.
        timers = cast("list[asyncio.TimerHandle]", vars(self)["_scheduled"])
        self.now = max(self.now, timers[0].when())


class _JumpingSelector(selectors.DefaultSelector):
    """Never sleeps; lets its loop jump instead."""

    def __init__(self, loop: JumpingLoop) -> None:
        super().__init__()
        self._loop = loop

    @override
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            pytest.fail("every task waits, and nothing will ever wake one")
        if not ready and timeout:
            self._loop.jump()
            if self._loop.now > START_SECONDS + LIMIT_SECONDS:
                pytest.fail("what the test waits for does not happen")
        return ready


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Return the event loops, each with a clock that jumps."""
    if request.param == "asyncio":
        return "asyncio", {"loop_factory": JumpingLoop}
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}
