"""The output of jobs: prefixes, groups, and bounded memory."""

from __future__ import annotations

import resource

import pytest

from taskscaler import OutputFailed
from taskscaler.jobs.output import LINE_BYTES, SPOOL_BYTES, OutputMode, Stream, output_factory
from taskscaler.jobs.terminal import Colours

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


async def test_carriage_return_cannot_forge_the_prefix_of_another_job() -> None:
    """It ends a line, also when it is divided from the line feed after it."""
    writer = Recorder()
    output = output_factory(OutputMode.PREFIX, writer, several=True)("a")
    await output.stdout(b"10%\rb | forged\r\nnext\r")
    await output.stdout(b"\nlast\r")
    await output.close()
    assert writer.text(Stream.STDOUT) == b"a | 10%\na | b | forged\na | next\na | last\n"


async def test_colour_ends_with_its_line() -> None:
    """A job that does not reset its colour colours its own next lines, and none of others."""
    writer = Recorder()
    output = output_factory(OutputMode.PREFIX, writer, several=True)("a")
    await output.stdout(b"\x1b[31mred\nstill\n")
    await output.stderr(b"other stream\n")
    await output.stdout(b"end\x1b[m\nplain\n\x1b[1m")
    await output.close()
    assert writer.text(Stream.STDERR) == b"a | other stream\n"
    assert writer.text(Stream.STDOUT) == (
        b"a | \x1b[31mred\x1b[0m\na | \x1b[31mstill\x1b[0m\na | \x1b[31mend\x1b[m\na | plain\n"
    )


@pytest.mark.parametrize(
    ("sent", "open_after"),
    [
        (b"\x1b[31m", b"\x1b[31m"),
        (b"\x1b[1;31m\x1b[39m", b"\x1b[1m"),
        (b"\x1b[31m\x1b[0m", b""),
        (b"\x1b[31;m", b""),
        (b"\x1b[0;32m", b"\x1b[32m"),
        (b"\x1b[38;5;0;4m", b"\x1b[38;5;0;4m"),
        (b"\x1b[38;2;1;2;3m\x1b[48:2::1:2:3m", b"\x1b[38;2;1;2;3;48:2::1:2:3m"),
        (b"\x1b[1m\x1b[22m\x1b[7m\x1b[27m", b""),
        (b"\x1b[" + b"9" * 150 + b"m", b""),
        (b"\x1b[" + b"1;" * 10_000 + b"m", b""),
        (b"\x1b[38;m", b"\x1b[38;m"),
    ],
)
def test_colours_that_are_set(sent: bytes, open_after: bytes) -> None:
    """A colour that was set and not ended is set again, in few bytes."""
    colours = Colours()
    colours.follow(sent)
    assert colours.start == open_after
    assert bool(colours.end) is bool(open_after)


@pytest.mark.parametrize("mode", [OutputMode.PREFIX, OutputMode.GROUP])
@pytest.mark.parametrize("several", [True, False])
async def test_colours_end_with_the_job(mode: OutputMode, several: bool) -> None:  # noqa: FBT001 -- pytest passes it by name
    """On a terminal, what follows the output of a job does not have its colours."""
    writer = Recorder()
    output = output_factory(mode, writer, several=several, terminals=[Stream.STDOUT])("a")
    await output.stdout(b"\x1b[31mred")
    await output.close()
    text = writer.text(Stream.STDOUT)
    assert text.replace(b"\n", b"").endswith(b"\x1b[31mred\x1b[0m")


HARMFUL = (
    b"\x1b[2J",
    b"\x1b[1;1H",
    b"\x1b]0;title\x07",
    b"\x1b]52;c;aGk=\x1b\\",
    b"\x1bPpayload\x1b\\",
    b"\x1bc",
    b"\x1b(0",
    b"\x07",
    b"\x08",
    "\x9b2J".encode()[:2],
    b"\x1b\n"[:1],
)


@pytest.mark.parametrize("several", [True, False])
@pytest.mark.parametrize("step", [1, 1000])
async def test_only_text_and_colours_reach_a_terminal(several: bool, step: int) -> None:  # noqa: FBT001 -- pytest passes it by name
    """Other sequences are dropped, in whatever chunks they arrive; a file gets everything."""
    sent = b"\x1b[1mbold\x1b[0m \xc3\xa9\t" + b"-".join(HARMFUL) + b".\n"
    for terminals, mode in (((Stream.STDOUT,), OutputMode.PREFIX), ((), OutputMode.PREFIX)):
        writer = Recorder()
        output = output_factory(mode, writer, several=several, terminals=terminals)("a")
        for start in range(0, len(sent), step):
            await output.stdout(sent[start : start + step])
        await output.close()
        text = writer.text(Stream.STDOUT)
        shown = b"\x1b[1mbold\x1b[0m \xc3\xa9\t" + b"-" * (len(HARMFUL) - 1) + b"."
        assert (shown in text) is bool(terminals)
        assert (b"\x1b[2J" in text) is (not terminals)


async def test_output_is_unchanged_on_request() -> None:
    """`--output raw` passes on everything, without prefixes, also to a terminal."""
    writer = Recorder()
    output = output_factory(OutputMode.RAW, writer, several=True, terminals=[Stream.STDOUT])("a")
    await output.stdout(b"\x1b[2Jx\r")
    assert writer.written == [(Stream.STDOUT, b"\x1b[2Jx\r")]
