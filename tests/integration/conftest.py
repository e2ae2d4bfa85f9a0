"""Real SSH servers on the loopback interface: asyncssh in this process, and OpenSSH's sshd."""

from __future__ import annotations

import asyncio
import getpass
import os
import shutil
import signal
import socket
import subprocess
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncssh
import pytest

from fleeting.connectors.ssh import SSHConnector
from fleeting.types import ConnectInfo

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

    from fleeting.abc import Connection

    Handler = Callable[[asyncssh.SSHServerProcess[bytes]], Awaitable[None]]

SSHD = shutil.which("sshd") or shutil.which("/usr/sbin/sshd")
TIMEOUT = timedelta(seconds=30)


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, which asyncssh needs."""
    return "asyncio"


@dataclass(frozen=True)
class Keys:
    """A client's key, and two that a host can show."""

    client: asyncssh.SSHKey
    host: asyncssh.SSHKey
    other_host: asyncssh.SSHKey

    @property
    def private(self) -> str:
        """Return the client's private key as a provider gives it."""
        return self.client.export_private_key("openssh").decode()

    @staticmethod
    def public(key: asyncssh.SSHKey) -> str:
        """Return a public key in OpenSSH format."""
        return key.export_public_key("openssh").decode().strip()


@pytest.fixture(scope="session")
def keys() -> Keys:
    """Make keys, once for all tests."""
    return Keys(*(asyncssh.generate_private_key("ssh-ed25519") for _ in range(3)))


async def run_in_shell(process: asyncssh.SSHServerProcess[bytes]) -> None:
    """Do as an SSH server does: give the command to a shell, in a process group of its own."""
    child = await asyncio.create_subprocess_exec(
        "/bin/sh",
        "-c",
        process.command or "",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None

    def forward(name: str) -> None:
        os.killpg(child.pid, signal.Signals[f"SIG{name}"])

    # asyncssh would give signals to whoever reads the input, and nobody might.
    process.signal_received = forward  # type: ignore[method-assign]

    async def feed(source: Any, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        sink.close()

    async def drain(source: asyncio.StreamReader, sink: Any) -> None:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()

    feeding = asyncio.ensure_future(feed(process.stdin, child.stdin))
    try:
        await asyncio.gather(
            drain(child.stdout, process.stdout), drain(child.stderr, process.stderr)
        )
        status = await child.wait()
    finally:
        feeding.cancel()
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        await child.wait()
    if status < 0:
        process.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
    else:
        process.exit(status)


class _Watched(asyncssh.SSHServer):
    def __init__(self, server: Server) -> None:
        self._server = server

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._server.connections.append(conn)
        self._server.accepted += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.remove(self._connection)
        self._server.changed.set()

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> bool:
        return True

    def unix_connection_requested(self, dest_path: str) -> bool:
        return True


@dataclass
class Server:
    """An asyncssh server in this process, and what it sees."""

    info: ConnectInfo
    connections: list[asyncssh.SSHServerConnection] = field(default_factory=list)
    accepted: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def drop(self) -> None:
        """Break all connections without a word."""
        for connection in list(self.connections):
            connection.abort()

    @property
    def channels(self) -> int:
        """Return how many channels are open."""
        return sum(len(connection._channels) for connection in self.connections)

    async def idle(self, *, connections: int) -> None:
        """Wait until no channel is open, and so many connections."""
        async with asyncio.timeout(10):
            while self.channels or len(self.connections) != connections:
                await asyncio.sleep(0.01)


@pytest.fixture
def serve(keys: Keys) -> Callable[..., Any]:
    """Return what starts an asyncssh server for the length of a `with` block."""

    @asynccontextmanager
    async def serving(
        handler: Handler = run_in_shell,
        *,
        host_key: asyncssh.SSHKey = keys.host,
        port: int = 0,
        **options: Any,
    ) -> AsyncGenerator[Server]:
        info = ConnectInfo(
            "i-1", "ssh", "127.0.0.1", username="ada", private_key=keys.private, timeout=TIMEOUT
        )
        server = Server(info)
        acceptor = await asyncssh.listen(
            "127.0.0.1",
            port,
            server_factory=lambda: _Watched(server),
            server_host_keys=[host_key],
            authorized_client_keys=asyncssh.import_authorized_keys(keys.public(keys.client)),
            process_factory=handler,
            encoding=None,
            **{"sftp_factory": True, **options},
        )
        server.info = ConnectInfo(
            "i-1",
            "ssh",
            "127.0.0.1",
            port=acceptor.get_port(),
            username="ada",
            private_key=keys.private,
            host_keys=(keys.public(host_key),),
            timeout=TIMEOUT,
        )
        try:
            yield server
        finally:
            acceptor.close()
            server.drop()
            await acceptor.wait_closed()
            await server.idle(connections=0)

    return serving


@pytest.fixture(scope="session")
def start_sshd(
    keys: Keys, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Callable[..., ConnectInfo]]:
    """Return what starts OpenSSH's server as the current user; all end with the tests."""
    if SSHD is None:
        pytest.skip("sshd is not installed (package openssh-server)")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it locks itself in when root starts it
    started: list[subprocess.Popen[bytes]] = []

    def start(*lines: str) -> ConnectInfo:
        folder = tmp_path_factory.mktemp("sshd")
        key = folder / "host_key"
        key.touch(0o600)
        key.write_bytes(keys.host.export_private_key("openssh"))
        authorized = folder / "authorized_keys"
        authorized.write_text(keys.public(keys.client) + "\n")
        port = _free_port()
        config = folder / "config"
        config.write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {key}\nPidFile none\n"
            f"AuthorizedKeysFile {authorized}\nStrictModes no\nSubsystem sftp internal-sftp\n"
            "PermitRootLogin yes\n" + "".join(f"{line}\n" for line in lines)
        )
        log = (folder / "log").open("wb")
        with log:
            process = subprocess.Popen([str(SSHD), "-D", "-e", "-f", str(config)], stderr=log)
        started.append(process)
        return ConnectInfo(
            "i-2",
            "ssh",
            "127.0.0.1",
            port=port,
            username=getpass.getuser(),
            private_key=keys.private,
            host_keys=(keys.public(keys.host),),
            timeout=TIMEOUT,
        )

    yield start
    for process in started:
        process.terminate()
        process.wait(10)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def sshd(start_sshd: Callable[..., ConnectInfo]) -> ConnectInfo:
    """Return an OpenSSH server that permits many commands over one connection."""
    return start_sshd("MaxSessions 200")


@pytest.fixture(params=["asyncssh", "openssh"])
async def connection(
    request: pytest.FixtureRequest, serve: Callable[..., Any]
) -> AsyncGenerator[Connection]:
    """Connect to a server of each make."""
    if request.param == "openssh":
        info: ConnectInfo = request.getfixturevalue("sshd")
        async with await SSHConnector().connect(info) as connected:
            yield connected
        return
    async with serve() as server, await SSHConnector().connect(server.info) as connected:
        yield connected
