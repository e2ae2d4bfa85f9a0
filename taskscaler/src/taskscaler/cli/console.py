"""Writes what people read: the jobs' output, messages, and a live status line.

Everything goes through one lock, so that pieces never mix, and the status line
is taken away before anything else is written. No write waits for its reader on
the event loop: a pipe or terminal is written to only when it says that it has
room, and then not more than what that room surely holds. Who writes waits
instead, and with it the job whose output it is.
"""

from __future__ import annotations

import os
import select
import stat
from typing import TYPE_CHECKING

import anyio

from taskscaler.jobs.output import Stream

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("Console",)

# How much a pipe holds at least when it says that it can be written to.
_PIPE_BYTES = min(select.PIPE_BUF, 4096)
_FILE_BYTES = 1024 * 1024
_COLUMNS = 80
_CLEAR_LINE = b"\r\x1b[K"


class Console:
    """Standard output and standard error of this process.

    Attributes:
        is_terminal: whether somebody watches standard error live.
    """

    def __init__(self, on_closed: Callable[[OSError], None] | None = None) -> None:
        """Prepare to write.

        Args:
            on_closed: called once if standard output cannot be written any more, with the
                reason: its reader has gone away, or its disk is full.
        """
        self.is_terminal = os.isatty(Stream.STDERR)
        self._on_closed = on_closed
        self._lock = anyio.Lock()
        self._pieces = {stream: _piece_size(stream) for stream in Stream}
        self._gone: set[Stream] = set()
        self._status = b""
        # A status line is drawn only where it would not continue a line of output.
        self._at_line_start = True
        self._terminals = {stream for stream in Stream if os.isatty(stream)}

    @property
    def width(self) -> int:
        """Return how many columns the terminal has; 80 if that cannot be known."""
        try:
            return os.get_terminal_size(Stream.STDERR).columns or _COLUMNS
        except OSError:
            return _COLUMNS

    async def write(self, stream: Stream, data: bytes) -> None:
        """Write some bytes at once and together; see `Writer`."""
        async with self._lock:
            await self._clear_status()
            await self._write_all(stream, data)
            if stream in self._terminals and data:
                self._at_line_start = data.endswith(b"\n")

    async def say(self, text: str) -> None:
        """Write a message of ours, a whole line, to standard error."""
        async with self._lock:
            await self._clear_status()
            start = b"" if self._at_line_start else b"\n"
            await self._write_all(Stream.STDERR, start + _encoded(text) + b"\n")
            self._at_line_start = True

    async def show_status(self, text: str) -> None:
        """Draw the status line again, if there is a terminal and room for it."""
        line = _encoded(text[: max(1, self.width - 1)])
        if not self.is_terminal or line == self._status or not self._at_line_start:
            return
        async with self._lock:
            await self._write_all(Stream.STDERR, _CLEAR_LINE + line)
            self._status = line

    async def clear_status(self) -> None:
        """Take the status line away."""
        async with self._lock:
            await self._clear_status()

    async def _clear_status(self) -> None:
        if self._status:
            self._status = b""
            await self._write_all(Stream.STDERR, _CLEAR_LINE)

    async def _write_all(self, stream: Stream, data: bytes) -> None:
        rest = memoryview(data)
        while rest and stream not in self._gone:
            try:
                if not _has_room(stream):
                    await anyio.wait_writable(stream)
                rest = rest[os.write(stream, rest[: self._pieces[stream]]) :]
            except BlockingIOError:
                await anyio.wait_writable(stream)
            except OSError as error:
                self._lose(stream, error)

    def _lose(self, stream: Stream, error: OSError) -> None:
        self._gone.add(stream)
        if stream is Stream.STDOUT and self._on_closed is not None:
            self._on_closed(error)


def _piece_size(stream: Stream) -> int:
    try:
        is_file = stat.S_ISREG(os.fstat(stream).st_mode)
    except OSError:
        return _PIPE_BYTES  # It is closed, which the first write will tell.
    return _FILE_BYTES if is_file else _PIPE_BYTES


def _has_room(stream: Stream) -> bool:
    poll = select.poll()
    poll.register(stream, select.POLLOUT)
    return bool(poll.poll(0))


def _encoded(text: str) -> bytes:
    return text.encode(errors="backslashreplace")
