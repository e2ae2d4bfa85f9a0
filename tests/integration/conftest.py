"""Real SSH servers on the loopback interface: asyncssh in this process, and OpenSSH's sshd."""

# ruff: noqa: ARG002 - methods that asyncssh calls have its arguments and meaning
from __future__ import annotations

import asyncio
import getpass
import os
import shutil
import signal
import socket
import subprocess
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import asyncssh
import pytest

from fleeting.connectors.ssh import SSHConnector
from fleeting.types import ConnectInfo
from left_servers import watch_process

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

    from fleeting.abc import Connection

    Handler = Callable[[asyncssh.SSHServerProcess[bytes]], Awaitable[None]]

SSHD = shutil.which("sshd") or shutil.which("/usr/sbin/sshd")
SFTP = "Subsystem sftp internal-sftp\n"
TIMEOUT = timedelta(seconds=30)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Run on asyncio, which asyncssh needs."""
    return "asyncio"


@dataclass(frozen=True)
class Keys:
    """A client's key, and several host keys."""

    client: asyncssh.SSHKey
    host: asyncssh.SSHKey
    other_host: asyncssh.SSHKey
    rsa_host: asyncssh.SSHKey

    @property
    def private(self) -> str:
        """Return the client's private key in the format of a provider."""
        return self.client.export_private_key("openssh").decode()

    @staticmethod
    def public(key: asyncssh.SSHKey) -> str:
        """Return a public key in OpenSSH format."""
        return key.export_public_key("openssh").decode().strip()


@pytest.fixture(scope="session")
def keys() -> Keys:
    """Generate the keys, once for all tests."""
    generate = cast(
        "Callable[[str], asyncssh.SSHKey]",
        asyncssh.generate_private_key,  # pyright: ignore[reportUnknownMemberType] - half typed
    )
    kinds = ("ssh-ed25519", "ssh-ed25519", "ssh-ed25519", "ssh-rsa")
    return Keys(*(generate(kind) for kind in kinds))


async def _pump(source: Any, sink: Any, *, close: bool) -> None:
    with suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    if close:
        sink.close()


async def run_in_shell(process: asyncssh.SSHServerProcess[bytes]) -> None:
    """Run the command as an SSH server does: in a shell with a process group of its own."""
    early: list[str] = []
    # asyncssh would deliver signals only to a reader of the input, which there may not be.
    vars(process)["signal_received"] = early.append
    child = await asyncio.create_subprocess_exec(
        "/bin/sh",
        "-c",
        process.command or "",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )

    def forward(name: str) -> None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.Signals[f"SIG{name}"])

    vars(process)["signal_received"] = forward
    for name in early:
        forward(name)

    async def end_with_the_channel() -> None:
        await process.wait_closed()
        forward("KILL")

    others = [
        asyncio.ensure_future(_pump(process.stdin, child.stdin, close=True)),
        asyncio.ensure_future(end_with_the_channel()),
    ]
    try:
        await asyncio.gather(
            _pump(child.stdout, process.stdout, close=False),
            _pump(child.stderr, process.stderr, close=False),
        )
        status = await child.wait()
    finally:
        for other in others:
            other.cancel()
        forward("KILL")
        vars(child)["_transport"].close()  # asyncio has no other way to close the pipes
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

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> bool:
        return True

    def unix_connection_requested(self, dest_path: str) -> bool:
        return True


@dataclass
class Server:
    """An asyncssh server in this process, and the state of its connections."""

    info: ConnectInfo
    connections: list[asyncssh.SSHServerConnection] = field(
        default_factory=list[asyncssh.SSHServerConnection]
    )
    accepted: int = 0
    handling: int = 0

    def drop(self) -> None:
        """Break all connections abruptly."""
        for connection in list(self.connections):
            connection.abort()

    @property
    def channels(self) -> int:
        """Return the number of open channels."""
        return sum(len(vars(connection)["_channels"]) for connection in self.connections)

    async def idle(self, *, connections: int) -> None:
        """Wait until no command runs, no channel is open, and this many connections are."""
        async with asyncio.timeout(10):
            while self.channels or self.handling or len(self.connections) != connections:
                await asyncio.sleep(0.01)


@pytest.fixture
def serve(keys: Keys) -> Callable[..., Any]:
    """Return a function that runs an asyncssh server during a `with` block."""

    @asynccontextmanager
    async def serving(
        handler: Handler = run_in_shell,
        *,
        host_key: asyncssh.SSHKey = keys.host,
        port: int = 0,
        **options: Any,
    ) -> AsyncGenerator[Server]:
        info = ConnectInfo(
            "i-1",
            "ssh",
            "127.0.0.1",
            username="ada",
            private_key=keys.private,
            host_keys=(keys.public(host_key),),
            timeout=TIMEOUT,
        )
        server = Server(info)

        async def handling(process: asyncssh.SSHServerProcess[bytes]) -> None:
            server.handling += 1
            try:
                await handler(process)
            finally:
                server.handling -= 1

        acceptor = await asyncssh.listen(
            "127.0.0.1",
            port,
            server_factory=lambda: _Watched(server),
            server_host_keys=[host_key],
            authorized_client_keys=asyncssh.import_authorized_keys(keys.public(keys.client)),
            process_factory=handling,
            encoding=None,
            **{"sftp_factory": True, **options},
        )
        server.info = replace(server.info, port=acceptor.get_port())
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
    """Return a function that starts OpenSSH's server as the current user, until the tests end."""
    if SSHD is None:
        pytest.skip("sshd is not installed (package openssh-server)")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # required when root runs it
    started: list[subprocess.Popen[bytes]] = []

    def start(*lines: str) -> ConnectInfo:
        folder = tmp_path_factory.mktemp("sshd")
        key = folder / "host_key"
        key.touch(0o600)
        key.write_bytes(keys.host.export_private_key("openssh"))
        authorized = folder / "authorized_keys"
        authorized.write_text(keys.public(keys.client) + "\n")
        port = free_port()
        config = folder / "config"
        config.write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {key}\nPidFile none\n"
            f"AuthorizedKeysFile {authorized}\nStrictModes no\n"
            + ("" if any(line.startswith("Subsystem") for line in lines) else SFTP)
            # So that bash does not consider this a login and run the user's start-up file.
            + "PermitRootLogin yes\nSetEnv SHLVL=9\n"
            + "".join(f"{line}\n" for line in lines)
        )
        log = (folder / "log").open("wb")
        with log:
            process = subprocess.Popen([str(SSHD), "-D", "-e", "-f", str(config)], stderr=log)
        started.append(process)
        watch_process(process.pid, str(config))
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


def free_port() -> int:
    """Return a port that is free now."""
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
    """Connect to a server of each kind."""
    if request.param == "openssh":
        info: ConnectInfo = request.getfixturevalue("sshd")
        async with await SSHConnector().connect(info) as connected:
            yield connected
        return
    async with serve() as server, await SSHConnector().connect(server.info) as connected:
        yield connected
