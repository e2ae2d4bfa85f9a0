"""Counts what a provider can leave behind in this process."""

from __future__ import annotations

import os
import stat
import threading
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

__all__ = ("Resources", "settle")

SETTLE_SECONDS = 5.0
LOOK_SECONDS = 0.02

_NOUNS = {
    "tasks": ("task", "tasks"),
    "threads": ("thread", "threads"),
    "sockets": ("socket", "sockets"),
    "files": ("open file", "open files"),
    "processes": ("child process", "child processes"),
}

# Threads that an event loop keeps for the next call; they end with the loop or by themselves.
_POOLED_THREADS = ("AnyIO worker thread", "Trio thread", "asyncio_")


@dataclass(frozen=True, slots=True)
class Resources:
    """What there is at one moment.

    Attributes:
        tasks: of the event loop.
        threads: of this process, without those that the event loop keeps for later.
        sockets: open ones.
        files: open ones that are no sockets: pipes too.
        processes: children of this process, also those that have ended and were not
            waited for; none are seen where the system does not tell (not Linux).
    """

    tasks: int
    threads: int
    sockets: int
    files: int
    processes: int

    @classmethod
    async def settled(cls) -> Resources:
        """Count as soon as nothing moves: what has been cancelled may need a moment to end."""
        await settle()
        return cls.now()

    @classmethod
    def now(cls) -> Resources:
        """Count."""
        is_socket = list(_are_sockets())
        return cls(
            tasks=len(anyio.get_running_tasks()),
            threads=sum(
                not thread.name.startswith(_POOLED_THREADS) for thread in threading.enumerate()
            ),
            sockets=sum(is_socket),
            files=len(is_socket) - sum(is_socket),
            processes=_children(),
        )

    def excess(self, before: Resources) -> str:
        """Return in words what there is more of than before; empty if of nothing."""
        more = {
            field.name: getattr(self, field.name) - getattr(before, field.name)
            for field in fields(self)
        }
        return ", ".join(
            f"{count} {_NOUNS[name][count > 1]}" for name, count in more.items() if count > 0
        )

    async def restored(self, limit: timedelta, what: str) -> None:
        """Wait until there is no more than there was; what has just ended may need a moment.

        Raises:
            AssertionError: it did not come to that; the sentence says what is left of `what`.
        """
        deadline = anyio.current_time() + limit.total_seconds()
        while excess := Resources.now().excess(self):
            if anyio.current_time() >= deadline:
                raise AssertionError(f"{what} left behind: {excess}")
            await anyio.sleep(LOOK_SECONDS)


async def settle() -> None:
    """Wait until every other task waits for something."""
    with anyio.move_on_after(SETTLE_SECONDS):
        await anyio.wait_all_tasks_blocked()


def _are_sockets() -> Iterator[bool]:
    """Yield for each open file whether it is a socket."""
    folder = Path("/dev/fd")  # Linux and macOS have it.
    for entry in folder.iterdir() if folder.is_dir() else ():
        try:
            mode = os.fstat(int(entry.name)).st_mode
        except OSError:
            continue  # What the folder itself was read through.
        yield stat.S_ISSOCK(mode)


def _children() -> int:
    count = 0
    for listing in Path("/proc/self/task").glob("*/children"):
        try:
            count += len(listing.read_text().split())
        except OSError:
            continue  # The thread has just ended.
    return count
