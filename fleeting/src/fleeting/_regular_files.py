"""Opens files so that opening and reading them cannot block.

A pipe in the place of a file blocks the program that opens it, beyond cancellation. So a
file is opened without waiting for the other end of a pipe, and then looked at: never the name
first, because the file can be replaced meanwhile.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ("open_regular", "read_given", "read_regular")

_SAFELY = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_CLOEXEC", 0)
_NOT_REGULAR = "not a regular file"
# How long the writer of a pipe may take in total.
PIPE_SECONDS = 10.0


def open_regular(path: Path, flags: int = os.O_RDONLY, mode: int = 0o666) -> int:
    """Open a regular file; return its descriptor.

    Raises:
        OSError: it cannot be opened, or is a directory, a pipe, a socket or a device.
    """
    try:
        descriptor = os.open(path, flags | _SAFELY, mode)
    except OSError as error:
        if error.errno == errno.ENXIO:  # A pipe without a reader, or a socket.
            raise OSError(errno.EINVAL, _NOT_REGULAR, str(path)) from None
        raise
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind):
        os.close(descriptor)
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, _NOT_REGULAR, str(path))
    return descriptor


def read_regular(path: Path) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: see `open_regular`.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        return file.read()


def read_given(path: Path) -> bytes:
    """Return the content of a file that a user names, which may be a pipe such as `<(command)`.

    Raises:
        OSError: see `open_regular`; or the pipe has no end after `PIPE_SECONDS`.
    """
    descriptor = os.open(path, os.O_RDONLY | _SAFELY)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        kind = os.fstat(descriptor).st_mode
        if stat.S_ISFIFO(kind):
            return _read_pipe(descriptor, path)
        if not stat.S_ISREG(kind):
            code = errno.EISDIR if stat.S_ISDIR(kind) else errno.EINVAL
            reason = os.strerror(code) if stat.S_ISDIR(kind) else _NOT_REGULAR
            raise OSError(code, reason, str(path))
        return file.read()


def _read_pipe(descriptor: int, path: Path) -> bytes:
    """Read a pipe to its end, without waiting for ever."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    deadline = time.monotonic() + PIPE_SECONDS
    data = bytearray()
    while (left := deadline - time.monotonic()) > 0:
        try:
            part = os.read(descriptor, 65536)
        except BlockingIOError:
            part = None
        if part:
            data += part
        elif part is not None and data:
            return bytes(data)
        else:
            # Empty, or nothing has opened it for writing yet.
            events = poll.poll(left * 1000)
            # A writer has come and gone. It may have written between the two calls.
            if part is not None and events and events[0][1] == select.POLLHUP:
                return bytes(data)
    raise OSError(errno.ETIMEDOUT, f"this pipe had no end within {PIPE_SECONDS:g} s", str(path))
