"""One change of an environment at a time."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
import time
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Never

from fleeting.errors import InstallError
from fleeting.install.undo import SCRATCH, is_pending, remove_leftovers

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__ = ("alone", "interruptible", "scratch_folder")

LOCK = ".fleeting-install.lock"
PATIENCE = timedelta(minutes=10)
_PAUSE_SECONDS = 0.1


@contextmanager
def alone(
    site: Path, tell: Callable[[str], None], *, patience: timedelta = PATIENCE
) -> Generator[int]:
    """Hold the lock of an environment; what a killed holder had begun is undone first.

    Args:
        site: the folder of its distributions, in which the lock is.
        tell: says a sentence to whoever waits.
        patience: how long to wait for another one.

    Yields:
        The open file of the lock, for the installer to have as well: should this process be
        killed, the lock is held until its installer has ended, too.

    Raises:
        InstallError: it was held for longer than that, or the folder cannot be written to.
    """
    try:
        lock = os.open(site / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise InstallError(
            f"the environment cannot be written to: {(error.strerror or '').lower()} at {site}",
            retryable=True,
        ) from error
    try:
        _wait(lock, site, tell, time.monotonic() + patience.total_seconds())
        if remove_leftovers(site):
            tell("an earlier installation was cut off; what it had begun has been undone")
        yield lock
    finally:
        os.close(lock)


def _wait(lock: int, site: Path, tell: Callable[[str], None], deadline_seconds: float) -> None:
    told = False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not told:
                tell(f"waiting for another `fleeting` that changes {site}")
                told = True
            if time.monotonic() > deadline_seconds:
                raise InstallError(
                    f"another `fleeting` is still changing {site}; try again when it is done",
                    retryable=True,
                ) from None
            time.sleep(_PAUSE_SECONDS)
        else:
            return


@contextmanager
def scratch_folder(site: Path) -> Generator[Path]:
    """Make a private folder on the file system of the environment, and remove it at the end.

    If something in it is still to be put back, it stays, for the next one to do that.
    """
    folder = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=site))
    try:
        yield folder
    finally:
        if not is_pending(folder):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def interruptible() -> Generator[None]:
    """Let a request to end be an interruption, which is cleaned up after.

    One that is ignored, as `nohup` lets SIGHUP be, stays so.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    before = {number: old for number, old in before.items() if old != signal.SIG_IGN}

    def interrupt(*_: object) -> Never:
        raise KeyboardInterrupt

    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
