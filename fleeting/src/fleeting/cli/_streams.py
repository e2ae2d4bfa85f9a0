"""Reads and writes the standard streams of this process without blocking the event loop."""

from __future__ import annotations

import os
import select
import stat
import sys
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ("STDERR", "STDIN", "chunks", "read_line", "write_all")

STDIN, STDERR = 0, 2
READ_BYTES = 65536
# A pipe that reports room takes at least this much without blocking.
PIPE_BYTES = min(getattr(select, "PIPE_BUF", 512), 4096)


async def chunks(descriptor: int = STDIN) -> AsyncGenerator[bytes]:
    """Yield data as it arrives, until the end of the stream."""
    while True:
        try:
            await _readable(descriptor)
            data = os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            continue
        except OSError:
            return  # The terminal is gone, or the stream was closed from the start.
        if not data:
            return
        yield data


async def read_line() -> str:
    """Return a line from standard input."""
    line = b""
    async for data in chunks():
        line += data
        if b"\n" in data:
            break
    return line.decode(errors="replace")


async def write_all(descriptor: int, data: bytes) -> None:
    """Write bytes as fast as the reader takes them.

    Raises:
        OSError: the reader has gone away, or the disk is full.
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
    """Return whether reads and writes never wait: a file, or a device such as /dev/null."""
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISREG(mode) or (stat.S_ISCHR(mode) and not os.isatty(descriptor))
