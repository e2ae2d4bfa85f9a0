"""Writes to standard output and error: the jobs' output, messages, a live status line.

All writes hold one lock, so that pieces never mix, and the status line is erased
before anything else is written. No write blocks the event loop: a pipe or terminal
is written to only when it is writable, and then with at most as many bytes as it is
guaranteed to accept. Until then the writing task waits, and so does its job.
"""

from __future__ import annotations

import os
import select
import stat
from typing import TYPE_CHECKING

import anyio

from fleeting import output_descriptor, plain, wrapped
from taskscaler.jobs.output import Stream
from taskscaler.jobs.terminal import Colours

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("Console",)

# How many bytes a writable pipe accepts without blocking.
_PIPE_BYTES = min(select.PIPE_BUF, 4096)
_FILE_BYTES = 1024 * 1024
_COLUMNS = 80
_CLEAR_LINE = b"\r\x1b[K"


class Console:
    """Standard output and standard error of this process.

    Attributes:
        is_terminal: whether standard error is a terminal.
        terminals: the streams that are terminals.
    """

    def __init__(self, on_closed: Callable[[OSError], None] | None = None) -> None:
        """Write to the standard streams of this process.

        Args:
            on_closed: called once with the error when standard output can no longer be
                written: its reader has closed it, or its disk is full.
        """
        self.is_terminal = os.isatty(Stream.STDERR)
        self._on_closed = on_closed
        self._lock = anyio.Lock()
        self._descriptors = {Stream.STDOUT: output_descriptor(), Stream.STDERR: int(Stream.STDERR)}
        self._pieces = {stream: _piece_size(at) for stream, at in self._descriptors.items()}
        self._gone: set[Stream] = set()
        self._status = b""
        # A status line must not be appended to an incomplete line of output.
        self._at_line_start = True
        # Our own lines do not have the colours that a job has set.
        self._colours = Colours()
        self.terminals = {stream for stream, at in self._descriptors.items() if os.isatty(at)}

    @property
    def width(self) -> int:
        """Return the number of columns of the terminal; 80 if it is unknown."""
        try:
            return os.get_terminal_size(Stream.STDERR).columns or _COLUMNS
        except OSError:
            return _COLUMNS

    async def write(self, stream: Stream, data: bytes) -> None:
        """Write the bytes in one piece; see `OutputWriter`."""
        async with self._lock:
            await self._clear_status()
            await self._write_all(stream, data)
            if stream in self.terminals and data:
                self._at_line_start = data.endswith(b"\n")
                self._colours.follow(data)

    async def say(self, text: str) -> None:
        """Write a message to standard error; it may contain foreign text.

        It is one line, which on a terminal is broken between words.
        """
        text = plain(text)
        await self.show(wrapped(text, self.width) if self.is_terminal else text)

    async def show(self, text: str) -> None:
        """Write whole lines to standard error as they are."""
        async with self._lock:
            await self._clear_status()
            start = b"" if self._at_line_start else b"\n"
            await self._write_all(Stream.STDERR, self._uncoloured(start + _encoded(text) + b"\n"))
            self._at_line_start = True

    async def show_status(self, text: str) -> None:
        """Draw the status line, if standard error is a terminal and at the start of a line."""
        line = _encoded(plain(text)[: max(1, self.width - 1)])
        if not self.is_terminal or line == self._status or not self._at_line_start:
            return
        async with self._lock:
            await self._write_all(Stream.STDERR, self._uncoloured(_CLEAR_LINE + line))
            self._status = line

    async def clear_status(self) -> None:
        """Erase the status line."""
        async with self._lock:
            await self._clear_status()

    def _uncoloured(self, data: bytes) -> bytes:
        return self._colours.end + data + self._colours.start if self.is_terminal else data

    async def _clear_status(self) -> None:
        if self._status:
            self._status = b""
            await self._write_all(Stream.STDERR, _CLEAR_LINE)

    async def _write_all(self, stream: Stream, data: bytes) -> None:
        rest, descriptor = memoryview(data), self._descriptors[stream]
        while rest and stream not in self._gone:
            try:
                if not _has_room(descriptor):
                    await anyio.wait_writable(descriptor)
                rest = rest[os.write(descriptor, rest[: self._pieces[stream]]) :]
            except BlockingIOError:
                await anyio.wait_writable(descriptor)
            except OSError as error:
                self._lose(stream, error)

    def _lose(self, stream: Stream, error: OSError) -> None:
        self._gone.add(stream)
        if stream is Stream.STDOUT and self._on_closed is not None:
            self._on_closed(error)


def _piece_size(descriptor: int) -> int:
    try:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:
        return _PIPE_BYTES  # It is closed; the first write will fail.
    return _FILE_BYTES if is_file else _PIPE_BYTES


def _has_room(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(0))


def _encoded(text: str) -> bytes:
    return text.encode(errors="backslashreplace")
