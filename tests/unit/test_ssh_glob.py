"""Matching paths on an instance that lists what it likes."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import anyio
import asyncssh
import pytest
from anyio.lowlevel import checkpoint
from asyncssh.constants import FILEXFER_TYPE_DIRECTORY

from fleeting.abc import CopyBudget
from fleeting.connectors import _ssh_glob
from fleeting.errors import TransferFailed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

FILES = 1_000_000
FOLDER = asyncssh.SFTPAttrs(type=FILEXFER_TYPE_DIRECTORY)


class Endless:
    """Lists in each folder one more, down to a depth, and the same number of entries."""

    def __init__(self, depth: int, entries: int = 1) -> None:
        self.depth = depth
        self.entries = entries

    async def scandir(self, path: str) -> AsyncGenerator[asyncssh.SFTPName]:
        """List a folder."""
        await checkpoint()
        if path.count("/") < self.depth:
            for number in range(self.entries):
                yield asyncssh.SFTPName(f"d{number}".encode(), b"", FOLDER)


def match(server: Endless, pattern: str, files: int = FILES) -> set[str]:
    """Return what matches on a server."""
    client = cast("asyncssh.SFTPClient", server)
    return anyio.run(_ssh_glob.matches, client, pattern, CopyBudget(files=files))


def test_depth_is_no_recursion() -> None:
    """Folders that are deeper than Python's recursion are found."""
    assert len(match(Endless(1200), "top/**")) == 1200


def test_folders_without_end_are_an_error() -> None:
    """A path that no server can have ends the search."""
    with pytest.raises(TransferFailed, match="paths that are too long"):
        match(Endless(1_000_000), "top/**")


def test_entries_without_end_are_an_error() -> None:
    """The number of entries is limited, however they are spread over folders."""
    with pytest.raises(TransferFailed, match="more than 1000 files"):
        match(Endless(100, 7), "top/**", files=1000)
