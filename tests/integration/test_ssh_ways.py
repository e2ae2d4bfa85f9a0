"""Instances behind other SSH servers, behind a program, and at addresses of IPv6."""

from __future__ import annotations

import socket
import sys
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from ended_processes import gone
from fleeting.connectors.ssh import SSHConnector
from fleeting.errors import (
    AuthenticationFailed,
    ConnectionLost,
    HostKeyMismatch,
    NotSupported,
    Unreachable,
)
from fleeting.types import Jump

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.conftest import Keys

    from fleeting.abc import Connection
    from fleeting.types import ConnectInfo

pytestmark = pytest.mark.anyio

SHORT = timedelta(seconds=2)
# Like `nc HOST PORT`, and writes its process id to a file.
RELAY = """
import os, socket, sys, threading
open(sys.argv[3], "w").write(str(os.getpid()))
there = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def pump(source, sink):
    while data := os.read(source, 65536):
        while data:
            data = data[os.write(sink, data):]
    os._exit(0)
threading.Thread(target=pump, args=(there.fileno(), 1), daemon=True).start()
pump(0, there.fileno())
"""


def jump_to(info: ConnectInfo, **changes: Any) -> Jump:
    """Return a server as a host on the way to another one."""
    jump = Jump(info.address, info.port, info.username, info.private_key, info.host_keys)
    return replace(jump, **changes)


def relayed(info: ConnectInfo, folder: Path) -> ConnectInfo:
    """Return how to connect through a program."""
    command = (sys.executable, "-c", RELAY, "{host}", "{port}", str(folder / "{id}.pid"))
    return replace(info, proxy_command=command)


async def test_instances_behind_two_servers(
    serve: Callable[..., Any], sshd: ConnectInfo, tmp_path: Path, keys: Keys
) -> None:
    """Each host on the way is logged in to with its own key, and is left with the connection."""
    async with serve(host_key=keys.other_host) as second:
        jumps = (jump_to(sshd), jump_to(second.info))
        # The instance is a real sshd, and the jump host forwards to it.
        connection = await SSHConnector().connect(replace(sshd, jumps=jumps))
        async with connection:
            assert second.accepted == 1
            assert (await connection.run("echo $((6 * 7))")).stdout == b"42\n"
            (tmp_path / "there").write_bytes(bytes(100_000))
            await connection.put(tmp_path / "there", str(tmp_path / "copy"))
        await second.idle(connections=0)
    assert (tmp_path / "copy").stat().st_size == 100_000


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ("host key", HostKeyMismatch, "jump host .* on the way to instance i-1 .* host key"),
        ("user", AuthenticationFailed, "jump host eve@"),
        ("port", Unreachable, "could not connect to jump host"),
    ],
)
async def test_failures_of_a_jump_host_name_it(
    serve: Callable[..., Any],
    sshd: ConnectInfo,
    keys: Keys,
    change: str,
    kind: type[Exception],
    text: str,
) -> None:
    """The host on the way has to show its own key and accept its own user."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    changes: dict[str, dict[str, Any]] = {
        "host key": {"host_keys": (keys.public(keys.other_host),)},
        "user": {"username": "eve"},
        "port": {"port": port},
    }
    async with serve() as server:
        info = replace(server.info, timeout=SHORT, jumps=(jump_to(sshd, **changes[change]),))
        with pytest.raises(kind, match=text):
            await SSHConnector().connect(info)
        assert server.accepted == 0


async def test_an_instance_that_the_jump_host_does_not_reach(serve: Callable[..., Any]) -> None:
    """The answer of the host on the way is the reason, and no connection to it is left."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    async with serve() as server:
        info = replace(server.info, port=port, timeout=SHORT, jumps=(jump_to(server.info),))
        with pytest.raises(Unreachable, match=f"could not connect to instance i-1 at .*{port}"):
            await SSHConnector().connect(info)
        await server.idle(connections=0)


async def test_a_lost_jump_host_is_a_lost_connection(
    serve: Callable[..., Any], sshd: ConnectInfo
) -> None:
    """If a host on the way goes away, so does the connection through it, and no other."""
    async with serve() as server:
        connector = SSHConnector()
        async with (
            await connector.connect(sshd) as direct,
            await connector.connect(replace(sshd, jumps=(jump_to(server.info),))) as connection,
        ):
            server.drop()
            with pytest.raises(ConnectionLost):
                await connection.run("sleep 600")
            assert (await direct.run("echo x")).stdout == b"x\n"


async def test_jump_hosts_are_pinned_apart(serve: Callable[..., Any], keys: Keys) -> None:
    """A host on the way whose key is unknown has to show the same key the next time."""
    connector = SSHConnector()
    async with serve() as instance:
        async with serve() as first:
            port = first.info.port
            info = replace(instance.info, jumps=(jump_to(first.info, host_keys=()),))
            await (await connector.connect(info)).aclose()
        async with serve(host_key=keys.other_host, port=port):
            with pytest.raises(HostKeyMismatch, match="jump host"):
                await connector.connect(info)


async def test_instances_behind_a_program(serve: Callable[..., Any], tmp_path: Path) -> None:
    """The streams of the program are the connection, and it ends with that."""
    async with serve() as server:
        info = replace(relayed(server.info, tmp_path), id="i$(touch${IFS}owned)")
        async with await SSHConnector().connect(info) as connection:
            assert (await connection.run("echo through")).stdout == b"through\n"
            pid = int((tmp_path / f"{info.id}.pid").read_text())
        await gone(pid)
        await server.idle(connections=0)
        # A connection that breaks ends the program, too.
        async with await SSHConnector().connect(info) as connection:
            pid = int((tmp_path / f"{info.id}.pid").read_text())
            server.drop()
            await gone(pid)
            assert not connection.is_open
        # And so does a program that breaks.
        async with await SSHConnector().connect(info) as connection:
            pid = int((tmp_path / f"{info.id}.pid").read_text())
            with anyio.fail_after(10), pytest.raises(ConnectionLost):
                await connection.run(f"kill -KILL {pid}; sleep 600")


async def test_a_program_that_fails_is_quoted(sshd: ConnectInfo) -> None:
    """The error tells how the program ended, and what it said."""
    command = ("/bin/sh", "-c", "echo no session for {id} >&2; exit 3")
    info = replace(sshd, timeout=SHORT, proxy_command=command)
    with pytest.raises(Unreachable, match="status 3; it wrote: no session for i-2"):
        await SSHConnector().connect(info)


async def test_a_program_that_is_missing(sshd: ConnectInfo) -> None:
    """It is not tried again, and named."""
    with pytest.raises(NotSupported, match="proxy_command: /no/such cannot be started"):
        await SSHConnector().connect(replace(sshd, proxy_command=("/no/such", "{host}")))


async def test_a_cancelled_connect_ends_the_program(sshd: ConnectInfo, tmp_path: Path) -> None:
    """A program that never answers is ended when connecting is given up."""
    note = tmp_path / "pid"
    command = ("/bin/sh", "-c", f"trap '' TERM; echo $$ >{note}; while :; do sleep 1; done")
    info = replace(sshd, timeout=SHORT, proxy_command=command)
    with pytest.raises(Unreachable):
        await SSHConnector().connect(info)
    await gone(int(note.read_text()))


async def test_many_instances_behind_one_server(start_sshd: Callable[..., ConnectInfo]) -> None:
    """A host on the way with its default limits is not overrun."""
    bastion = start_sshd()
    info = replace(bastion, jumps=(jump_to(bastion),))
    connector, done = SSHConnector(), list[bytes]()

    async def use() -> None:
        async with await connector.connect(info) as connection:
            done.append((await connection.run("echo x")).stdout)

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(use)
    assert done == [b"x\n"] * 20


async def test_cancelled_connects_leave_nothing(serve: Callable[..., Any], tmp_path: Path) -> None:
    """Whenever a connect is cancelled, no host on the way has a connection left."""
    async with serve() as first, serve() as second:
        jumped = replace(second.info, jumps=(jump_to(first.info),))
        made: list[Connection] = []

        async def connect(info: ConnectInfo) -> None:
            made.append(await SSHConnector().connect(info))

        for info in (jumped, relayed(second.info, tmp_path)):
            for turns in range(0, 400, 9):
                async with anyio.create_task_group() as group:
                    group.start_soon(connect, info)
                    for _ in range(turns):
                        await anyio.lowlevel.checkpoint()
                    group.cancel_scope.cancel()
        for connection in made:
            await connection.aclose()
        await first.idle(connections=0)
        await second.idle(connections=0)


@pytest.mark.parametrize("change", [{"internal_address": "-oProxyCommand=x"}, {"id": "a b"}])
async def test_values_that_a_program_could_misread(
    sshd: ConnectInfo, change: dict[str, Any]
) -> None:
    """A provider cannot slip an option into the command."""
    info = replace(sshd, proxy_command=("ssh", "-W", "{host}:{port}", "{id}"), **change)
    with pytest.raises(NotSupported, match="is not passed to a program"):
        await SSHConnector().connect(info)


@pytest.mark.parametrize("address", ["::1", "[::1]"])
async def test_addresses_of_ipv6(start_sshd: Callable[..., ConnectInfo], address: str) -> None:
    """They may be in brackets, and are in messages."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this computer has no IPv6")
    info = replace(start_sshd("ListenAddress ::1"), internal_address=address)
    async with await SSHConnector().connect(info) as connection:
        assert (await connection.run("echo x")).stdout == b"x\n"
    with pytest.raises(AuthenticationFailed, match=rf"at \[::1\]:{info.port}"):
        await SSHConnector().connect(replace(info, username="unknown-user"))
