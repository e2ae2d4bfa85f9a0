"""Matches paths on an instance by the rules of a shell.

`*`, `?` and `[...]` match within one name, and match a leading dot only if the
pattern has one too. `**` as a whole name matches any number of directories, also
none. At the end of a pattern it matches everything below. It does not follow links.
"""

from __future__ import annotations

import os
import posixpath
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import asyncssh
from asyncssh.constants import FILEXFER_TYPE_DIRECTORY, FILEXFER_TYPE_REGULAR

if TYPE_CHECKING:
    from collections.abc import Sequence

_NOTHING_THERE = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath, asyncssh.SFTPNotADirectory)


async def matches(client: asyncssh.SFTPClient, pattern: str) -> set[str]:
    """Return the paths that match; they are relative if the pattern is."""
    names = [name for name in pattern.split("/") if name]
    start = "/" if pattern.startswith("/") else ""
    return await _below(client, start, names) if names else set()


async def _below(client: asyncssh.SFTPClient, folder: str, names: Sequence[str]) -> set[str]:
    name, rest = names[0], names[1:]
    if name == "**":
        return await _at_any_depth(client, folder, rest)
    if not _is_pattern(name):
        path = posixpath.join(folder, name)
        if rest:
            return await _below(client, path, rest)
        return {path} if await _exists(client, path) else set()
    found: set[str] = set()
    for entry, attributes in await _list(client, folder):
        if _matches(entry, name):
            path = posixpath.join(folder, entry)
            if not rest:
                found.add(path)
            elif attributes.type != FILEXFER_TYPE_REGULAR:
                found |= await _below(client, path, rest)
    return found


async def _at_any_depth(client: asyncssh.SFTPClient, folder: str, rest: Sequence[str]) -> set[str]:
    found = await _below(client, folder, rest) if rest else set[str]()
    for entry, attributes in await _list(client, folder):
        if not _matches(entry, "*"):
            continue
        path = posixpath.join(folder, entry)
        if not rest:
            found.add(path)
        if attributes.type == FILEXFER_TYPE_DIRECTORY:
            found |= await _at_any_depth(client, path, rest)
    return found


async def _list(client: asyncssh.SFTPClient, folder: str) -> list[tuple[str, asyncssh.SFTPAttrs]]:
    try:
        entries = await client.readdir(folder or ".")
    except _NOTHING_THERE:
        return []
    except asyncssh.SFTPFailure:
        # OpenSSH answers this when a file is read as a directory.
        if await client.isdir(folder):
            raise
        return []
    named = [(os.fsdecode(entry.filename), entry.attrs) for entry in entries]
    return [(name, attributes) for name, attributes in named if name not in (".", "..")]


async def _exists(client: asyncssh.SFTPClient, path: str) -> bool:
    try:
        await client.lstat(path)
    except _NOTHING_THERE:
        return False
    return True


def _is_pattern(name: str) -> bool:
    return any(character in name for character in "*?[")


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) and (pattern.startswith(".") or not name.startswith("."))
