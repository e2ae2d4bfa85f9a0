"""One attempt to connect and log in, with the given credentials and nothing else.

By default, asyncssh uses what it finds in the home directory of the current user:
the agent, keys, known hosts and configuration. All of that is disabled here.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import asyncssh
from asyncssh.public_key import get_default_public_key_algs

from fleeting._local_user import allow_nameless_user
from fleeting.connectors._ssh_connection import SSHConnection
from fleeting.connectors._ssh_errors import FOREIGN, cause, translate
from fleeting.connectors._ssh_peer import SSHPeer
from fleeting.errors import AuthenticationFailed, HostKeyMismatch, NotSupported

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fleeting.connectors._ssh_way import Way
    from fleeting.types import ConnectInfo

# At INFO, asyncssh logs each command and each file. An application that wants to see that sets the
# level of this logger itself.
_LOGGER = logging.getLogger("asyncssh")
if _LOGGER.level == logging.NOTSET:
    _LOGGER.setLevel(logging.WARNING)

# The ciphers: this one first, because it is the fastest, then asyncssh's defaults.
CIPHERS = "^aes128-gcm@openssh.com"
# How often an idle connection is tested by default, and after how many unanswered tests it is
# considered lost.
KEEPALIVE_SECONDS = 15.0
KEEPALIVE_MISSED = 3


async def log_in(
    info: ConnectInfo, where: str, port: int, host_keys: Sequence[str], way: Way | None = None
) -> tuple[SSHConnection, str]:
    """Make a connection, in one attempt.

    Args:
        info: the instance, and the user to log in as.
        where: the instance and its address, for messages.
        port: the port to connect to.
        host_keys: the host must show one of them; if empty, any key is accepted.
        way: how the host is reached; it ends with the connection. None if directly.

    Returns:
        The connection, and the key that the host has shown, in OpenSSH format.

    Raises:
        ConnectorError: of any kind; after `Unreachable` and `ConnectionLost` it makes sense to
            try again.
    """
    allow_nameless_user()
    peer = SSHPeer(where, [_public_key(text, where) for text in host_keys], way)
    try:
        connection = await asyncssh.connect(
            info.address,
            port,
            **({} if way is None else way.options),
            client_factory=lambda: peer,
            username=info.username,
            password=info.password,
            client_keys=_private_keys(info, where),
            # Empty, but not absent: `SSHPeer` decides.
            known_hosts=([], [], []),
            server_host_key_algs=_key_algorithms(peer.expected),
            encryption_algs=CIPHERS,
            compression_algs=None,
            keepalive_interval=(
                KEEPALIVE_SECONDS if info.keepalive is None else info.keepalive.total_seconds()
            ),
            keepalive_count_max=KEEPALIVE_MISSED,
            # The caller sets the deadline.
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
        raise _mismatch(peer) from error
    except (*FOREIGN, ValueError) as error:
        raise translate(error, f"could not connect to {where}") from error
    shown = _public_text(peer.shown)
    logged_in = SSHConnection(connection, peer)
    logged_in.host_keys = (shown,)
    return logged_in, shown


def _public_text(key: asyncssh.SSHKey | None) -> str:
    """Return a key in OpenSSH format, without a comment."""
    if key is None:
        raise HostKeyMismatch("the server was accepted without showing a host key")
    return " ".join(key.export_public_key("openssh").decode().split()[:2])


def _mismatch(peer: SSHPeer) -> HostKeyMismatch:
    expected = " or ".join(key.get_fingerprint() for key in peer.expected)
    shown = peer.shown.get_fingerprint() if peer.shown else "in no readable format"
    return HostKeyMismatch(
        f"{peer.where} showed the host key {shown}, but {expected} was expected; this is another "
        "machine, or the connection is being intercepted; if the instance was rebuilt on "
        "purpose, remove its old key"
    )


def _key_algorithms(expected: Sequence[asyncssh.SSHKey]) -> list[str]:
    """Return the algorithms to offer: first those of the expected keys, then all others.

    The others are offered only to learn which key the host shows instead. Certificates
    are not offered, since no authority to trust is configured.
    """
    wanted = [algorithm for key in expected for algorithm in key.sig_algorithms]
    every = dict.fromkeys([*wanted, *get_default_public_key_algs()])
    return [algorithm.decode("ascii") for algorithm in every]


def _public_key(text: str, where: str) -> asyncssh.SSHKey:
    try:
        return asyncssh.import_public_key(text)
    except asyncssh.KeyImportError as error:
        raise NotSupported(
            f"a host key configured for {where} is not a valid public key: {error}"
        ) from error


def _private_keys(info: ConnectInfo, where: str) -> list[asyncssh.SSHKey] | None:
    if not info.private_key:
        return None
    try:
        return [asyncssh.import_private_key(info.private_key)]
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise AuthenticationFailed(
            f"the private key for {where} cannot be used: {cause(error)}"
        ) from error
