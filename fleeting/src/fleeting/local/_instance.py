"""One instance inside the server: its keys and its SSH server, from boot to removal."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncssh
from typing_extensions import override

from fleeting.local._reaper_client import ReaperClient
from fleeting.local._session import InstanceSession, explain
from fleeting.types import State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fleeting.local._reaper_client import MessageWriter

__all__ = ("InstanceSettings", "LocalInstance")

ADDRESS = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class InstanceSettings:
    """The settings that a manager sends with a request for instances.

    Attributes:
        max_size: the maximum number of instances.
        boot_delay_seconds: how long each takes to boot.
        fail_rate: the probability that one does not boot.
        shell: the program that runs commands.
    """

    max_size: int
    boot_delay_seconds: float
    fail_rate: float
    shell: str


class LocalInstance:
    """An instance of the group.

    Attributes:
        id: its name.
        state: as a listing reports it.
        reason: why it failed; None if it did not.
        port: the port of its SSH server; 0 until that listens.
        username: the only user that the SSH server accepts.
        private_key: the only key that it accepts, in OpenSSH format.
        public_key: the public half of that key.
        host_key: the public key that the SSH server shows, in OpenSSH format.
    """

    def __init__(
        self,
        id: str,
        folder: str,
        username: str,
        environment: Mapping[str, str],
        settings: InstanceSettings,
    ) -> None:
        self.id = id
        self.state = State.CREATING
        self.reason: str | None = None
        self.port = 0
        self.username = username
        self.home = f"{folder}/home"
        self.connections: set[asyncssh.SSHServerConnection] = set()
        client_key = _new_key()
        self.private_key = client_key.export_private_key("openssh").decode()
        self.public_key = client_key.convert_to_public()
        self._host_key = _new_key()
        self.host_key = self._host_key.export_public_key("openssh").decode().strip()
        self._folder = folder
        self._environment = dict(environment) | {
            "HOME": self.home,
            "TMPDIR": f"{folder}/tmp",  # noqa: S108 - it is private
            "USER": username,
            "LOGNAME": username,
            "SHELL": settings.shell,
        }
        self._settings = settings
        self._reaper: ReaperClient | None = None
        self._listener: asyncssh.SSHAcceptor | None = None

    async def live(self, supervisor: MessageWriter) -> None:
        """Boot and serve; when cancelled, end its processes and delete its directory."""
        try:
            reaper = await self._boot(supervisor)
            await asyncio.shield(reaper.ended)
            self._fail("its processes were killed by another process")
        except OSError as error:
            self._fail(f"it did not boot: {explain(error)}")
        finally:
            self._close()
            if self._reaper is not None:
                self._reaper.end()
                await self._reaper.ended

    def open_session(self) -> InstanceSession:
        """Return the handler of a new session channel."""
        assert self._reaper is not None, "the SSH server starts after the reaper"  # noqa: S101 - for the type checkers
        return InstanceSession(self._reaper, self._settings.shell, self.home)

    async def _boot(self, supervisor: MessageWriter) -> ReaperClient:
        await asyncio.sleep(self._settings.boot_delay_seconds)
        if random.random() < self._settings.fail_rate:  # noqa: S311 - not for secrets
            raise OSError("fail_rate chose it to fail")
        self._reaper = ReaperClient(supervisor, self._folder, self._environment)
        await asyncio.shield(self._reaper.ready)
        self._listener = await asyncssh.listen(
            ADDRESS,
            0,
            config=None,
            server_factory=lambda: InstanceServer(self),
            server_host_keys=[self._host_key],
            encoding=None,
            line_editor=False,
            agent_forwarding=False,
            compression_algs=None,
            gss_host=None,
            password_auth=False,
            kbdint_auth=False,
            host_based_auth=False,
        )
        self.port = self._listener.get_port()
        self.state = State.RUNNING
        return self._reaper

    def _fail(self, reason: str) -> None:
        self.state = State.FAILED
        self.reason = reason

    def _close(self) -> None:
        """Stop listening, and close all connections."""
        if self._listener is not None:
            self._listener.close()
        for connection in list(self.connections):
            connection.abort()


def _new_key() -> asyncssh.SSHKey:
    return asyncssh.generate_private_key("ssh-ed25519")  # pyright: ignore[reportUnknownMemberType] - an unused option has no type


class InstanceServer(asyncssh.SSHServer):
    """One connection to an instance: accepts one user with one key."""

    _connection: asyncssh.SSHServerConnection

    def __init__(self, instance: LocalInstance) -> None:
        self._instance = instance

    @override
    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._instance.connections.add(conn)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._instance.connections.discard(self._connection)

    @override
    def begin_auth(self, username: str) -> bool:
        return True

    @override
    def public_key_auth_supported(self) -> bool:
        return True

    @override
    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        instance = self._instance
        return username == instance.username and key == instance.public_key

    @override
    def session_requested(self) -> InstanceSession:
        return self._instance.open_session()

    @override
    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> bool:
        return True

    @override
    def unix_connection_requested(self, dest_path: str) -> bool:
        return True
