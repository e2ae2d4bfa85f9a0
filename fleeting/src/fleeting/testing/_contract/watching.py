"""Watches a test of the contract for what no single call shows.

Theory of operation. A thread asks the event loop for a sign of life, again and again. It counts
its own steps until the sign comes and not the time, so a computer that is busy with something
else delays both alike. The collector of garbage is off, because it would hide by chance what a
provider forgot to close; it runs once at the end, and each `ResourceWarning` is a fault.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import sysconfig
import threading
import warnings
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from anyio.lowlevel import checkpoint

from fleeting.testing._contract.expectations import expect
from fleeting.testing._contract.resources import WATCH_THREAD

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from types import FrameType
    from typing import Any

__all__ = ("watched",)

STEP_SECONDS = 0.05
STEPS_UNTIL_BLOCKED = 20
LONGEST_TEXT = 300

_HERE = str(Path(__file__).parent.parent)
_LIBRARIES = (_HERE, *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib")))


@asynccontextmanager
async def watched() -> AsyncGenerator[None]:
    """Fail if the block holds up the event loop, or leaves something open to the collector."""
    with _nothing_forgotten():
        watch = _Watch(_scheduler(), threading.get_ident())
        try:
            yield
        finally:
            watch.stop()
        expect(not watch.blocked_at, _blocked(watch.blocked_at))
        await checkpoint()  # Resources that were just closed end in the loop's next turn.


class _Watch:
    """Finds out where the event loop is when it gives no sign of life.

    Args:
        schedule: runs a function in the event loop soon; may be called from any thread.
        looping: the thread of the event loop.
    """

    def __init__(self, schedule: Callable[[Callable[[], object]], object], looping: int) -> None:
        self.blocked_at = ""
        self._schedule = schedule
        self._looping = looping
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=WATCH_THREAD, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(STEP_SECONDS):
            alive = threading.Event()
            self._schedule(alive.set)
            steps = 0
            while not alive.wait(STEP_SECONDS) and not self._stopped.is_set():
                steps += 1
                if steps == STEPS_UNTIL_BLOCKED and not self.blocked_at:
                    self.blocked_at = _place(sys._current_frames().get(self._looping))  # noqa: SLF001 - there is no other way


def _blocked(place: str) -> str:
    seconds = STEP_SECONDS * STEPS_UNTIL_BLOCKED
    return (
        f"the event loop was blocked for more than {seconds} s at {place}; use an async library, "
        "or anyio.to_thread.run_sync"
    )


def _place(frame: FrameType | None) -> str:
    """Return where the code of a provider is that a library keeps waiting."""
    innermost = frame
    while frame is not None and frame.f_code.co_filename.startswith((*_LIBRARIES, "<frozen")):
        frame = frame.f_back
    found = frame or innermost
    if found is None:
        return "a place that is not known"
    code = found.f_code
    return f"{Path(code.co_filename).name}:{found.f_lineno} in {code.co_name}"


def _scheduler() -> Callable[[Callable[[], object]], object]:
    """Return what runs a function in this event loop, called from another thread."""
    trio: Any = sys.modules.get("trio")  # It is not a requirement.
    if trio is not None and trio.lowlevel.in_trio_run():
        run_soon: Callable[[Callable[[], object]], object]
        run_soon = trio.lowlevel.current_trio_token().run_sync_soon
        return run_soon
    return asyncio.get_running_loop().call_soon_threadsafe


@contextmanager
def _nothing_forgotten() -> Generator[None]:
    """Fail if something is collected as garbage that should have been closed."""
    forgotten: list[str] = []
    gc.collect()  # This test is not to blame for leftovers of earlier ones.
    gc.freeze()  # So that the next collections look at what is newer only, and take no time.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("always", category=ResourceWarning)
            pass_on = warnings.showwarning

            def note(
                message: Warning | str, category: type[Warning], *rest: Any, **more: Any
            ) -> None:
                if issubclass(category, ResourceWarning):
                    forgotten.append(str(message)[:LONGEST_TEXT])
                else:
                    pass_on(message, category, *rest, **more)

            warnings.showwarning = note
            yield
            gc.collect()
    finally:
        if was_enabled:
            gc.enable()
    expect(not forgotten, f"something was not closed: {'; '.join(dict.fromkeys(forgotten))}")
