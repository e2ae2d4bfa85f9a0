"""What becomes of the output of the jobs: live with prefixes, grouped, raw, or nothing.

Bytes stay bytes: what is not UTF-8 passes through unchanged. Memory is bounded
whatever a job writes: a line longer than `LINE_BYTES` is broken, and a group
that is larger than `SPOOL_BYTES` waits on disk for its end.
"""

from __future__ import annotations

import enum
import io
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from typing_extensions import override

from taskscaler._errors import OutputFailed

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("JobOutput", "OutputMode", "Stream", "Writer", "output_factory")

LINE_BYTES = 64 * 1024
SPOOL_BYTES = 1024 * 1024
_HEADER_BYTES = 5


class Stream(enum.IntEnum):
    """The two outputs of a program, by the numbers of their file descriptors."""

    STDOUT = 1
    STDERR = 2


class OutputMode(enum.Enum):
    """What `--output` can be."""

    PREFIX = "prefix"
    GROUP = "group"
    NONE = "none"


class Writer(Protocol):
    """Where the output of all jobs ends up."""

    async def write(self, stream: Stream, data: bytes, /) -> None:
        """Write some bytes at once and together; while it is busy, the jobs wait."""


class JobOutput(ABC):
    """Takes the output of one attempt of a job, to its end."""

    async def stdout(self, data: bytes) -> None:
        """Take some standard output."""
        await self.write(Stream.STDOUT, data)

    async def stderr(self, data: bytes) -> None:
        """Take some standard error."""
        await self.write(Stream.STDERR, data)

    @abstractmethod
    async def write(self, stream: Stream, data: bytes) -> None:
        """Take some output of either kind.

        Raises:
            OutputFailed: it cannot be kept.
        """

    async def close(self) -> None:  # noqa: B027 -- most kinds keep nothing back
        """Write what was kept back; there will be no more. Called once, even when cancelled."""


class _Dropped(JobOutput):
    """Drops everything."""

    @override
    async def write(self, stream: Stream, data: bytes) -> None:
        pass


class _Raw(JobOutput):
    """Passes everything through as it comes; right when only one job runs."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    @override
    async def write(self, stream: Stream, data: bytes) -> None:
        await self._writer.write(stream, data)


class _Prefixed(JobOutput):
    """Passes whole lines on, each with the job's name in front."""

    def __init__(self, writer: Writer, name: str) -> None:
        self._writer = writer
        self._prefix = f"{name} | ".encode()
        self._rests = {Stream.STDOUT: b"", Stream.STDERR: b""}

    @override
    async def write(self, stream: Stream, data: bytes) -> None:
        lines, newline, rest = (self._rests[stream] + data).rpartition(b"\n")
        text = self._prefixed(lines) if newline else b""
        while len(rest) >= LINE_BYTES:
            text += self._prefixed(rest[:LINE_BYTES])
            rest = rest[LINE_BYTES:]
        self._rests[stream] = rest
        if text:
            await self._writer.write(stream, text)

    @override
    async def close(self) -> None:
        for stream, rest in self._rests.items():
            if rest:
                await self._writer.write(stream, self._prefixed(rest))

    def _prefixed(self, lines: bytes) -> bytes:
        return self._prefix + lines.replace(b"\n", b"\n" + self._prefix) + b"\n"


class _Spool:
    """Records in memory, or when they are large on disk.

    The file is not buffered, so that all records that were taken can be read even
    when the disk is full.
    """

    def __init__(self) -> None:
        self._file: io.BytesIO | io.FileIO = io.BytesIO()

    def append(self, record: bytes) -> None:
        """Take all of a record, or nothing.

        Raises:
            OutputFailed: there is no room for it.
        """
        end = self._file.tell()
        try:
            if isinstance(self._file, io.BytesIO) and end + len(record) > SPOOL_BYTES:
                self._file = _on_disk(self._file)
            _write_all(self._file, record)
        except OSError as error:
            self._file.truncate(end)
            self._file.seek(end)
            why = (error.strerror or str(error)).lower()
            raise OutputFailed(
                f"its output could not be kept in {tempfile.gettempdir()} ({why}); make room "
                "there, or show it in another way than --output group"
            ) from None

    def rewound(self) -> io.BytesIO | io.FileIO:
        """Return the file, at its beginning; to be closed by the caller."""
        self._file.seek(0)
        return self._file


def _on_disk(memory: io.BytesIO) -> io.FileIO:
    descriptor, name = tempfile.mkstemp(prefix="taskscaler-output-")
    Path(name).unlink()
    file = io.FileIO(descriptor, "r+")
    try:
        _write_all(file, memory.getvalue())
    except OSError:
        file.close()
        raise
    return file


def _write_all(file: io.BytesIO | io.FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


class _Grouped(JobOutput):
    """Keeps everything until the end and then writes it in one piece, in its order.

    The spool holds records: one byte for the stream, four for the length, the data.
    """

    def __init__(self, writer: Writer, name: str) -> None:
        self._writer = writer
        self._title = f"==> {name} <==\n".encode()
        self._spool = _Spool()

    @override
    async def write(self, stream: Stream, data: bytes) -> None:
        self._spool.append(bytes((stream,)) + len(data).to_bytes(4, "big") + data)

    @override
    async def close(self) -> None:
        with self._spool.rewound() as spool:
            ended_line = True
            title = self._title
            while header := spool.read(_HEADER_BYTES):
                data = title + spool.read(int.from_bytes(header[1:], "big"))
                await self._writer.write(Stream(header[0]), data)
                title, ended_line = b"", data.endswith(b"\n")
            if not ended_line:
                await self._writer.write(Stream.STDOUT, b"\n")


def output_factory(
    mode: OutputMode, writer: Writer, *, several: bool
) -> Callable[[str], JobOutput]:
    """Return what makes the output of an attempt, given the name of its run.

    Args:
        mode: what the user wants to see.
        writer: where it ends up.
        several: whether there are several runs; one alone needs no prefix.
    """
    if mode is OutputMode.NONE:
        return lambda _name: _Dropped()
    if not several:
        return lambda _name: _Raw(writer)
    if mode is OutputMode.PREFIX:
        return lambda name: _Prefixed(writer, name)
    return lambda name: _Grouped(writer, name)
