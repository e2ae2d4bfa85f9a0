"""Commands over SSH, on both kinds of server."""

# ruff: noqa: ASYNC240 - what these tests read of /proc is in memory

from __future__ import annotations

import os
import uuid
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from asyncssh.constants import MSG_CHANNEL_REQUEST
from asyncssh.packet import Boolean, String, UInt32
from tests.integration.conftest import run_in_shell

from ended_processes import gone
from fleeting.connectors import _ssh_channels, _ssh_process
from fleeting.connectors.ssh import SSHConnector
from fleeting.errors import ConnectionLost, NotSupported
from fleeting.types import ConnectInfo, Exit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import asyncssh
    from tests.integration.conftest import Server

    from fleeting.abc import Connection

TIMEOUT = timedelta(seconds=30)
pytestmark = pytest.mark.anyio
MEGABYTE = 1024 * 1024


class Counter:
    """An output that counts."""

    def __init__(self) -> None:
        self.count = 0

    def write(self, data: bytes) -> None:
        """Count some bytes."""
        self.count += len(data)


async def test_status_and_outputs(connection: Connection) -> None:
    """Exit status, output and error output arrive separately."""
    done = await connection.run("echo out; echo err >&2; exit 3")
    assert (done.status, done.signal, done.stdout, done.stderr) == (3, None, b"out\n", b"err\n")
    assert not done.succeeded


async def test_output_is_bytes(connection: Connection) -> None:
    """Every byte value passes in both directions, even if it is not text."""
    data = bytes(range(256)) * 1000
    done = await connection.run("cat; cat /dev/fd/0 >&2", stdin=data)
    assert done.stdout == data


async def test_no_input_is_the_end_of_input(connection: Connection) -> None:
    """A command without input reads the end of file at once."""
    assert (await connection.run("cat")).succeeded


async def test_input_can_end_before_the_output(connection: Connection) -> None:
    """Closing the input leaves the output open, and the command can still write to it."""
    async with connection.start("cat; echo after") as process:
        await process.stdin.send(b"before ")
        assert await process.stdout.receive() == b"before "
        await process.stdin.aclose()
        assert await process.stdout.receive() == b"after\n"
        assert await process.wait() == Exit(0)
        with pytest.raises(anyio.EndOfStream):
            await process.stdout.receive()


async def test_unread_input_is_dropped(connection: Connection) -> None:
    """The run ends with the command, however much of its input is unread."""

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * MEGABYTE

    done = await connection.run("head -c 3", stdin=endless())
    assert (done.status, done.stdout) == (0, b"xxx")


@pytest.mark.parametrize("name", ["KILL", "TERM", "SEGV"])
async def test_a_signal_is_not_a_status(connection: Connection, name: str) -> None:
    """A command that a signal ended has the signal's name instead of a status."""
    done = await connection.run(f"exec sh -c 'kill -{name} $$'")
    assert (done.status, done.signal) == (None, name)


async def test_signals_reach_the_whole_group(connection: Connection) -> None:
    """A signal reaches the command and the processes it has started."""
    async with connection.start("sleep 600 & echo $!; exec sleep 600") as process:
        child = int(await process.stdout.receive())
        await process.send_signal("TERM")
        assert await process.wait() == Exit(None, "TERM")
        await gone(child)
        await process.send_signal("TERM")  # After its end this does nothing.


async def test_a_signals_name_is_checked(connection: Connection) -> None:
    """An invalid name of a signal is refused and not sent."""
    async with connection.start("cat") as process:
        with pytest.raises(ValueError, match="not the name of a signal"):
            await process.send_signal("TERM 1; true")


async def test_a_timeout_ends_the_command(connection: Connection) -> None:
    """After its timeout, a command is ended on the instance, and its output is kept."""
    done = await connection.run("echo $$; exec sleep 600", timeout=timedelta(seconds=0.5))
    assert (done.timed_out, done.status, done.succeeded) == (True, None, False)
    await gone(int(done.stdout))


@pytest.mark.parametrize("cancelled", [False, True])
async def test_output_after_term_is_kept(connection: Connection, *, cancelled: bool) -> None:
    """The output of a command that cleans up after TERM arrives, however much it is."""
    command = (
        "trap 'head -c 3000000 /dev/zero; echo bye >&2; exit 3' TERM; echo ready; "
        "while :; do sleep 0.05; done"
    )
    out, err = bytearray(), bytearray()
    async with anyio.create_task_group() as group:

        async def note(data: bytes) -> None:
            out.extend(data)
            if cancelled and out.startswith(b"ready"):
                group.cancel_scope.cancel()

        async def note_error(data: bytes) -> None:
            err.extend(data)

        async def run() -> None:
            seconds = timedelta(seconds=60 if cancelled else 0.5)
            done = await connection.run(
                command, stdout=note, stderr=note_error, timeout=seconds, grace=TIMEOUT
            )
            assert done.timed_out

        group.start_soon(run)
    assert len(out) == 3_000_006
    assert err.endswith(b"bye\n")  # A shell may first report the signal.


async def test_output_that_never_ends_is_cut(connection: Connection) -> None:
    """A command that ignores TERM and goes on printing is killed after its grace period."""
    done = await connection.run(
        "trap '' TERM; echo $$; while :; do echo x; done",
        timeout=timedelta(seconds=0.3),
        grace=timedelta(seconds=0.3),
        capture_limit=100,
    )
    assert (done.timed_out, done.truncated) == (True, True)
    await gone(int(done.stdout.split()[0]))


async def test_a_timeout_of_zero(connection: Connection) -> None:
    """A timeout of zero ends the command at once; it does not mean no timeout."""
    assert (await connection.run("sleep 600", timeout=timedelta(0))).timed_out


async def test_a_command_that_ignores_term_is_killed(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leaving `start` sends KILL to a command that ignores TERM."""
    monkeypatch.setattr(_ssh_process, "TERM_SECONDS", 0.2)
    async with connection.start("trap '' TERM; echo $$; while :; do sleep 1; done") as process:
        pid = int(await process.stdout.receive())
    await gone(pid)


async def test_cancelling_ends_the_command(connection: Connection) -> None:
    """A cancelled run ends its command."""
    pids: list[int] = []
    async with anyio.create_task_group() as group:

        async def note(data: bytes) -> None:
            pids.append(int(data))
            group.cancel_scope.cancel()

        async def run() -> None:
            await connection.run("echo $$; exec sleep 600", stdout=note)

        group.start_soon(run)
    await gone(pids[0])


async def test_background_processes_do_not_hold_the_run(sshd: ConnectInfo) -> None:
    """A run ends with its command, although a background process keeps the output open."""
    async with await SSHConnector().connect(sshd) as connection:
        done = await connection.run("sleep 600 & echo $!; echo done")
    pid, word = done.stdout.split()
    assert (done.status, word) == (0, b"done")
    os.kill(int(pid), 9)


async def test_environment_arrives_unchanged(connection: Connection) -> None:
    """Values with quotes, newlines, non-ASCII letters and bytes that are not text arrive."""
    values = {
        "QUOTES": "'\"`$(exit 1)\\ '' \\'",
        "LINES": "\na\n\nb\n",
        "LETTERS": "Grüße, 你好",
        "BYTES": os.fsdecode(bytes(range(1, 256))),
        "EMPTY": "",
        "SHELL": "/nonexistent",
    }
    script = "; ".join(f"printf '%s\\1' \"${name}\"" for name in values if name != "BYTES")
    done = await connection.run(f'{script}; printf %s "$BYTES"; cat', env=values, stdin=b"-input")
    *texts, rest = done.stdout.split(b"\1", len(values) - 1)
    assert [text.decode() for text in texts] == [v for n, v in values.items() if n != "BYTES"]
    assert rest == bytes(range(1, 256)) + b"-input"


async def test_environment_is_not_on_a_command_line(connection: Connection) -> None:
    """While a command runs, no command line contains its environment."""
    secret = uuid.uuid4().hex
    async with connection.start("echo ready; cat; echo after", env={"TOKEN": secret}) as process:
        assert await process.stdout.receive() == b"ready\n"
        lines: list[bytes] = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                lines.append(path.read_bytes())
            except OSError:
                continue  # It has ended meanwhile.
        assert any(b"echo ready; cat; echo after" in line for line in lines)
        assert not any(secret.encode() in line for line in lines)


async def test_working_directory(connection: Connection, tmp_path: Path) -> None:
    """A command runs in the given directory, even if its name has special characters."""
    folder = tmp_path / "a 'strange' $name\n"
    folder.mkdir()
    assert (await connection.run("pwd", cwd=str(folder))).stdout == f"{folder}\n".encode()


async def test_missing_working_directory(connection: Connection) -> None:
    """A missing directory is named on stderr, and the command does not start."""
    done = await connection.run("echo started", cwd="/no/such/folder")
    assert (done.status, done.stdout) == (1, b"") or (done.status, done.stdout) == (2, b"")
    assert b"/no/such/folder" in done.stderr


async def test_invalid_names_of_variables(connection: Connection) -> None:
    """An invalid name of a variable is refused before anything is started."""
    with pytest.raises(ValueError, match="not a valid variable name"):
        await connection.run("true", env={"A;B": "x"})
    assert connection.is_open


async def test_much_output(connection: Connection) -> None:
    """Output of many times the size of the window arrives completely."""
    counter = Counter()
    done = await connection.run(f"head -c {60 * MEGABYTE} /dev/zero", stdout=counter)
    assert (done.status, counter.count) == (0, 60 * MEGABYTE)


async def test_captured_output_is_bounded(connection: Connection) -> None:
    """Output beyond the limit is dropped, and the result says so."""
    done = await connection.run("head -c 5000 /dev/zero", capture_limit=100)
    assert (len(done.stdout), done.truncated, done.status) == (100, True, 0)


async def test_unread_output_blocks_only_the_command(connection: Connection) -> None:
    """Unread output stays on the instance, except for a bounded part; other commands go on."""
    async with connection.start("head -c 1G /dev/zero; echo done >&2") as process:
        await anyio.wait_all_tasks_blocked()
        assert len(await process.stdout.receive()) > 0
        channel: Any = vars(process)["_channel"]
        with anyio.fail_after(10):
            while not vars(channel)["_reading_paused"]:
                await anyio.sleep(0.01)
        held_back = sum(len(data) for data, _ in channel._transport._recv_buf)
        assert process.stdout.unread + held_back < 4 * MEGABYTE  # type: ignore[attr-defined] # ours
        assert (await connection.run("echo other")).stdout == b"other\n"


async def test_an_output_that_was_closed_does_not_block(connection: Connection) -> None:
    """Output that arrives after its stream was closed is dropped, and the command goes on."""
    async with connection.start("head -c 20000000 /dev/zero; echo done >&2") as process:
        await process.stdout.aclose()
        assert await process.stderr.receive() == b"done\n"
        assert await process.wait() == Exit(0)
        with pytest.raises(anyio.ClosedResourceError):
            await process.stdout.receive()


async def test_many_commands_at_once(connection: Connection) -> None:
    """A hundred commands share one connection, and each gets its own output."""
    answers: dict[int, bytes] = {}

    async def run(number: int) -> None:
        done = await connection.run(f"read word; echo {number} $word", stdin=b"word\n")
        answers[number] = done.stdout

    async with anyio.create_task_group() as group:
        for number in range(100):
            group.start_soon(run, number)
    assert answers == {number: f"{number} word\n".encode() for number in range(100)}


async def test_more_commands_than_the_server_permits(
    start_sshd: Callable[..., ConnectInfo],
) -> None:
    """Beyond the server's limit of sessions, a command waits for another one to end."""
    info = start_sshd("MaxSessions 3")
    results: list[int | None] = []
    async with await SSHConnector().connect(info) as connection:

        async def run() -> None:
            results.append((await connection.run("sleep 0.05")).status)

        async with anyio.create_task_group() as group:
            for _ in range(12):
                group.start_soon(run)
    assert results == [0] * 12


async def test_a_server_that_permits_no_commands(start_sshd: Callable[..., ConnectInfo]) -> None:
    """If the server permits no commands at all, each one fails instead of waiting."""
    info = start_sshd("MaxSessions 0")
    async with await SSHConnector().connect(info) as connection:
        refused: list[NotSupported] = []

        async def run() -> None:
            with pytest.raises(NotSupported, match="refused to run a command") as caught:
                await connection.run("true")
            refused.append(caught.value)

        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                for _ in range(5):
                    group.start_soon(run)
        assert len(refused) == 5


async def test_a_lost_connection_is_not_an_end(serve: Callable[..., Any]) -> None:
    """If the connection breaks during a command, every operation raises `ConnectionLost`."""
    async with serve() as server, await SSHConnector().connect(server.info) as connection:
        async with connection.start("echo started; exec sleep 600") as process:
            assert await process.stdout.receive() == b"started\n"
            server.drop()
            for operation in (process.wait(), process.stdout.receive(), process.stderr.receive()):
                with pytest.raises(ConnectionLost, match="lost"):
                    await operation
            with pytest.raises(ConnectionLost):
                await process.stdin.send(b"x")
            with pytest.raises(ConnectionLost):
                await process.send_signal("TERM")
        assert not connection.is_open
        with pytest.raises(ConnectionLost):
            await connection.run("true")
        with pytest.raises(ConnectionLost):
            await connection.glob("*")
        with pytest.raises(ConnectionLost):
            await connection.open_tcp("127.0.0.1", 1)


async def test_a_connection_lost_during_a_run(serve: Callable[..., Any]) -> None:
    """`run` raises `ConnectionLost`, not wrapped, when the connection breaks."""
    async with serve() as server, await SSHConnector().connect(server.info) as connection:

        async def drop(_data: bytes) -> None:
            server.drop()

        with pytest.raises(ConnectionLost):
            await connection.run("echo x; exec sleep 600", stdout=drop)


async def test_an_orderly_shutdown_is_not_an_end(serve: Callable[..., Any]) -> None:
    """An orderly shutdown by the server does not mean that the command has ended."""
    async with serve() as server, await SSHConnector().connect(server.info) as connection:
        async with connection.start("echo started; exec sleep 600") as process:
            assert await process.stdout.receive() == b"started\n"
            for one in list(server.connections):
                one.close()
            with pytest.raises(ConnectionLost):
                await process.stdout.receive()
            with pytest.raises(ConnectionLost):
                await process.wait()


async def test_a_channel_closed_without_a_status(serve: Callable[..., Any]) -> None:
    """If the server does not report how the command ended, that is not success."""

    async def close(process: asyncssh.SSHServerProcess[bytes]) -> None:
        if process.command != "true":
            await run_in_shell(process)
            return
        process.stdout.write(b"all good")
        process.stdout.write_eof()
        process.channel.close()

    async with serve(close) as server, await SSHConnector().connect(server.info) as connection:
        with pytest.raises(ConnectionLost, match="without reporting how"):
            await connection.run("true")
        assert connection.is_open


@pytest.mark.parametrize("status", [0, 1, 255, 256, 2**31, 2**32 - 1, 0xC0000005])
async def test_a_status_has_32_bits(serve: Callable[..., Any], status: int) -> None:
    """The statuses of Windows arrive whole; none of them but 0 is success."""

    async def report(process: asyncssh.SSHServerProcess[bytes]) -> None:
        if process.command != "true":
            await run_in_shell(process)
            return
        no_reply = Boolean(False)  # noqa: FBT003 -- a value of the protocol
        fields = [String("exit-status"), no_reply, UInt32(status)]
        process.channel.send_packet(MSG_CHANNEL_REQUEST, *fields)
        process.channel.close()

    async with serve(report) as server, await SSHConnector().connect(server.info) as connection:
        done = await connection.run("true")
    assert (done.status, done.succeeded) == (status, status == 0)


async def test_cancelled_openings_leave_no_channel(serve: Callable[..., Any]) -> None:
    """Whenever the start of a command is cancelled, the server has no channel left."""
    server: Server
    async with serve() as server, await SSHConnector().connect(server.info) as connection:
        for turns in range(40):
            async with anyio.create_task_group() as group:

                async def run() -> None:
                    await connection.run("cat", env={"A": "B"}, stdin=b"x" * 1000)

                group.start_soon(run)
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()
        await server.idle(connections=1)
        assert (await connection.run("echo fine")).stdout == b"fine\n"


async def test_closing_ends_what_runs(connection: Connection) -> None:
    """Closing a connection ends its commands on the instance, and can be repeated."""
    pid = 0
    with pytest.raises(ConnectionLost, match="closed on this side"):
        async with connection.start("echo $$; exec sleep 600") as process:
            pid = int(await process.stdout.receive())
            await connection.aclose()
            await connection.aclose()
            await process.stdin.send(b"x")
    await gone(pid)
    assert not connection.is_open


async def test_small_reads(connection: Connection) -> None:
    """A reader of few bytes at a time gets everything in order."""
    async with connection.start("printf 0123456789") as process:
        data = [await process.stdout.receive(3) for _ in range(4)]
        assert b"".join(data) == b"0123456789"
        with pytest.raises(anyio.EndOfStream):
            await process.stdout.receive(1)


def test_the_bound_is_what_the_documentation_says() -> None:
    """A channel is paused when more than a megabyte is unread."""
    assert _ssh_channels.HIGH_WATER == MEGABYTE


async def test_slow_reader_does_not_pile_up_output(connection: Connection) -> None:
    """However much a command writes, memory stays bounded while the reader is slow."""
    most = 0
    async with connection.start(f"head -c {16 * MEGABYTE} /dev/zero") as process:
        channel: Any = vars(process.stdout)["_channel"]  # The only place that knows the buffers.
        while True:
            try:
                await process.stdout.receive(4096)
            except anyio.EndOfStream:
                break
            held = sum(len(data) for data, _ in channel._transport._recv_buf)
            most = max(most, held + sum(one.unread for one in channel.receivers.values()))
    window = 2 * MEGABYTE
    assert most <= _ssh_channels.HIGH_WATER + 2 * window
