"""Counts the resources of this process that a provider may leave behind."""

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

__all__ = ("WATCH_THREAD", "Resources", "settle")

# The name of the thread with which the kit watches the event loop.
WATCH_THREAD = "fleeting contract"

SETTLE_SECONDS = 5.0
LOOK_SECONDS = 0.02

_NOUNS = {
    "tasks": ("task", "tasks"),
    "threads": ("thread", "threads"),
    "sockets": ("socket", "sockets"),
    "files": ("open file", "open files"),
    "processes": ("child process", "child processes"),
}

# Threads that an event loop keeps for later calls; they end with the loop or when idle.
_POOLED_THREADS = ("AnyIO worker thread", "Trio thread", "asyncio_", WATCH_THREAD)


@dataclass(frozen=True, slots=True)
class Resources:
    """The number of resources at one moment.

    Attributes:
        tasks: tasks of the event loop.
        threads: threads of this process, except those that the event loop keeps for later.
        sockets: open sockets.
        files: other open files, including pipes.
        processes: children of this process, including those that ended and were not
            waited for; always 0 on systems other than Linux.
    """

    tasks: int
    threads: int
    sockets: int
    files: int
    processes: int

    @classmethod
    async def settled(cls) -> Resources:
        """Count once every task waits: cancelled tasks may need a moment to end."""
        await settle()
        return cls.now()

    @classmethod
    def now(cls) -> Resources:
        """Count now."""
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
        """Return which resources are more than before, human-readable; empty if none are."""
        more = {
            field.name: getattr(self, field.name) - getattr(before, field.name)
            for field in fields(self)
        }
        return ", ".join(
            f"{count} {_NOUNS[name][count > 1]}" for name, count in more.items() if count > 0
        )

    async def restored(self, limit: timedelta, what: str) -> None:
        """Wait until no resources are left in addition to these.

        Raises:
            AssertionError: there are still more after the limit; `what` names the cause.
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
    """Yield whether it is a socket, for each open file."""
    folder = Path("/dev/fd")  # Linux and macOS have it.
    for entry in folder.iterdir() if folder.is_dir() else ():
        try:
            mode = os.fstat(int(entry.name)).st_mode
        except OSError:
            continue  # The descriptor with which this folder was read.
        yield stat.S_ISSOCK(mode)


def _children() -> int:
    count = 0
    for listing in Path("/proc/self/task").glob("*/children"):
        try:
            count += len(listing.read_text().split())
        except OSError:
            continue  # The thread has just ended.
    return count
