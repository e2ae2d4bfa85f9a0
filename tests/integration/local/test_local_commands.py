"""An instance as an SSH client sees it: commands, streams, signals, files, forwarding."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.abc
import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import asyncssh
    from tests.integration.local.conftest import Local

    from fleeting.abc import InstanceGroup

pytestmark = pytest.mark.anyio
MEGABYTE = 1_000_000


@pytest.fixture
async def connection(
    local: Local, group: InstanceGroup
) -> AsyncGenerator[asyncssh.SSHClientConnection]:
    """Return a connection to a new instance of the shared server."""
    [id] = await local.grow(group)
    async with local.connect(group, id) as connection:
        yield connection


@pytest.fixture
async def own_connection(
    local: Local, tmp_path: Path
) -> AsyncGenerator[asyncssh.SSHClientConnection]:
    """Return a connection to the only instance of a new server below `tmp_path`."""
    async with local.open(root=tmp_path) as group:
        [id] = await local.grow(group)
        async with local.connect(group, id) as connection:
            yield connection


async def test_output_error_and_status_are_apart(
    connection: asyncssh.SSHClientConnection,
) -> None:
    """Output, error output and exit status of a command are separate."""
    completed = await connection.run("echo out; echo err >&2; exit 7")
    assert completed.stdout == "out\n"
    assert completed.stderr == "err\n"
    assert completed.exit_status == 7
    assert completed.exit_signal is None


async def test_a_signal_is_not_an_exit_status(connection: asyncssh.SSHClientConnection) -> None:
    """If a signal ended the command, the signal's name is reported."""
    for name in ("KILL", "TERM", "USR1"):
        completed = await connection.run(f"kill -{name} $$")
        assert completed.exit_signal is not None
        assert completed.exit_signal[0] == name


async def test_input_reaches_the_command(connection: asyncssh.SSHClientConnection) -> None:
    """Large input arrives unchanged and complete, followed by its end."""
    data = os.urandom(5_000_000)
    completed = await connection.run("sha256sum", input=data, encoding=None)
    assert isinstance(completed.stdout, bytes)
    assert completed.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()


async def test_unread_input_is_dropped(
    connection: asyncssh.SSHClientConnection,
) -> None:
    """Input that the command does not read is dropped and does not block it."""
    completed = await connection.run("exec <&-; exit 5", input=b"x" * 8_000_000, encoding=None)
    assert completed.exit_status == 5


async def test_a_session_without_a_command_is_a_shell(
    connection: asyncssh.SSHClientConnection,
) -> None:
    """A session without a command runs a shell that reads commands from its input."""
    completed = await connection.run(input="echo $((6 * 7))\nexit 3\n")
    assert completed.stdout == "42\n"
    assert completed.exit_status == 3


async def test_commands_get_only_the_instance_environment(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands get their home and the usual variables, and no others of the manager's."""
    monkeypatch.setenv("CLOUD_SECRET", "do-not-leak")
    async with local.open() as group:
        [id] = await local.grow(group)
        async with local.connect(group, id) as connection:
            completed = await connection.run("pwd; umask; env", check=True)
    home, umask, *lines = str(completed.stdout).splitlines()
    variables = dict(line.split("=", 1) for line in lines)
    assert variables["HOME"] == home
    assert variables["SHELL"] == "/bin/sh"
    assert variables["USER"] == variables["LOGNAME"]
    assert Path(variables["TMPDIR"]).parent == Path(home).parent
    assert umask == "0022"
    expected = {"HOME", "TMPDIR", "USER", "LOGNAME", "SHELL", "PATH", "PWD", "LANG", "LANGUAGE"}
    assert {name for name in variables if not name.startswith(("LC_", "_"))} <= expected


async def test_text_is_the_same_in_every_locale(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text in a command arrives unchanged, whatever the manager's locale."""
    monkeypatch.setenv("LC_ALL", "en_US.ISO-8859-1")
    async with local.open() as group:
        [id] = await local.grow(group)
        async with local.connect(group, id) as connection:
            completed = await connection.run("echo żółw", check=True)
    assert completed.stdout == "żółw\n"


async def test_commands_start_with_default_signals_and_files(
    connection: asyncssh.SSHClientConnection,
) -> None:
    """Commands do not ignore or block signals, and inherit only their three streams."""
    completed = await connection.run(
        "grep -E 'SigBlk|SigIgn' /proc/self/status; ls /proc/self/fd | wc -l", check=True
    )
    blocked, ignored, files = str(completed.stdout).splitlines()
    assert int(blocked.split()[1], 16) == 0
    # glibc's spawning leaves the two that it uses itself, 32 and 33, ignored.
    assert int(ignored.split()[1], 16) & 0x7FFFFFFF == 0
    assert int(files) == 4  # the three, and the directory that `ls` reads


async def test_a_signal_reaches_the_whole_process_group(
    connection: asyncssh.SSHClientConnection, local: Local
) -> None:
    """A signal ends the command and the processes it started."""
    async with connection.create_process("sleep 1000 & echo $!; wait") as process:
        child = int(await process.stdout.readline())
        process.send_signal("TERM")
        completed = await process.wait()
        assert completed.exit_signal is not None
        assert completed.exit_signal[0] == "TERM"
    # The signal has reached the child, too, which need not have run since.
    await local.wait(lambda: not _is_alive(child))


async def test_closing_the_channel_ends_the_command(
    connection: asyncssh.SSHClientConnection, local: Local
) -> None:
    """When the channel closes, the command's process group gets HUP, and later KILL."""
    script = "trap '' HUP; sleep 1000 & echo $! $$; wait"
    process = await connection.create_process(script)
    pids = [int(word) for word in (await process.stdout.readline()).split()]
    process.channel.abort()
    await local.wait(lambda: not any(_is_alive(pid) for pid in pids))


async def test_the_status_does_not_wait_for_a_background_process(
    connection: asyncssh.SSHClientConnection,
) -> None:
    """The exit status is sent at once, though a background process keeps the output open."""
    go = "mkfifo go; (read line <go; echo late) & echo early; exit 4"
    async with connection.create_process(go) as process:
        with anyio.fail_after(30):
            while process.exit_status is None:
                await anyio.sleep(0.01)
        assert process.exit_status == 4
        assert await process.stdout.readline() == "early\n"
        await connection.run("echo >go", check=True)
        assert await process.stdout.read() == "late\n"


async def test_output_before_the_end_is_complete(
    connection: asyncssh.SSHClientConnection,
) -> None:
    """All output that a command wrote before it ended is delivered, every time."""
    for _ in range(50):
        completed = await connection.run("head -c 60000 /dev/zero; exit 1", encoding=None)
        assert isinstance(completed.stdout, bytes)
        assert len(completed.stdout) == 60000
        assert completed.exit_status == 1


async def test_much_output_takes_little_memory(
    own_connection: asyncssh.SSHClientConnection, local: Local, tmp_path: Path
) -> None:
    """Large output passes through the server without increasing its memory."""
    server = local.server(tmp_path)
    before = _peak_megabytes(server)
    size = 0
    command = f"head -c {60 * MEGABYTE} /dev/zero"
    async with own_connection.create_process(command, encoding=None) as process:
        while data := await process.stdout.read(1 << 20):
            size += len(data)
    assert size == 60 * MEGABYTE
    assert _peak_megabytes(server) - before < 20


async def test_a_client_that_does_not_read_stops_the_command(
    own_connection: asyncssh.SSHClientConnection, local: Local, tmp_path: Path
) -> None:
    """Unread output blocks the command and does not fill the server's memory; none is lost."""
    server = local.server(tmp_path)
    before = _peak_megabytes(server)
    script = f"echo $$; exec head -c {60 * MEGABYTE} /dev/zero"
    async with own_connection.create_process(script, encoding=None) as process:
        pid = int(await process.stdout.readline())
        await local.wait(lambda: "pipe_write" in Path(f"/proc/{pid}/wchan").read_text())
        # Other commands on the same connection are not affected.
        for _ in range(20):
            await own_connection.run("true", check=True)
        assert _is_alive(pid)
        assert _peak_megabytes(server) - before < 20
        size = 0
        while data := await process.stdout.read(1 << 20):
            size += len(data)
    assert size == 60 * MEGABYTE


async def test_many_commands_at_once(connection: asyncssh.SSHClientConnection) -> None:
    """A hundred commands on one connection each get their own output."""
    found: dict[int, str] = {}

    async def run(number: int) -> None:
        found[number] = str((await connection.run(f"echo {number}", check=True)).stdout)

    async with anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(run, number)
    assert found == {number: f"{number}\n" for number in range(100)}


async def test_a_command_that_cannot_start_says_why(
    connection: asyncssh.SSHClientConnection,
) -> None:
    """A command line that is too long ends with status 127 and a reason."""
    completed = await connection.run("true " + "x" * 200_000)
    assert completed.exit_status == 127
    assert "too long" in str(completed.stderr)


async def test_a_command_can_have_a_terminal(connection: asyncssh.SSHClientConnection) -> None:
    """A command's streams are its controlling terminal, of the requested type and size."""
    script = 'tty && stty size && echo "$TERM" && ps -o tty= -p $$ && echo to stderr >&2'
    completed = await connection.run(script, term_type="vt100", term_size=(97, 31))
    assert completed.exit_status == 0
    name, size, kind, own, last = str(completed.stdout).split("\r\n")[:5]
    assert name == f"/dev/{own.strip()}"
    assert (size, kind, last) == ("31 97", "vt100", "to stderr")
    assert completed.stderr == ""


async def test_terminal_output_before_the_end_is_complete(
    connection: asyncssh.SSHClientConnection,
) -> None:
    """All output that a command wrote to its terminal before it ended is delivered."""
    completed = await connection.run("seq 1 20000; exit 5", term_type="xterm")
    assert str(completed.stdout).split() == [str(number) for number in range(1, 20001)]
    assert completed.exit_status == 5


async def test_a_terminal_changes_its_size(connection: asyncssh.SSHClientConnection) -> None:
    """The command is notified when the size of the client's window changes."""
    script = "trap 'stty size; exit' WINCH; echo up; while :; do sleep 0.1; done"
    async with connection.create_process(script, term_type="xterm") as process:
        assert await process.stdout.readline() == "up\r\n"
        process.change_terminal_size(50, 20)
        assert await process.stdout.readline() == "20 50\r\n"


async def test_a_terminal_hangs_up_with_its_channel(
    connection: asyncssh.SSHClientConnection,
) -> None:
    """A typed Ctrl-C sends INT; closing the channel ends the command on the terminal."""
    async with connection.create_process("echo up; exec cat", term_type="xterm") as process:
        assert await process.stdout.readline() == "up\r\n"
        process.stdin.write("\x03")
        completed = await process.wait()
    assert completed.exit_signal is not None
    assert completed.exit_signal[0] == "INT"
    process = await connection.create_process("echo $$; exec cat", term_type="xterm")
    pid = int(await process.stdout.readline())
    process.close()
    with anyio.fail_after(30):
        while await _exists(connection, pid):
            await anyio.sleep(0.01)


async def _exists(connection: asyncssh.SSHClientConnection, pid: int) -> bool:
    return (await connection.run(f"kill -0 {pid}")).exit_status == 0


async def test_files_travel_relative_to_home(
    connection: asyncssh.SSHClientConnection, tmp_path: Path
) -> None:
    """SFTP paths are relative to home; content and permission bits are kept."""
    data = os.urandom(3_000_000)
    source = tmp_path / "source"
    source.write_bytes(data)
    source.chmod(0o750)
    async with connection.start_sftp_client() as sftp:
        await sftp.makedirs("a/b")
        await sftp.put(source, "a/b/file", preserve=True)
        assert await sftp.listdir("a/b") == [".", "..", "file"]
        await sftp.get("a/b/file", tmp_path / "back")
        home = str((await connection.run("pwd", check=True)).stdout).strip()
        assert await sftp.realpath(".") == home
        assert await sftp.exists(f"{home}/a/b/file")
    assert (tmp_path / "back").read_bytes() == data
    completed = await connection.run("stat -c %a a/b/file; sha256sum <a/b/file", check=True)
    mode, digest, _ = str(completed.stdout).split()
    assert mode == "750"
    assert digest == hashlib.sha256(data).hexdigest()


async def test_streams_open_through_the_connection(
    connection: asyncssh.SSHClientConnection, tmp_path: Path
) -> None:
    """TCP ports and Unix sockets are reachable through the instance."""

    async def shout(stream: anyio.abc.ByteStream) -> None:
        async with stream:
            await stream.send((await stream.receive()).upper())

    ports = await anyio.create_tcp_listener(local_host="127.0.0.1")
    sockets = await anyio.create_unix_listener(tmp_path / "socket")
    async with anyio.create_task_group() as tasks, ports, sockets:
        tasks.start_soon(ports.serve, shout)
        tasks.start_soon(sockets.serve, shout)
        port = ports.extra_attributes[anyio.abc.SocketAttribute.local_port]()
        forwarded = await connection.forward_local_port("127.0.0.1", 0, "127.0.0.1", port)
        path = str(tmp_path / "forwarded")
        forwarded_too = await connection.forward_local_path(path, str(tmp_path / "socket"))
        async with await anyio.connect_tcp("127.0.0.1", forwarded.get_port()) as stream:
            await stream.send(b"hello")
            assert await stream.receive() == b"HELLO"
        async with await anyio.connect_unix(path) as stream:
            await stream.send(b"hello")
            assert await stream.receive() == b"HELLO"
        forwarded.close()
        forwarded_too.close()
        tasks.cancel_scope.cancel()


def _is_alive(pid: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _peak_megabytes(pid: int) -> float:
    """Return the peak memory use of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1000
    raise AssertionError("the kernel does not report the peak")
