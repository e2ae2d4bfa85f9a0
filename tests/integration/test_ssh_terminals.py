"""A shell on a terminal of the instance, over SSH: with OpenSSH's server and that of `local`."""

from __future__ import annotations

import os
import re
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest

import fleeting
from fleeting.connectors.ssh import SSHConnector
from fleeting.errors import ConnectionLost, NotSupported
from fleeting.local import LocalConfig, LocalProvider
from fleeting.types import Exit, GroupSettings, State

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from fleeting.abc import Connection, Process, Terminal
    from fleeting.types import ConnectInfo

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def local_info() -> AsyncGenerator[ConnectInfo]:
    """Start one instance of the provider `local` for all tests of this file."""
    async with LocalProvider().open(LocalConfig(), GroupSettings()) as group:
        await group.increase(1, "one")
        with anyio.fail_after(30):
            while (one := (await group.update()).instances[0]).state is not State.RUNNING:
                await anyio.sleep(0.01)
        yield await group.connect_info(one.id)


@pytest.fixture(params=["local_info", "sshd"])
def info(request: pytest.FixtureRequest) -> ConnectInfo:
    """Return each kind of server that has terminals."""
    found: ConnectInfo = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def reached(info: ConnectInfo) -> AsyncGenerator[Connection]:
    """Connect to the server."""
    async with await fleeting.connect(info) as connection:
        yield connection


@asynccontextmanager
async def shell_on(connection: Connection) -> AsyncGenerator[Terminal]:
    """Open a shell that is ready for input."""
    async with connection.open_shell(kind="vt100", columns=91, rows=23) as shell:
        await type_line(shell, "PS1= PS2= PROMPT_COMMAND= ENV= && echo re''ady")
        await seen(shell, "ready\r\n")
        yield shell


async def type_line(shell: Terminal, line: str) -> None:
    """Type a line, and press Enter."""
    await shell.stdin.send(line.encode() + b"\r")


async def seen(process: Process, text: str) -> str:
    """Read the output until it contains a text."""
    shown = ""
    with anyio.move_on_after(30):
        while not shown or text not in shown:
            shown += (await process.stdout.receive()).decode()
        return shown
    raise AssertionError(f"{text!r} never came: {shown!r}")


async def number_after(process: Process, word: str) -> int:
    """Return the number between a word in the output and a period."""
    text = await seen(process, word)
    while not (match := re.search(rf"{word}(\d+) \.", text)):
        text += await seen(process, "")
    return int(match[1])


async def test_a_shell_has_a_terminal(reached: Connection) -> None:
    """The terminal has the requested size and type, can be resized, and reports the shell's end."""
    async with shell_on(reached) as shell:
        await type_line(shell, "stty size; echo $TERM; test -t 0 -a -t 1 -a -t 2 && echo o''n")
        text = await seen(shell, "on\r\n")
        assert "23 91\r\n" in text
        assert "vt100\r\n" in text
        await shell.resize(120, 40)
        # The next word could overtake the window.
        await type_line(shell, "until stty size | grep '40 120'; do sleep 0.02; done; echo wi''de")
        assert "40 120\r\n" in await seen(shell, "wide\r\n")
        await type_line(shell, "exit 7")
        assert await shell.wait() == Exit(7)
        await shell.resize(80, 24)


async def test_a_typed_interrupt_reaches_the_command(reached: Connection) -> None:
    """Ctrl-C ends the command on the terminal, and not the shell."""
    async with shell_on(reached) as shell:
        # A shell that is about to start a command may lose an interrupt.
        await type_line(shell, "sh -c 'echo st\"\"arted; exec sleep 1000'")
        await seen(shell, "started\r\n")
        await shell.stdin.send(b"\x03")
        await type_line(shell, "echo af''ter")
        await seen(shell, "after\r\n")


async def test_leaving_hangs_up(reached: Connection) -> None:
    """Leaving ends the shell and the command on its terminal, and no others."""
    async with shell_on(reached) as shell:
        await type_line(shell, "exec sh -c 'echo pi\"\"d $$ .; exec sleep 1000'")
        pid = await number_after(shell, "pid ")
    with anyio.fail_after(30):
        while (await reached.run(f"kill -0 {pid}")).succeeded:
            await anyio.sleep(0.02)
    assert (await reached.run("echo on")).stdout == b"on\n"


async def test_a_lost_connection_is_an_error(sshd: ConnectInfo) -> None:
    """If the connection breaks, waiting for the shell raises `ConnectionLost`."""
    connection = await SSHConnector().connect(sshd)
    async with connection, shell_on(connection) as shell:
        await type_line(shell, "echo par''ent $PPID .")
        os.kill(await number_after(shell, "parent "), signal.SIGKILL)
        with pytest.raises(ConnectionLost):
            await shell.wait()
        with pytest.raises(ConnectionLost):
            await shell.resize(1, 1)
    with pytest.raises(ConnectionLost):
        async with connection.open_shell(kind="vt100", columns=80, rows=24):
            pass


async def test_a_server_without_terminals_says_so(start_sshd: Callable[..., ConnectInfo]) -> None:
    """If the server permits no terminals, opening a shell fails, and commands still work."""
    async with await SSHConnector().connect(start_sshd("PermitTTY no")) as connection:
        with pytest.raises(NotSupported, match="refused to open a terminal"):
            async with connection.open_shell(kind="vt100", columns=80, rows=24):
                pass
        assert (await connection.run("echo on")).stdout == b"on\n"
