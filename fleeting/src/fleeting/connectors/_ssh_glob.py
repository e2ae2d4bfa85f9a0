"""Matches paths on an instance by the rules of a shell.

`*`, `?` and `[...]` match within one name, and match a leading dot only if the
pattern has one too. `**` as a whole name matches any number of directories, also
none. At the end of a pattern it matches everything below. It does not follow links.
"""

from __future__ import annotations

import os
import posixpath
from contextlib import aclosing
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, cast

import asyncssh
from asyncssh.constants import FILEXFER_TYPE_DIRECTORY, FILEXFER_TYPE_REGULAR

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from fleeting._copy_budget import CopyBudget

_NOTHING_THERE = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath, asyncssh.SFTPNotADirectory)


async def matches(client: asyncssh.SFTPClient, pattern: str, budget: CopyBudget) -> set[str]:
    """Return the paths that match; they are relative if the pattern is.

    Raises:
        TransferFailed: the instance reports more than the budget allows.
    """
    names = tuple(name for name in pattern.split("/") if name)
    start = "/" if pattern.startswith("/") else ""
    found: set[str] = set()
    # Not recursive: the instance decides how deep its directories are.
    waiting = [(start, names)] if names else []
    while waiting:
        folder, (name, *rest) = waiting.pop()
        if name == "**" or _is_pattern(name):
            waiting += await _match_entries(client, folder, (name, *rest), found, budget)
        elif rest:
            waiting.append((posixpath.join(folder, name), tuple(rest)))
        elif await _exists(client, path := posixpath.join(folder, name)):
            found.add(path)
    return found


async def _match_entries(
    client: asyncssh.SFTPClient,
    folder: str,
    names: tuple[str, ...],
    found: set[str],
    budget: CopyBudget,
) -> list[tuple[str, tuple[str, ...]]]:
    """Match the entries of a folder with the first name; return where to go on with the rest."""
    name, rest = names[0], names[1:]
    deep = name == "**"
    following = [(folder, rest)] if deep and rest else []
    for entry, kind in await _list(client, folder, budget):
        if not _matches(entry, "*" if deep else name):
            continue
        path = posixpath.join(folder, entry)
        if not rest:
            found.add(path)
        elif not deep and kind != FILEXFER_TYPE_REGULAR:
            following.append((path, rest))
        if deep and kind == FILEXFER_TYPE_DIRECTORY:
            following.append((path, names))
    return following


async def entries_of(
    client: asyncssh.SFTPClient, folder: str, budget: CopyBudget
) -> list[asyncssh.SFTPName]:
    """Return the entries of a folder, with "." and "..".

    Raises:
        SFTPError: it cannot be read.
        TransferFailed: the instance reports more than the budget allows.
    """
    entries: list[asyncssh.SFTPName] = []
    # asyncssh annotates it as an iterator, which cannot be closed.
    scan = cast("AsyncGenerator[asyncssh.SFTPName]", client.scandir(folder or "."))
    async with aclosing(scan) as listing:
        async for entry in listing:
            budget.charge_path(posixpath.join(folder, os.fsdecode(entry.filename)))
            entry.longname = ""  # It takes memory for nothing.
            entries.append(entry)
    return entries


async def _list(
    client: asyncssh.SFTPClient, folder: str, budget: CopyBudget
) -> list[tuple[str, int]]:
    """Return the names in a folder and the types of the entries; none if it is not a folder."""
    try:
        entries = await entries_of(client, folder, budget)
    except _NOTHING_THERE:
        return []
    except asyncssh.SFTPFailure:
        # OpenSSH answers this when a file is read as a directory.
        if await client.isdir(folder):
            raise
        return []
    named = [(os.fsdecode(entry.filename), entry.attrs.type) for entry in entries]
    return [(name, kind) for name, kind in named if name not in (".", "..")]


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
