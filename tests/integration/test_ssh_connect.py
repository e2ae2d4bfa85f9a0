"""Making an SSH connection: host keys, credentials, retries, cancellation."""

# ruff: noqa: S106 - the passwords here open nothing
# ruff: noqa: S610 - anyio's `extra` is not Django's

from __future__ import annotations

import pwd
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio
import asyncssh
import pytest

import fleeting
from fleeting.connectors._ssh_errors import FOREIGN, translate
from fleeting.connectors.ssh import SSHConnector
from fleeting.errors import (
    AuthenticationFailed,
    ConnectionLost,
    ConnectorError,
    HostKeyMismatch,
    NotSupported,
    TransferFailed,
    Unreachable,
)
from fleeting.types import ConnectInfo

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
    from pathlib import Path

    from anyio.abc import SocketStream
    from tests.integration.conftest import Keys

pytestmark = pytest.mark.anyio
SHORT = timedelta(seconds=0.5)


@asynccontextmanager
async def listening(handler: Callable[[SocketStream], Awaitable[None]]) -> AsyncGenerator[int]:
    """Listen on a port with something that is not an SSH server."""

    async def closing(stream: SocketStream) -> None:
        async with stream:
            await handler(stream)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, closing)
        yield listener.extra(anyio.abc.SocketAttribute.local_port)
        group.cancel_scope.cancel()


async def test_connect_finds_the_connector(serve: Callable[..., Any]) -> None:
    """`fleeting.connect` finds the connector by the protocol's name."""
    async with serve() as server, await fleeting.connect(server.info) as connection:
        assert (await connection.run("echo hello")).stdout == b"hello\n"


async def test_the_local_user_needs_no_name_and_no_home(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user id without an entry in passwd, as containers have it, can connect."""
    async with serve() as server:
        monkeypatch.setattr(pwd, "getpwuid", dict[int, object]().__getitem__)
        for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
            monkeypatch.delenv(name, raising=False)
        async with await SSHConnector().connect(server.info) as connection:
            assert connection.is_open


async def test_the_known_host_key_is_required(serve: Callable[..., Any], keys: Keys) -> None:
    """An instance that shows another key is refused at once, and gets no credentials."""
    async with serve(host_key=keys.other_host) as server:
        info = replace(server.info, host_keys=(keys.public(keys.host),))
        with pytest.raises(HostKeyMismatch, match=r"i-1 at 127\.0\.0\.1.*SHA256:.*SHA256:"):
            await SSHConnector().connect(info)
        assert server.accepted == 1


async def test_one_of_several_known_keys_is_enough(serve: Callable[..., Any], keys: Keys) -> None:
    """If the provider knows several keys, any of them is accepted, of whatever type."""
    async with serve() as server:
        info = replace(server.info, host_keys=(keys.public(keys.rsa_host), *server.info.host_keys))
        async with await SSHConnector().connect(info) as connection:
            assert connection.is_open


async def test_a_connection_tells_the_key_that_was_shown(
    serve: Callable[..., Any], keys: Keys
) -> None:
    """`host_keys` has the shown key in OpenSSH format, whether or not it was known."""
    async with serve() as server:
        for host_keys in ((), server.info.host_keys):
            info = replace(server.info, host_keys=host_keys)
            async with await SSHConnector().connect(info) as connection:
                (shown,) = connection.host_keys
                assert shown.split() == keys.public(keys.host).split()[:2]


async def test_another_type_of_key_is_a_mismatch(serve: Callable[..., Any], keys: Keys) -> None:
    """A host without a key of the expected type is a mismatch, not an unsupported server."""
    async with serve() as server:
        with pytest.raises(HostKeyMismatch):
            await SSHConnector().connect(
                replace(server.info, host_keys=(keys.public(keys.rsa_host),))
            )


async def test_an_unknown_key_is_pinned(serve: Callable[..., Any], keys: Keys) -> None:
    """If no key is known, the first one is pinned; another instance has its own pin."""
    connector = SSHConnector()
    async with serve() as server:
        info = replace(server.info, host_keys=())
        async with await connector.connect(info), await connector.connect(info):
            pass
    async with serve(host_key=keys.other_host, port=info.port) as server:
        with pytest.raises(HostKeyMismatch):
            await connector.connect(info)
        async with await connector.connect(replace(info, id="i-9")) as connection:
            assert connection.is_open
        async with await connector.connect(replace(info, incarnation="next")) as connection:
            assert connection.is_open


async def test_a_failed_login_pins_nothing(serve: Callable[..., Any], keys: Keys) -> None:
    """Only a complete login pins a key."""
    connector = SSHConnector()
    async with serve(host_key=keys.other_host) as server:
        info = replace(server.info, host_keys=())
        with pytest.raises(AuthenticationFailed):
            await connector.connect(replace(info, private_key=None, password="wrong"))
    async with serve(port=info.port), await connector.connect(info) as connection:
        assert connection.is_open


async def test_refused_credentials(serve: Callable[..., Any], keys: Keys) -> None:
    """Refused credentials are an error at once, without a secret in the message."""
    async with serve() as server:
        stranger = keys.other_host.export_private_key("openssh").decode()
        info = replace(server.info, private_key=stranger, password="sesame")
        with pytest.raises(AuthenticationFailed, match="i-1") as caught:
            await SSHConnector().connect(info)
        assert server.accepted == 1
        assert "sesame" not in f"{caught.value!r}{caught.value.__cause__!r}"


@pytest.mark.parametrize("text", ["nonsense", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"])
async def test_an_unusable_private_key(serve: Callable[..., Any], text: str) -> None:
    """An unusable private key is an authentication error, without an attempt to connect."""
    async with serve() as server:
        with pytest.raises(AuthenticationFailed, match="private key for instance i-1"):
            await SSHConnector().connect(replace(server.info, private_key=text))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"internal_address": ""}, "has no address"),
        ({"username": ""}, "no username"),
        ({"port": 0}, "invalid port: 0"),
        ({"port": 70000}, "invalid port: 70000"),
        ({"host_keys": ("nonsense",)}, "not a valid public key"),
    ],
)
async def test_unusable_connect_info(change: dict[str, Any], message: str) -> None:
    """Connect info that cannot work is refused with a sentence, without an attempt to connect."""
    info = ConnectInfo("i-1", "ssh", "127.0.0.1", port=9, username="ada", timeout=SHORT)
    with pytest.raises(NotSupported, match=message):
        await SSHConnector().connect(replace(info, **change))


async def test_a_closed_port() -> None:
    """Refused connections are tried again until the time is up; the error has the attempts."""
    async with listening(lambda stream: stream.aclose()) as port:
        pass
    info = ConnectInfo("i-1", "ssh", "127.0.0.1", port=port, username="ada", timeout=SHORT)
    with pytest.raises(Unreachable, match=r"within 0\.5 s \([2-9] attempts\).*connection refused"):
        await SSHConnector().connect(info)


async def test_a_server_that_never_answers() -> None:
    """A server that accepts and sends nothing takes no more than the given time."""
    async with listening(lambda _stream: anyio.sleep_forever()) as port:
        info = ConnectInfo("i-1", "ssh", "127.0.0.1", port=port, username="ada", timeout=SHORT)
        with pytest.raises(Unreachable, match=r"\(1 attempt\).*does not answer"):
            await SSHConnector().connect(info)


async def test_a_server_that_never_finishes_its_banner() -> None:
    """A server that never finishes its banner takes no more than the given time."""

    async def dribble(stream: SocketStream) -> None:
        try:
            while True:
                await stream.send(b"hello\r\n")
                await anyio.sleep(0.01)
        except anyio.BrokenResourceError:
            pass

    async with listening(dribble) as port:
        info = ConnectInfo("i-1", "ssh", "127.0.0.1", port=port, username="ada", timeout=SHORT)
        with pytest.raises(Unreachable):
            await SSHConnector().connect(info)


async def test_a_busy_server_is_tried_again(serve: Callable[..., Any]) -> None:
    """Connections that a busy sshd drops before the login are tried again."""
    drops = 3

    async with serve() as server:

        async def pass_on(stream: SocketStream) -> None:
            nonlocal drops
            if drops:
                drops -= 1
                await stream.aclose()
                return
            target = await anyio.connect_tcp("127.0.0.1", server.info.port)
            async with stream, target, anyio.create_task_group() as group:
                group.start_soon(pump, stream, target)
                await pump(target, stream)
                group.cancel_scope.cancel()

        async with (
            listening(pass_on) as port,
            await SSHConnector().connect(replace(server.info, port=port)) as connection,
        ):
            assert (await connection.run("echo made")).stdout == b"made\n"
        assert drops == 0


async def pump(source: SocketStream, sink: SocketStream) -> None:
    """Copy one direction of a stream."""
    try:
        async for data in source:
            await sink.send(data)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass


async def test_handshakes_are_bounded() -> None:
    """At most eight handshakes with one host are in progress, however many callers there are."""
    inside = most = 0

    async def stay_silent(stream: SocketStream) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        try:
            async for _ in stream:
                pass
        finally:
            inside -= 1

    async with listening(stay_silent) as port:
        info = ConnectInfo("i-1", "ssh", "127.0.0.1", port=port, username="ada", timeout=SHORT)
        connector = SSHConnector()

        async def connect() -> None:
            with pytest.raises(Unreachable):
                await connector.connect(info)

        async with anyio.create_task_group() as group:
            for _ in range(30):
                group.start_soon(connect)
    assert most == 8


async def test_fifty_connections_at_once(start_sshd: Callable[..., ConnectInfo]) -> None:
    """OpenSSH with its default limits accepts fifty connections that are requested at once."""
    info, connector = start_sshd(), SSHConnector()
    done: list[bytes] = []

    async def use() -> None:
        async with await connector.connect(info) as connection:
            done.append((await connection.run("echo x")).stdout)

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(use)
    assert done == [b"x\n"] * 50


async def test_cancelled_connects_leave_nothing(serve: Callable[..., Any]) -> None:
    """Whenever a connect is cancelled, the server has no connection left."""
    async with serve() as server:
        connector = SSHConnector()
        for turns in range(0, 120, 3):
            async with anyio.create_task_group() as group:
                group.start_soon(connector.connect, server.info)
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()
            # A connection that was made before the cancellation has been dropped by this test.
        assert connector._handshakes._hosts == {}


async def test_the_users_own_ssh_is_not_used(
    serve: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: Keys
) -> None:
    """The agent, and keys, known hosts and configuration in the home directory, are not used."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "id_ed25519").write_text(keys.private)
    (home / ".ssh" / "id_ed25519").chmod(0o600)
    (home / ".ssh" / "config").write_text("Host *\n  Port 1\n  User eve\n")
    (home / ".ssh" / "known_hosts").write_text(f"* {keys.public(keys.other_host)}\n")
    monkeypatch.setenv("HOME", str(home))
    asked = anyio.Event()

    async def agent(stream: SocketStream) -> None:
        asked.set()
        await stream.aclose()

    path = str(tmp_path / "agent")
    monkeypatch.setenv("SSH_AUTH_SOCK", path)
    async with serve() as server, await anyio.create_unix_listener(path) as listener:
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, agent)
            async with await SSHConnector().connect(server.info) as connection:
                assert connection.is_open
            with pytest.raises(AuthenticationFailed):
                await SSHConnector().connect(replace(server.info, private_key=None))
            group.cancel_scope.cancel()
    assert not asked.is_set()


async def test_a_dead_peer_is_noticed(serve: Callable[..., Any]) -> None:
    """A connection that no longer delivers anything is lost after a few keepalives."""
    cut = False

    async with serve() as server:

        async def pass_on(stream: SocketStream) -> None:
            target = await anyio.connect_tcp("127.0.0.1", server.info.port)
            async with stream, target, anyio.create_task_group() as group:
                group.start_soon(swallow, stream, target)
                await swallow(target, stream)
                group.cancel_scope.cancel()

        async def swallow(source: SocketStream, sink: SocketStream) -> None:
            async for data in source:
                if not cut:
                    await sink.send(data)

        async with listening(pass_on) as port:
            info = replace(server.info, port=port, keepalive=timedelta(milliseconds=50))
            async with await SSHConnector().connect(info) as connection:
                cut = True
                with pytest.raises(ConnectionLost, match="keepalive"), anyio.fail_after(10):
                    await connection.run("true")


def test_trio_is_refused() -> None:
    """On another event loop than asyncio's, the error says which one is needed."""
    info = ConnectInfo("i-1", "ssh", "127.0.0.1", username="ada")
    with pytest.raises(NotSupported, match="asyncio"):
        anyio.run(SSHConnector().connect, info, backend="trio")


def test_loading_the_connector_is_cheap() -> None:
    """Finding the connector does not import asyncssh."""
    script = (
        "import sys, fleeting._registry as r; r.Registry().connector('ssh'); "
        "sys.exit('asyncssh' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def _foreign_errors(base: type[Exception]) -> Iterator[type[Exception]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _foreign_errors(kind)


EXPECTED: dict[str, type[ConnectorError]] = {
    "PermissionDenied": AuthenticationFailed,
    "IllegalUserName": AuthenticationFailed,
    "HostKeyNotVerifiable": HostKeyMismatch,
    "KeyExchangeFailed": NotSupported,
    "ProtocolNotSupported": NotSupported,
    "ServiceNotAvailable": NotSupported,
    "ChannelOpenError": Unreachable,
    "SFTPNoConnection": ConnectionLost,
    "SFTPConnectionLost": ConnectionLost,
}


@pytest.mark.parametrize("kind", [asyncssh.Error, *_foreign_errors(asyncssh.Error)])
def test_every_foreign_error_is_translated(kind: type[asyncssh.Error]) -> None:
    """Every exception of asyncssh is translated, and keeps its meaning."""
    error = kind.__new__(kind)
    Exception.__init__(error, "the reason")
    assert isinstance(error, FOREIGN)
    ours = translate(error, "it failed")
    fallback = TransferFailed if issubclass(kind, asyncssh.SFTPError) else ConnectionLost
    assert type(ours) is EXPECTED.get(kind.__name__, fallback)
    assert str(ours).startswith("it failed: ")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("/bin/false", "ended with exit code 1 and wrote nothing"),
        ("/bin/true", "ended with exit code 0 and wrote nothing"),
        ("echo 'Use the portal.'", "and wrote: Use the portal."),
        ('echo "$SSH_ORIGINAL_COMMAND"', "and wrote: echo ready-"),
    ],
)
async def test_a_login_that_runs_no_command_is_unreachable(
    start_sshd: Callable[..., ConnectInfo], command: str, expected: str
) -> None:
    """A host that accepts the login and runs nothing is not reached, and the reason says why."""
    info = replace(start_sshd(f"ForceCommand {command}"), timeout=timedelta(seconds=2))
    with pytest.raises(Unreachable, match="accepts the login, but runs no command") as caught:
        await SSHConnector().connect(info)
    assert expected in str(caught.value)


async def test_noise_of_a_start_up_file_is_not_in_the_way(
    start_sshd: Callable[..., ConnectInfo],
) -> None:
    """A host that prints something before it runs the command is reached."""
    info = start_sshd('ForceCommand echo hello; eval "$SSH_ORIGINAL_COMMAND"')
    async with await SSHConnector().connect(info) as connection:
        assert (await connection.run("echo x")).stdout == b"hello\nx\n"
