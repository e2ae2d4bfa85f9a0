"""The standard streams of this process, in such a way that nobody who waits for them stops us."""

from __future__ import annotations

import os
import select
import stat
import sys
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ("STDERR", "STDIN", "STDOUT", "chunks", "read_line", "write_all")

STDIN, STDOUT, STDERR = 0, 1, 2
READ_BYTES = 65536
# How much a pipe surely takes when it says that it has room.
PIPE_BYTES = min(getattr(select, "PIPE_BUF", 512), 4096)


async def chunks(descriptor: int = STDIN) -> AsyncGenerator[bytes]:
    """Yield what can be read, as it comes, to the end."""
    while True:
        try:
            await _readable(descriptor)
            data = os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            continue
        except OSError:
            return  # A terminal that is gone, or a stream that was closed from the start.
        if not data:
            return
        yield data


async def read_line() -> str:
    """Return what a person types until Enter."""
    line = b""
    async for data in chunks():
        line += data
        if b"\n" in data:
            break
    return line.decode(errors="replace")


async def write_all(descriptor: int, data: bytes) -> None:
    """Write some bytes, as fast as they are taken.

    Raises:
        OSError: they will not be taken: the reader has gone away, or the disk is full.
    """
    view = memoryview(data)
    piece = len(view) if _is_file(descriptor) else PIPE_BYTES
    while view:
        await _writable(descriptor)
        try:
            view = view[os.write(descriptor, view[:piece]) :]
        except BlockingIOError:
            continue


async def _readable(descriptor: int) -> None:
    if sys.platform != "win32" and not _is_file(descriptor):
        await anyio.wait_readable(descriptor)


async def _writable(descriptor: int) -> None:
    if sys.platform != "win32" and not _is_file(descriptor):
        await anyio.wait_writable(descriptor)


def _is_file(descriptor: int) -> bool:
    """Return whether nobody ever waits for this: a file, or a device such as /dev/null."""
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISREG(mode) or (stat.S_ISCHR(mode) and not os.isatty(descriptor))
