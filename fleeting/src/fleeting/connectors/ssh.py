"""The SSH connector.

Connecting. A booting host refuses or resets connections or does not answer, and a
busy one drops them before the login. All of these are tried again, after growing and
jittered pauses, until the time is up. Refused credentials and a wrong host key are
not tried again.

Host keys. If the provider knows an instance's keys, the instance must show one of
them. Otherwise the connector pins the key of the first complete login, for the same
incarnation of the same instance at the same address.

Proof. A login says little: an expired password, a login shell such as `/bin/false` or a
host that still boots accept it and run nothing. So a connection is made when a command
has run and answered, which takes one more round trip.

Modules:

* this module: time limits, pauses, retries, the number of concurrent handshakes
* `_ssh_login`: ciphers, keepalive, credentials, host keys
* `_ssh_way`: other servers, or a program, on the way to the instance
* `_ssh_proof`: whether a command runs and answers
* `_ssh_connection`: sessions, channels, the end of a connection
* `_ssh_bootstrap`, `_ssh_process`: how a command starts and ends
* `_ssh_files`, `_ssh_glob`: copies and patterns
* `_ssh_errors`: which exception of asyncssh becomes which of ours

asyncssh is imported by the first `connect`, in a thread, and not by this module.
"""

from __future__ import annotations

import asyncio
import importlib
import random
import sys
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import anyio
import anyio.to_thread
from typing_extensions import override

from fleeting.abc import Connector
from fleeting.connectors._handshakes import Handshakes
from fleeting.connectors._pins import Pins
from fleeting.errors import ConnectionLost, HostKeyMismatch, NotSupported, Unreachable
from fleeting.plugin import hookimpl
from fleeting.types import ConnectInfo

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from fleeting.abc import Connection
    from fleeting.connectors._ssh_connection import SSHConnection
    from fleeting.connectors._ssh_way import Way
    from fleeting.errors import ConnectorError
    from fleeting.types import Jump

__all__ = ("SSHConnector", "fleeting_connector")

DEFAULT_PORT = 22
HIGHEST_PORT = 65535
# The total time for making a connection, if `ConnectInfo.timeout` does not set one.
CONNECT_SECONDS = 60.0
# The limit of one attempt. It is shorter, so that a packet that a booting host lost does not use
# up the total time.
ATTEMPT_SECONDS = 15.0
# OpenSSH starts to drop connections when ten have not logged in yet.
HANDSHAKES_AT_ONCE = 8
# The maximum number of pinned host keys; each takes a few hundred bytes.
PINS = 20_000
# The pauses between attempts.
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0

_LOGIN = "fleeting.connectors._ssh_login"


class SSHConnector(Connector):
    """Connects with SSH; the module's docstring describes host keys and retries."""

    protocol: ClassVar[str] = "ssh"

    def __init__(self) -> None:
        self._handshakes = Handshakes(HANDSHAKES_AT_ONCE)
        self._pins = Pins(PINS)

    @override
    async def connect(self, info: ConnectInfo) -> Connection:
        _require_asyncio()
        info = _unbracketed(info)
        port = _port(info)
        where = f"instance {info.id} at {_authority(info.address, port)}"
        seconds = CONNECT_SECONDS if info.timeout is None else info.timeout.total_seconds()
        attempts = 0
        failure: ConnectorError = Unreachable(
            "no attempt has ended: it does not answer, or too many other connections are being "
            "made to it"
        )
        if _LOGIN not in sys.modules:
            await anyio.to_thread.run_sync(importlib.import_module, _LOGIN)
        with anyio.move_on_after(seconds):
            for pause in _pauses():
                attempts += 1
                try:
                    return await self._attempt(info, where, port)
                except (Unreachable, ConnectionLost) as error:
                    failure = error
                await anyio.sleep(pause)
        raise Unreachable(
            f"{where} could not be reached within {seconds:g} s "
            f"({attempts} {'attempt' if attempts == 1 else 'attempts'}); last error: {failure}"
        ) from failure

    async def _attempt(self, info: ConnectInfo, where: str, port: int) -> SSHConnection:
        from fleeting.connectors._ssh_proof import why_no_command_runs

        way, route = await self._open_way(info, where, port)
        connection = await self._log_in(info, where, port, way, route)
        proved = False
        try:
            with _limit("run a command", where):
                reason = await why_no_command_runs(connection)
            if reason is not None:
                raise Unreachable(f"{where} accepts the login, but runs no command: {reason}")
            proved = True
        finally:
            if not proved:
                connection.abort()
        return connection

    async def _open_way(self, info: ConnectInfo, where: str, port: int) -> tuple[Way | None, str]:
        """Return how to reach the instance, and a text that is the same for the same way."""
        from fleeting.connectors._ssh_way import JumpWay, ProxyWay, proxy_arguments

        if info.proxy_command:
            arguments = proxy_arguments(info, port)
            return await ProxyWay.start(arguments), f"{arguments} "
        way: Way | None = None
        route = ""
        for jump in info.jumps:
            hop = _hop(info, jump)
            hop_where = f"jump host {jump} on the way to {where}"
            connection = await self._log_in(hop, hop_where, _port(hop), way, route)
            way, route = JumpWay(connection.raw), f"{route}{jump} "
        return way, route

    async def _log_in(
        self, info: ConnectInfo, where: str, port: int, way: Way | None, route: str
    ) -> SSHConnection:
        """Log in to one host; if that fails, the way to it ends."""
        done = False
        try:
            connection = await self._log_in_once(info, where, port, way, route)
            done = True
        except (Unreachable, ConnectionLost) as error:
            if way is None:
                raise
            raise type(error)(f"{error}{await way.explain()}") from error
        finally:
            if way is not None and not done:
                way.abort()
        return connection

    async def _log_in_once(
        self, info: ConnectInfo, where: str, port: int, way: Way | None, route: str
    ) -> SSHConnection:
        from fleeting.connectors._ssh_login import log_in

        # Behind different hosts, the same address can be different machines.
        address = f"{route}{info.address}"
        identity = (address, port, info.id, info.incarnation)
        pinned = self._pins.find(identity)
        expected = info.host_keys or ((pinned,) if pinned else ())
        async with self._handshakes.turn(address, port):
            with _limit("answer", where):
                connection, shown = await log_in(info, where, port, expected, way)
        if not info.host_keys and not self._pins.keep(identity, shown):
            connection.abort()
            raise HostKeyMismatch(f"{where} showed different host keys in concurrent connections")
        return connection


@contextmanager
def _limit(step: str, where: str) -> Generator[None]:
    """Limit a step of an attempt. The time in which it waits for its turn does not count."""
    with anyio.move_on_after(ATTEMPT_SECONDS) as scope:
        yield
    if scope.cancelled_caught:
        raise Unreachable(f"{where} did not {step} within {ATTEMPT_SECONDS:g} s")


def _require_asyncio() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise NotSupported(
            "SSH connections need an asyncio event loop, but another one is running; "
            'use anyio.run(..., backend="asyncio")'
        ) from None


def _unbracketed(info: ConnectInfo) -> ConnectInfo:
    """Return the details with an address of IPv6 as the system takes it, without brackets."""
    address = info.address
    if not (address.startswith("[") and address.endswith("]") and ":" in address):
        return info
    bare = address[1:-1]
    return replace(info, internal_address=bare, external_address=bare)


def _authority(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _hop(info: ConnectInfo, jump: Jump) -> ConnectInfo:
    """Return how to log in to a host on the way."""
    return ConnectInfo(
        id=f"jump {jump}",
        protocol=info.protocol,
        internal_address=jump.host,
        port=jump.port,
        username=jump.username or info.username,
        private_key=jump.private_key or info.private_key,
        host_keys=jump.host_keys,
        keepalive=info.keepalive,
    )


def _port(info: ConnectInfo) -> int:
    if not info.address:
        raise NotSupported(f"instance {info.id} has no address to connect to")
    if not info.username:
        raise NotSupported(
            f"no username is known for instance {info.id}; set `username` in connector_config"
        )
    port = DEFAULT_PORT if info.port is None else info.port
    if not 0 < port <= HIGHEST_PORT:
        raise NotSupported(f"instance {info.id} has an invalid port: {port}")
    return port


def _pauses() -> Iterator[float]:
    """Yield growing pauses in seconds, jittered by half so that callers spread out."""
    pause = FIRST_PAUSE_SECONDS
    while True:
        yield pause * random.uniform(0.5, 1.5)  # noqa: S311 - not a secret
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


_CONNECTOR = SSHConnector()


@hookimpl
def fleeting_connector() -> Connector:
    """Return the one connector of this process, so that all connections share pins and limits."""
    return _CONNECTOR
