"""The output of jobs: prefixes, groups, and bounded memory."""

from __future__ import annotations

import resource

import pytest

from taskscaler import OutputFailed
from taskscaler.jobs.output import LINE_BYTES, SPOOL_BYTES, OutputMode, Stream, output_factory

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, as the command does."""
    return "asyncio"


class Recorder:
    """A writer that records what is written."""

    def __init__(self) -> None:
        self.written: list[tuple[Stream, bytes]] = []

    async def write(self, stream: Stream, data: bytes) -> None:
        """Record."""
        self.written.append((stream, data))

    def text(self, stream: Stream) -> bytes:
        """Return what was written to one stream."""
        return b"".join(data for written, data in self.written if written is stream)


async def test_output_of_a_single_job_is_unchanged() -> None:
    """Without other jobs there is no prefix, and output is not buffered until the end of a line."""
    writer = Recorder()
    output = output_factory(OutputMode.PREFIX, writer, several=False)("a")
    await output.stdout(b"par\xfftial")
    assert writer.written == [(Stream.STDOUT, b"par\xfftial")]


async def test_lines_are_prefixed_with_the_name() -> None:
    """A line is written when it is complete, per stream, and the last one at the end."""
    writer = Recorder()
    output = output_factory(OutputMode.PREFIX, writer, several=True)("a#1")
    await output.stdout(b"on")
    await output.stderr(b"error\n")
    await output.stdout(b"e\n\ntwo\nthr")
    assert writer.written == [
        (Stream.STDERR, b"a#1 | error\n"),
        (Stream.STDOUT, b"a#1 | one\na#1 | \na#1 | two\n"),
    ]
    await output.stdout(b"ee")
    await output.close()
    assert writer.text(Stream.STDOUT).endswith(b"a#1 | two\na#1 | three\n")


async def test_long_line_is_broken() -> None:
    """A line that never ends does not fill the memory; no byte is lost."""
    writer = Recorder()
    output = output_factory(OutputMode.PREFIX, writer, several=True)("a")
    for _ in range(10):
        await output.stdout(b"x" * (LINE_BYTES // 2))
    assert len(writer.written) == 5
    lines = writer.text(Stream.STDOUT).splitlines()
    assert {len(line) for line in lines} == {len(b"a | ") + LINE_BYTES}


async def test_group_is_written_at_the_end_in_order() -> None:
    """Both streams keep their common order, even when the group is stored on disk."""
    writer = Recorder()
    output = output_factory(OutputMode.GROUP, writer, several=True)("a")
    large = b"y" * SPOOL_BYTES
    await output.stdout(b"one\n")
    await output.stderr(b"two\n")
    await output.stdout(large)
    assert writer.written == []
    await output.close()
    assert writer.written == [
        (Stream.STDOUT, b"==> a <==\none\n"),
        (Stream.STDERR, b"two\n"),
        (Stream.STDOUT, large),
        (Stream.STDOUT, b"\n"),
    ]


async def test_empty_group_writes_nothing() -> None:
    """A job without output has no title."""
    writer = Recorder()
    await output_factory(OutputMode.GROUP, writer, several=True)("a").close()
    assert writer.written == []


async def test_dropped_output() -> None:
    """With `--output none`, nothing is written."""
    writer = Recorder()
    output = output_factory(OutputMode.NONE, writer, several=True)("a")
    await output.stdout(b"x")
    await output.close()
    assert writer.written == []


async def test_group_on_a_full_disk_shows_what_it_stored() -> None:
    """When the disk is full the job fails with a reason; output stored before is still shown."""
    writer = Recorder()
    output = output_factory(OutputMode.GROUP, writer, several=True)("a")
    await output.stdout(b"kept\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A write beyond the limit fails as one on a full disk does; Python ignores the signal.
    resource.setrlimit(resource.RLIMIT_FSIZE, (SPOOL_BYTES // 2, hard))
    try:
        with pytest.raises(OutputFailed, match="cannot store the output"):
            await output.stdout(b"x" * SPOOL_BYTES)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    await output.close()
    assert writer.text(Stream.STDOUT) == b"==> a <==\nkept\n"
