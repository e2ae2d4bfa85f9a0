"""The other side of an SSH connection: its host key, and why the connection was lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncssh
from typing_extensions import override

from fleeting.connectors._ssh_errors import cause
from fleeting.errors import ConnectionLost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fleeting.connectors._ssh_way import Way


class SSHPeer(asyncssh.SSHClient):
    """Accepts or rejects the host's key, and records why the connection ended.

    Attributes:
        where: the instance and its address, for messages.
        expected: the keys of which the host must show one; if empty, any key is accepted.
        shown: the key that the host showed.
        loss: why the connection is no longer usable; None while it is.
        way: how the host is reached; ends with the connection. None if directly.
    """

    def __init__(
        self, where: str, expected: Sequence[asyncssh.SSHKey], way: Way | None = None
    ) -> None:
        self.where = where
        self.shown: asyncssh.SSHKey | None = None
        self.loss: str | None = None
        self.expected = expected
        self.way = way

    @override
    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        self.shown = key
        return not self.expected or key in self.expected

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self.loss is None:
            self.loss = "the server closed it" if exc is None else cause(exc)
        if self.way is not None:
            self.way.end()

    def raise_if_lost(self) -> None:
        """Raise `ConnectionLost` if the connection is lost."""
        if self.loss is not None:
            raise ConnectionLost(f"the connection to {self.where} is lost: {self.loss}")
