"""One attempt to connect and log in, with what we were given and nothing else.

Left to itself, asyncssh uses what it finds in the home of whoever runs this:
the agent, keys, known hosts, configuration. All of that is turned off here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncssh
from asyncssh.public_key import get_default_public_key_algs

from fleeting.connectors._ssh_connection import SSHConnection
from fleeting.connectors._ssh_errors import FOREIGN, cause, translate
from fleeting.connectors._ssh_watcher import Watcher
from fleeting.errors import AuthenticationFailed, HostKeyMismatch, NotSupported

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fleeting.types import ConnectInfo

KEEPALIVE_SECONDS = 15.0
KEEPALIVE_MISSED = 3


async def log_in(
    info: ConnectInfo, where: str, port: int, host_keys: Sequence[str]
) -> tuple[SSHConnection, str]:
    """Make a connection, once.

    Args:
        info: what to connect to, and as whom.
        where: the same for messages.
        port: to dial.
        host_keys: of which the host must show one; if there are none, any will do.

    Returns:
        The connection, and the key that the host has shown, in OpenSSH format.

    Raises:
        ConnectorError: of any kind; `Unreachable` and `ConnectionLost` are worth another try.
    """
    watcher = Watcher(where, [_public_key(text, where) for text in host_keys])
    try:
        connection = await asyncssh.connect(
            info.address,
            port,
            client_factory=lambda: watcher,
            username=info.username,
            password=info.password,
            client_keys=_private_keys(info, where),
            # Empty, but not absent: the decision is the watcher's.
            known_hosts=([], [], []),
            server_host_key_algs=_key_algorithms(watcher.expected),
            encryption_algs="^aes128-gcm@openssh.com",
            compression_algs=None,
            keepalive_interval=(
                KEEPALIVE_SECONDS if info.keepalive is None else info.keepalive.total_seconds()
            ),
            keepalive_count_max=KEEPALIVE_MISSED,
            # The caller has a deadline.
            login_timeout=0,
            agent_path=None,
            config=None,
            gss_host=None,
            gss_kex=False,
            gss_auth=False,
            host_based_auth=False,
            x509_trusted_certs=None,
            x509_trusted_cert_paths=[],
        )
    except asyncssh.HostKeyNotVerifiable as error:
        raise _mismatch(watcher) from error
    except (*FOREIGN, ValueError) as error:
        raise translate(error, f"no connection to {where}") from error
    shown = _public_text(watcher.shown)
    logged_in = SSHConnection(connection, watcher)
    logged_in.host_keys = (shown,)
    return logged_in, shown


def _public_text(key: asyncssh.SSHKey | None) -> str:
    """Return a key in OpenSSH format, without a comment."""
    if key is None:
        raise HostKeyMismatch("the server was accepted without showing a host key")
    return " ".join(key.export_public_key("openssh").decode().split()[:2])


def _mismatch(watcher: Watcher) -> HostKeyMismatch:
    expected = " or ".join(key.get_fingerprint() for key in watcher.expected)
    shown = watcher.shown.get_fingerprint() if watcher.shown else "none that can be read"
    return HostKeyMismatch(
        f"{watcher.where} shows the host key {shown} and must show {expected}: it is another "
        "machine, or somebody is in between; if it was rebuilt on purpose, forget its old key"
    )


def _key_algorithms(expected: Sequence[asyncssh.SSHKey]) -> list[str]:
    """Return what to ask for: first the kinds of the expected keys, then all others.

    The others only serve to see which key the host shows instead. Certificates
    are not asked for, since nobody tells us whose to trust.
    """
    wanted = [algorithm for key in expected for algorithm in key.sig_algorithms]
    every = dict.fromkeys([*wanted, *get_default_public_key_algs()])
    return [algorithm.decode("ascii") for algorithm in every]


def _public_key(text: str, where: str) -> asyncssh.SSHKey:
    try:
        return asyncssh.import_public_key(text)
    except asyncssh.KeyImportError as error:
        raise NotSupported(f"a host key given for {where} is no public key: {error}") from error


def _private_keys(info: ConnectInfo, where: str) -> list[asyncssh.SSHKey] | None:
    if not info.private_key:
        return None
    try:
        return [asyncssh.import_private_key(info.private_key)]
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise AuthenticationFailed(
            f"the private key for {where} cannot be used: {cause(error)}"
        ) from error
