"""The output of jobs: live with prefixes, grouped, unchanged, or dropped.

Output is bytes and is never decoded. Memory is bounded: a line longer than
`LINE_BYTES` is broken, and grouped output larger than `SPOOL_BYTES` is kept on
disk until the job ends.
"""

from __future__ import annotations

import enum
import io
import tempfile
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from typing_extensions import override

from taskscaler._errors import OutputFailed
from taskscaler.jobs.terminal import RESET, Colours, TerminalFilter, is_invisible

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ("JobOutput", "OutputMode", "OutputWriter", "Stream", "output_factory")

LINE_BYTES = 64 * 1024
SPOOL_BYTES = 1024 * 1024
_HEADER_BYTES = 5


class Stream(enum.IntEnum):
    """The two output streams of a program; the values are their file descriptors."""

    STDOUT = 1
    STDERR = 2


class OutputMode(enum.Enum):
    """The values of `--output`."""

    PREFIX = "prefix"
    GROUP = "group"
    RAW = "raw"
    NONE = "none"


class OutputWriter(Protocol):
    """Writes the output of all jobs to its final place."""

    async def write(self, stream: Stream, data: bytes, /) -> None:
        """Write the bytes in one piece; the job waits until this returns."""


class JobOutput(ABC):
    """Receives the output of one attempt of a job."""

    async def stdout(self, data: bytes) -> None:
        """Receive a chunk of standard output."""
        await self.write(Stream.STDOUT, data)

    async def stderr(self, data: bytes) -> None:
        """Receive a chunk of standard error."""
        await self.write(Stream.STDERR, data)

    @abstractmethod
    async def write(self, stream: Stream, data: bytes) -> None:
        """Receive a chunk of either stream.

        Raises:
            OutputFailed: the chunk cannot be stored.
        """

    async def close(self) -> None:  # noqa: B027 -- most kinds have no buffer
        """Write what is buffered. Called once after the last chunk, even after a cancellation."""


class _Dropped(JobOutput):
    """Drops all output."""

    @override
    async def write(self, stream: Stream, data: bytes) -> None:
        pass


class _Raw(JobOutput):
    """Passes all output through unchanged; for a single run."""

    def __init__(self, writer: OutputWriter) -> None:
        self._writer = writer

    @override
    async def write(self, stream: Stream, data: bytes) -> None:
        await self._writer.write(stream, data)


class _Filtered(JobOutput):
    """Passes on what may reach a terminal, to another kind of output; ends colours at the end."""

    def __init__(self, inner: JobOutput, terminals: Collection[Stream]) -> None:
        self._inner = inner
        self._filters = {stream: (TerminalFilter(), Colours()) for stream in terminals}

    @override
    async def write(self, stream: Stream, data: bytes) -> None:
        if stream in self._filters:
            passing, colours = self._filters[stream]
            data = passing.feed(data)
            colours.follow(data)
        if data:
            await self._inner.write(stream, data)

    @override
    async def close(self) -> None:
        for stream, (_, colours) in self._filters.items():
            if colours.end:
                with suppress(OutputFailed):  # The output before it is still shown.
                    await self._inner.write(stream, RESET)
        await self._inner.close()


class _Prefixed(JobOutput):
    """Passes complete lines on, each prefixed with the name of the run.

    A carriage return ends a line, too: in a terminal or a log viewer, the text after it would
    cover the prefix. A colour ends with its line, and goes on in the next line of the run.
    """

    def __init__(self, writer: OutputWriter, name: str) -> None:
        self._writer = writer
        self._prefix = f"{name} | ".encode()
        self._rests = {Stream.STDOUT: b"", Stream.STDERR: b""}
        self._colours = {Stream.STDOUT: Colours(), Stream.STDERR: Colours()}

    @override
    async def write(self, stream: Stream, data: bytes) -> None:
        data = self._rests[stream] + data
        if b"\r" in data:
            # One at the end may be the first half of a line break.
            held = b"\r" if data.endswith(b"\r") else b""
            data = data.removesuffix(held).replace(b"\r\n", b"\n").replace(b"\r", b"\n") + held
        lines, newline, rest = data.rpartition(b"\n")
        text = self._prefixed(stream, lines) if newline else b""
        while len(rest) >= LINE_BYTES:
            text += self._prefixed(stream, rest[:LINE_BYTES])
            rest = rest[LINE_BYTES:]
        self._rests[stream] = rest
        if text:
            await self._writer.write(stream, text)

    @override
    async def close(self) -> None:
        for stream, rest in self._rests.items():
            if not is_invisible(rest.removesuffix(b"\r")):
                last = self._prefixed(stream, rest.removesuffix(b"\r"))
                await self._writer.write(stream, last)

    def _prefixed(self, stream: Stream, lines: bytes) -> bytes:
        colours = self._colours[stream]
        prefix = self._prefix
        return b"".join(prefix + colours.enclose(line) + b"\n" for line in lines.split(b"\n"))


class _Spool:
    """A file of records, in memory until it is large and then on disk.

    The file is not buffered, so that all accepted records can be read even if the disk is full.
    """

    def __init__(self) -> None:
        self._file: io.BytesIO | io.FileIO = io.BytesIO()

    def append(self, record: bytes) -> None:
        """Add a whole record, or nothing.

        Raises:
            OutputFailed: the disk is full.
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
                f"cannot store the output in {tempfile.gettempdir()} ({why}); free some space "
                "there, or use another mode than --output group"
            ) from None

    def rewound(self) -> io.BytesIO | io.FileIO:
        """Return the file, positioned at its start; the caller closes it."""
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
    """Keeps all output until the job ends, then writes it in one piece and in order.

    The spool holds records: one byte for the stream, four for the length, the data.
    """

    def __init__(self, writer: OutputWriter, name: str) -> None:
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
    mode: OutputMode,
    writer: OutputWriter,
    *,
    several: bool,
    terminals: Collection[Stream] = (),
) -> Callable[[str], JobOutput]:
    """Return a function that makes the output of an attempt from the name of its run.

    Args:
        mode: how to show the output.
        writer: writes the output to its final place.
        several: whether there are several runs; a single run has no prefix.
        terminals: the streams that are terminals; only text and colours reach them, unless the
            mode is `RAW`.
    """

    def make(name: str) -> JobOutput:
        if mode is OutputMode.NONE:
            return _Dropped()
        if mode is OutputMode.RAW:
            return _Raw(writer)
        if several and mode is OutputMode.PREFIX:
            return _Filtered(_Prefixed(writer, name), terminals)
        return _Filtered(_Grouped(writer, name) if several else _Raw(writer), terminals)

    return make
