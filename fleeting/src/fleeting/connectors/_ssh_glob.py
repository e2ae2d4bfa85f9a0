"""Matches paths on an instance by the rules of a shell.

`*`, `?` and `[...]` match within one name, and match a leading dot only if the
pattern has one too. `**` as a whole name matches any number of directories, also
none. At the end of a pattern it matches everything below. It does not follow links.
"""

from __future__ import annotations

import os
import posixpath
from fnmatch import fnmatchcase
from typing import TypeAlias

import asyncssh
from asyncssh.constants import FILEXFER_TYPE_DIRECTORY, FILEXFER_TYPE_REGULAR

from fleeting.errors import TransferFailed

# The names of a pattern that are left to match, and a listing.
Names: TypeAlias = "tuple[str, ...]"
Entries: TypeAlias = "list[tuple[str, asyncssh.SFTPAttrs]]"

# No path on a server is longer than 4,096 bytes.
LONGEST_PATH = 4096
MOST_ENTRIES = 1_000_000

_NOTHING_THERE = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath, asyncssh.SFTPNotADirectory)


async def matches(client: asyncssh.SFTPClient, pattern: str) -> set[str]:
    """Return the paths that match; they are relative if the pattern is.

    Raises:
        TransferFailed: there are more entries, or deeper folders, than a server can have.
    """
    names = tuple(name for name in pattern.split("/") if name)
    found: set[str] = set()
    # A loop and not a recursion, because the instance decides how deep its folders are.
    todo = [("/" if pattern.startswith("/") else "", names)] if names else []
    seen = 0
    while todo:
        folder, rest = todo.pop()
        if len(folder) > LONGEST_PATH:
            raise TransferFailed(f"{pattern}: the instance lists folders in folders without end")
        if rest[0] == "**" or _is_pattern(rest[0]):
            entries = await _list(client, folder)
            seen += len(entries)
            if seen > MOST_ENTRIES:
                raise TransferFailed(f"{pattern}: the instance lists over {MOST_ENTRIES} entries")
            step = _at_any_depth if rest[0] == "**" else _in_folder
            step(folder, rest, entries, found, todo)
        elif rest[1:]:
            todo.append((posixpath.join(folder, rest[0]), rest[1:]))
        elif await _exists(client, path := posixpath.join(folder, rest[0])):
            found.add(path)
    return found


def _in_folder(
    folder: str, names: Names, entries: Entries, found: set[str], todo: list[tuple[str, Names]]
) -> None:
    """Match entries with the first name; add what they lead to."""
    for entry, attributes in entries:
        if not _matches(entry, names[0]):
            continue
        path = posixpath.join(folder, entry)
        if not names[1:]:
            found.add(path)
        elif attributes.type != FILEXFER_TYPE_REGULAR:
            todo.append((path, names[1:]))


def _at_any_depth(
    folder: str, names: Names, entries: Entries, found: set[str], todo: list[tuple[str, Names]]
) -> None:
    """Match entries with `**`; add what they lead to."""
    if names[1:]:
        todo.append((folder, names[1:]))
    for entry, attributes in entries:
        if not _matches(entry, "*"):
            continue
        path = posixpath.join(folder, entry)
        if not names[1:]:
            found.add(path)
        if attributes.type == FILEXFER_TYPE_DIRECTORY:
            todo.append((path, names))


async def _list(client: asyncssh.SFTPClient, folder: str) -> Entries:
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
