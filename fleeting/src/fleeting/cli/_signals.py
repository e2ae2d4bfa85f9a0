"""Runs a command until it ends or a signal cancels it.

Ctrl-C, SIGTERM and a terminal that hangs up all do the same: they cancel the command, so that
a command on an instance, a lock and a terminal are released. The handlers belong to the
process and not to the event loop, because a plugin may block the loop.
"""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from fleeting._program import exit_at_once
from fleeting._run import first_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

__all__ = ("SIGNAL_EXIT_BASE", "run_cancellable", "undo_on_exit")

# Windows has no SIGHUP.
_HANDLED = tuple(one for one in signal.Signals if one.name in {"SIGINT", "SIGTERM", "SIGHUP"})
# A terminal and a program around us may both pass on one Ctrl-C, so one that follows
# within this time is the same one.
REPEATED_SECONDS = 0.5
# A shell reports a command that a signal ended as this plus the signal's number.
SIGNAL_EXIT_BASE = 128

_undo_at_exit: list[Callable[[], None]] = []


def run_cancellable(function: Callable[..., Awaitable[int]], *args: Any, **options: Any) -> int:
    """Run a command's coroutine until it ends, and return the exit code.

    Raises:
        FleetingError: the first of those that were raised.
        KeyboardInterrupt: the command was interrupted, and has been cleaned up.
    """
    signals = _EndSignals()
    try:
        code = anyio.run(_run_until_signal, partial(function, *args, **options), signals)
    except BaseExceptionGroup as errors:
        raise first_error(errors) from errors
    if signals.first is signal.SIGINT:
        raise KeyboardInterrupt
    return code


@contextmanager
def undo_on_exit(undo: Callable[[], None]) -> Generator[None]:
    """Restore a terminal when the block is left, even if a second signal ends the process.

    Args:
        undo: restores it; may be called twice.
    """
    _undo_at_exit.append(undo)
    try:
        yield
    finally:
        undo()
        _undo_at_exit.remove(undo)


class _EndSignals:
    """The signals that asked this process to end.

    Attributes:
        first: the first of them; None if there was none.
    """

    def __init__(self) -> None:
        self.first: signal.Signals | None = None
        self._same_until = 0.0

    @contextmanager
    def cancelling(self, scope: anyio.CancelScope) -> Generator[None]:
        """Cancel a scope of this thread's event loop at the first signal.

        A second signal ends the process at once, because the first one did not get through to
        code that blocks. SIGHUP may be repeated any number of times.
        """
        loop = asyncio.get_running_loop()

        def handle(number: int, _frame: object) -> None:
            if self.first is None:
                self.first = signal.Signals(number)
                self._same_until = time.monotonic() + REPEATED_SECONDS
                loop.call_soon_threadsafe(scope.cancel)
            elif signal.Signals(number).name != "SIGHUP" and time.monotonic() > self._same_until:
                for undo in reversed(_undo_at_exit):
                    undo()
                exit_at_once(SIGNAL_EXIT_BASE + number)

        before = [(number, signal.signal(number, handle)) for number in _HANDLED]
        try:
            yield
        finally:
            for number, handler in before:
                signal.signal(number, handler)


async def _run_until_signal(function: Callable[[], Awaitable[int]], signals: _EndSignals) -> int:
    code = 0
    with anyio.CancelScope() as scope, signals.cancelling(scope):
        code = await function()
    return code if signals.first is None else SIGNAL_EXIT_BASE + signals.first
