"""SSH servers that do not keep the rules, to try connectors and the job runner with.

The classes are SFTP servers for `asyncssh.listen(sftp_factory=...)`.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import asyncssh
from asyncssh.constants import FILEXFER_TYPE_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Any


EVIL_TEXT = "\x1b[2J\x1b]0;owned\x07\r\nerror: forged \x9b1A" + "x" * 100_000


class EvilErrors(asyncssh.SFTPServer):
    """Answers with an error whose text clears the screen, forges a line and is long."""

    def stat(self, path: bytes) -> asyncssh.SFTPAttrs:
        """Fail."""
        del path
        raise asyncssh.SFTPFailure(EVIL_TEXT)


class EndlessListing(asyncssh.SFTPServer):
    """Lists a directory without end; each entry is a directory with the same contents."""

    async def scandir(self, path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
        """List."""
        del path
        attributes = asyncssh.SFTPAttrs(type=FILEXFER_TYPE_DIRECTORY, permissions=0o40755)
        for number in itertools.count():
            yield asyncssh.SFTPName(f"{number}-{'x' * 200}".encode(), attrs=attributes)


class EndlessDepth(asyncssh.SFTPServer):
    """Has one directory in each directory, without end."""

    async def scandir(self, path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
        """List."""
        del path
        attributes = asyncssh.SFTPAttrs(type=FILEXFER_TYPE_DIRECTORY, permissions=0o40755)
        yield asyncssh.SFTPName(b"d" * 20, attrs=attributes)

    def stat(self, path: bytes) -> asyncssh.SFTPAttrs:
        """Say that it is a directory."""
        del path
        return asyncssh.SFTPAttrs(type=FILEXFER_TYPE_DIRECTORY, permissions=0o40755)


class EndlessFile(asyncssh.SFTPServer):
    """Sends a file without end, whatever size it announces."""

    def read(self, file_obj: object, offset: int, size: int) -> bytes:
        """Send as much as is asked for."""
        del file_obj, offset
        return bytes(size)


class HeldFiles:
    """A server that holds the answers to one kind of request back, until it is released.

    Attributes:
        asked: set once an answer is being held back.
        released: set it to send the answers.
    """

    def __init__(self, request: str) -> None:
        self.asked = asyncio.Event()
        self.released = asyncio.Event()
        self._request = request

    def __call__(self, channel: asyncssh.SSHServerChannel[bytes]) -> asyncssh.SFTPServer:
        """Return the server of one connection."""
        server = asyncssh.SFTPServer(channel)
        answer: Any = getattr(server, self._request)

        async def hold(*arguments: object) -> object:
            self.asked.set()
            await self.released.wait()
            return answer(*arguments)

        setattr(server, self._request, hold)
        return server
