"""The signals that end a command: it ends in good order, or at once if it is told again.

Ctrl-C, a termination and a terminal that goes away are one thing to us: what runs is
cancelled, so that a command on an instance, a lock and a terminal go with it. They are heard
by handlers of the process, and not by the event loop, because a plugin may keep that busy.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import anyio

__all__ = ("Endings", "undone")

# On Windows there is no hang-up.
_HEARD = tuple(one for one in signal.Signals if one.name in {"SIGINT", "SIGTERM", "SIGHUP"})
# What comes so soon is the same wish, told by a terminal and by a program around us.
REPEATED_SECONDS = 0.5
# What a shell says of a command that a signal ended: this and the signal's number.
SIGNALLED = 128

_undoing: list[Callable[[], None]] = []


@contextmanager
def undone(undo: Callable[[], None]) -> Generator[None]:
    """Undo on leaving what was done to a terminal, also if the process is gone at once.

    Args:
        undo: does it, and may be called twice.
    """
    _undoing.append(undo)
    try:
        yield
    finally:
        undo()
        _undoing.remove(undo)


class Endings:
    """What this process was told to end by.

    Attributes:
        first: the first of the signals; None as long as there was none.
    """

    def __init__(self) -> None:
        self.first: signal.Signals | None = None
        self._until = 0.0

    @contextmanager
    def cancelling(self, scope: anyio.CancelScope) -> Generator[None]:
        """Cancel a scope of this thread's event loop at the first signal that comes meanwhile.

        At another one the process is gone at once, with the exit code of a shell, because
        something hangs that hears of no cancellation. A hang-up may be told any number of times.
        """
        loop = asyncio.get_running_loop()

        def hear(number: int, _frame: object) -> None:
            if self.first is None:
                self.first = signal.Signals(number)
                self._until = time.monotonic() + REPEATED_SECONDS
                loop.call_soon_threadsafe(scope.cancel)
            elif signal.Signals(number).name != "SIGHUP" and time.monotonic() > self._until:
                for undo in reversed(_undoing):
                    undo()
                os._exit(SIGNALLED + number)

        before = [(number, signal.signal(number, hear)) for number in _HEARD]
        try:
            yield
        finally:
            for number, handler in before:
                signal.signal(number, handler)
