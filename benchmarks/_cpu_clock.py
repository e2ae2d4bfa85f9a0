"""An event loop whose clock counts processor time, so that other programs do not disturb it."""

from __future__ import annotations

import asyncio
import selectors
import time

from typing_extensions import override

__all__ = ("new_loop",)


class _CpuClock(asyncio.SelectorEventLoop):
    """Its time is the processor time of this process, and the time that it would have slept.

    For programs that do all their work in one thread and wait for nothing but time: it does not
    sleep, so what happens in other threads and processes seems to take no time.
    """

    def __init__(self) -> None:
        self.slept = 0.0
        super().__init__(_Impatient(self))

    @override
    def time(self) -> float:
        return time.process_time() + self.slept


class _Impatient(selectors.DefaultSelector):
    def __init__(self, loop: _CpuClock) -> None:
        super().__init__()
        self._loop = loop

    @override
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return super().select(None)
        ready = super().select(0)
        if not ready:
            self._loop.slept += max(0.0, timeout)
        return ready


def new_loop() -> asyncio.AbstractEventLoop:
    """Return such an event loop."""
    return _CpuClock()
