"""The SSH servers of the instances of the plugins' fake clouds, called machines here.

Each machine has its own address on the loopback interface, and all have the same
port. Running commands, and ending everything that they leave behind, is the code
of the local provider.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING

import asyncssh
from typing_extensions import override

from fleeting.local._main import claim_root, start_supervisor
from fleeting.local._reaper_client import MessageWriter, ReaperClient
from fleeting.local._session import InstanceSession

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

__all__ = ("Machines", "new_key")

SHELL = "/bin/sh"
INHERITED = ("PATH", "LANG", "LANGUAGE", "LC_")


def new_key(kind: str = "ssh-ed25519") -> asyncssh.SSHKey:
    """Make a key for a machine or a user."""
    return asyncssh.generate_private_key(kind)  # pyright: ignore[reportUnknownMemberType] - an option that is not used


class Machines:
    """All running machines.

    Attributes:
        port: of every machine.
        boot_seconds: the time until a machine listens.
        authorized: decides whether a user may log in to a machine with a public key.
    """

    def __init__(self, authorized: Callable[[str, str, asyncssh.SSHKey], bool]) -> None:
        self.boot_seconds = 0.0
        self.authorized = authorized
        # Bound while the machines exist, so that no other process gets the port.
        self._reservation = socket.socket()
        self._reservation.bind(("127.77.0.0", 0))
        self.port: int = self._reservation.getsockname()[1]
        self._root = tempfile.mkdtemp(prefix="aws-machines-")
        self._supervisor: tuple[socket.socket, subprocess.Popen[bytes], MessageWriter] | None = None
        self._lives: dict[str, asyncio.Task[None]] = {}
        self._places: dict[str, socket.socket] = {}
        self._count = 0
        self._boots = 0

    def new_address(self) -> str:
        """Return an address that was not used before."""
        self._count += 1
        return f"127.77.{self._count // 250 % 250}.{self._count % 250 + 1}"

    def start(self, id: str, address: str, host_key: asyncssh.SSHKey) -> None:
        """Start a machine."""
        if self._supervisor is None:
            lock = claim_root(self._root)
            channel, process = start_supervisor(self._root, lock, temporary=True)
            os.close(lock)
            channel.setblocking(False)  # noqa: FBT003 - it has no name
            self._supervisor = channel, process, MessageWriter(channel)
        if place := self._places.pop(id, None):
            place.close()
        self._boots += 1
        folder = f"{self._root}/instances/{id}-{self._boots}"
        machine = _Machine(self, id, (address, self.port), host_key, folder)
        self._lives[id] = asyncio.create_task(machine.live(self._supervisor[2], self.boot_seconds))

    async def stop(self, id: str, *, address: str | None = None) -> None:
        """Stop a machine: close its connections, end its processes, delete its files.

        Args:
            id: of its instance.
            address: where it will be started again; None if it ends for good. A socket stays
                bound there, so that the number of this process's sockets does not depend on
                whether the machine runs: the contract counts them.
        """
        if place := self._places.pop(id, None):
            place.close()
        life = self._lives.pop(id, None)
        if life is not None:
            life.cancel()
            with suppress(asyncio.CancelledError):
                await life
            if address is not None:
                self._places[id] = socket.socket()
                self._places[id].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                self._places[id].bind((address, self.port))

    async def stop_all(self) -> None:
        """Stop all machines."""
        for id in [*self._lives, *self._places]:
            await self.stop(id)

    async def close(self) -> None:
        """Stop all machines and release their resources."""
        await self.stop_all()
        self._reservation.close()
        if self._supervisor is not None:
            channel, process, outbox = self._supervisor
            outbox.close()
            channel.close()
            await asyncio.to_thread(process.wait)
        else:
            os.rmdir(self._root)  # noqa: PTH106 - nothing waits here


class _Machine:
    def __init__(
        self,
        machines: Machines,
        id: str,
        where: tuple[str, int],
        host_key: asyncssh.SSHKey,
        folder: str,
    ) -> None:
        self.id = id
        self.machines = machines
        self.home = f"{folder}/home"
        self.connections: set[asyncssh.SSHServerConnection] = set()
        self.reaper: ReaperClient | None = None
        self._where = where
        self._host_key = host_key
        self._folder = folder

    async def live(self, supervisor: MessageWriter, boot_seconds: float) -> None:
        """Boot, and serve until cancelled."""
        await asyncio.sleep(boot_seconds)
        listener: asyncssh.SSHAcceptor | None = None
        self.reaper = ReaperClient(supervisor, self._folder, self._environment())
        try:
            await asyncio.shield(self.reaper.ready)
            listener = await asyncssh.listen(
                *self._where,
                config=None,
                server_factory=lambda: _Server(self),
                server_host_keys=[self._host_key],
                encoding=None,
                allow_pty=False,
                line_editor=False,
                agent_forwarding=False,
                compression_algs=None,
                gss_host=None,
                password_auth=False,
                kbdint_auth=False,
                host_based_auth=False,
            )
            await asyncio.shield(self.reaper.ended)
        finally:
            if listener is not None:
                listener.close()
            for connection in list(self.connections):
                connection.abort()
            self.reaper.end()
            await self.reaper.ended

    def _environment(self) -> dict[str, str]:
        user = pwd.getpwuid(os.getuid()).pw_name
        return {
            **{name: value for name, value in os.environ.items() if name.startswith(INHERITED)},
            "HOME": self.home,
            "TMPDIR": f"{self._folder}/tmp",  # noqa: S108 - it is private
            "USER": user,
            "LOGNAME": user,
            "SHELL": SHELL,
        }


class _Server(asyncssh.SSHServer):
    _connection: asyncssh.SSHServerConnection

    def __init__(self, machine: _Machine) -> None:
        self._machine = machine

    @override
    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._machine.connections.add(conn)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._machine.connections.discard(self._connection)

    @override
    def begin_auth(self, username: str) -> bool:
        return True

    @override
    def public_key_auth_supported(self) -> bool:
        return True

    @override
    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return self._machine.machines.authorized(self._machine.id, username, key)

    @override
    def session_requested(self) -> InstanceSession:
        assert self._machine.reaper is not None
        return InstanceSession(self._machine.reaper, SHELL, self._machine.home)

    @override
    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> bool:
        return True

    @override
    def unix_connection_requested(self, dest_path: str) -> bool:
        return True
