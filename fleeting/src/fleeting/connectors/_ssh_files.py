"""Copies files and directory trees through SFTP.

Rules for trees, in both directions:

* Symbolic links inside a tree are copied as links and never followed. The
  requested path itself is followed if it is a link.
* Files, and directories that did not exist, get the permission bits of the original
  (`rwx` for user, group and others; not the set-user-id bit and the like). A file is
  never more readable than that while it is being copied.
* An existing file or link is replaced. An existing directory is merged into.
* Sockets, devices and pipes cannot be copied and are an error.

An instance can lie about its files. A name with a slash in a listing, or a link at the
destination, must not lead a copy out of the local destination directory, even if the link
arrives while the copy is under way; see `_local_folder`.
"""

from __future__ import annotations

import os
import posixpath
import stat
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, cast

import anyio
import anyio.to_thread
import asyncssh
from asyncssh.constants import FILEXFER_TYPE_DIRECTORY, FILEXFER_TYPE_REGULAR, FILEXFER_TYPE_SYMLINK

from fleeting._regular_files import open_regular
from fleeting._run import first_error
from fleeting.connectors._local_folder import LocalFolder, Place
from fleeting.connectors._ssh_errors import FOREIGN, cause
from fleeting.connectors._ssh_glob import entries_of, matches
from fleeting.errors import TransferFailed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from fleeting._copy_budget import CopyBudget
    from fleeting.connectors._ssh_peer import SSHPeer

    Copy = Callable[[], Awaitable[None]]

FILES_AT_ONCE = 16
BLOCK_BYTES = 1024 * 1024
PERMISSIONS = 0o777
# A directory has this mode until its content is complete.
PRIVATE = 0o700


class SSHFiles:
    """The files of an instance, through one SFTP client that all copies share.

    Attributes:
        usable: whether the SFTP server still answers.
    """

    def __init__(self, client: asyncssh.SFTPClient, peer: SSHPeer) -> None:
        self.usable = True
        self._client = client
        self._peer = peer

    async def answers(self) -> bool:
        """Return whether the server still answers: a command may have ended it."""
        try:
            await self._client.realpath(".")
        except FOREIGN:
            self.usable = False
        return self.usable

    async def aclose(self) -> None:
        """Close the client, and wait until the server has closed its session."""
        self._client.exit()
        await self._client.wait_closed()

    async def glob(self, pattern: str, budget: CopyBudget) -> list[str]:
        """Return the paths that match on the instance; see `Connection.glob`."""
        with self._remote(pattern):
            return sorted(await matches(self._client, pattern, budget))

    async def put(self, source: Path, destination: str) -> None:
        """Copy to the instance; see `Connection.put`."""
        with self._local(source):
            mode = (await anyio.Path(source).stat()).st_mode
        await self._make_remote_parents(destination)
        if stat.S_ISDIR(mode):
            await self._put_folder(source, destination)
        elif stat.S_ISREG(mode):
            await self._put_file(source, destination, mode)
        else:
            raise _special(source, local=True)

    async def get(
        self, source: str, destination: Path, budget: CopyBudget, *, follow: bool
    ) -> None:
        """Copy from the instance; see `Connection.get`."""
        with self._remote(source):
            attributes = await self._client.stat(source)
        if attributes.type not in (FILEXFER_TYPE_DIRECTORY, FILEXFER_TYPE_REGULAR):
            raise _special(source)
        is_folder = attributes.type == FILEXFER_TYPE_DIRECTORY
        with self._local(destination):
            if is_folder and follow:
                destination = await anyio.to_thread.run_sync(destination.resolve)
            reach = partial(LocalFolder.reach, destination.parent, follow=follow)
            parent = await anyio.to_thread.run_sync(reach)
        with parent:
            place = Place(parent, destination.parent) / destination.name
            if is_folder:
                await self._get_folder(source, place, budget)
            else:
                await self._get_file(source, place, attributes.permissions or 0, budget)

    # To the instance.

    async def _put_folder(self, source: Path, destination: str) -> None:
        made: list[tuple[str, int]] = []
        copies: list[Copy] = []
        folders = [(source, destination)]
        while folders:
            folder, target = folders.pop()
            with self._local(folder):
                mode = (await anyio.Path(folder).stat()).st_mode
                entries = await anyio.to_thread.run_sync(_entries, folder)
            if await self._make_remote_folder(target):
                made.append((target, mode))
            for path, kind in entries:
                copy = posixpath.join(target, path.name)
                if stat.S_ISDIR(kind):
                    folders.append((path, copy))
                elif stat.S_ISLNK(kind):
                    copies.append(partial(self._put_link, path, copy))
                elif stat.S_ISREG(kind):
                    copies.append(partial(self._put_file, path, copy, kind))
                else:
                    raise _special(path, local=True)
        await _in_parallel(copies)
        for target, mode in reversed(made):
            with self._remote(target):
                await self._client.chmod(target, mode & PERMISSIONS)

    async def _put_file(self, source: Path, destination: str, mode: int) -> None:
        with self._local(source):
            original = await anyio.to_thread.run_sync(_open_original, source)
        with original:
            try:
                await self._send(original, destination, mode & PERMISSIONS)
            except asyncssh.SFTPFailure as error:
                raise await self._explained(error, destination) from error

    async def _send(self, original: BinaryIO, destination: str, mode: int) -> None:
        """Write a remote file. `SFTPFailure` (the server does not say why) is raised unchanged."""
        with self._remote(destination, unless=asyncssh.SFTPFailure):
            copy = await self._open_remote(destination, mode)
            async with copy:
                offset = 0
                while block := await anyio.to_thread.run_sync(original.read, BLOCK_BYTES):
                    await copy.write(block, offset)
                    offset += len(block)
                # The server's umask removed some bits, or the file existed before.
                await copy.chmod(mode)

    async def _open_remote(self, path: str, mode: int) -> asyncssh.SFTPClientFile:
        attributes = asyncssh.SFTPAttrs(permissions=mode)
        try:
            return await self._client.open(path, "wb", attributes, encoding=None)
        except asyncssh.SFTPPermissionDenied:
            # If the file is merely read-only, it can still be replaced.
            await self._client.remove(path)
            return await self._client.open(path, "wb", attributes, encoding=None)

    async def _explained(self, error: asyncssh.SFTPFailure, path: str) -> TransferFailed:
        """Find the reason for an error that the server reports only as a failure."""
        reason = cause(error)
        with suppress(*FOREIGN):
            if await self._client.isdir(path):
                reason = "it is a directory"
            elif not (await self._client.statvfs(posixpath.dirname(path) or ".")).bavail:
                reason = "the disk is full"
        return TransferFailed(f"{path} on {self._peer.where}: {reason}")

    async def _put_link(self, source: Path, destination: str) -> None:
        with self._local(source):
            target = await anyio.Path(source).readlink()
        with self._remote(destination):
            try:
                await self._client.symlink(str(target), destination)
            except asyncssh.SFTPError:
                await self._client.remove(destination)
                await self._client.symlink(str(target), destination)

    async def _make_remote_parents(self, path: str) -> None:
        missing: list[str] = []
        parent = posixpath.dirname(path.rstrip("/"))
        while parent not in ("", "/"):
            with self._remote(parent):
                if await self._client.isdir(parent):
                    break
            missing.append(parent)
            parent = posixpath.dirname(parent.rstrip("/"))
        for parent in reversed(missing):
            with self._remote(parent):
                await self._make_remote(parent, asyncssh.SFTPAttrs())

    async def _make_remote_folder(self, path: str) -> bool:
        """Make a directory that is private until it is complete; return whether it is new."""
        with self._remote(path):
            return await self._make_remote(path, asyncssh.SFTPAttrs(permissions=PRIVATE))

    async def _make_remote(self, path: str, attributes: asyncssh.SFTPAttrs) -> bool:
        try:
            await self._client.mkdir(path, attributes)
        except asyncssh.SFTPError:
            if await self._client.isdir(path):
                return False
            raise
        return True

    # From the instance.

    async def _get_folder(self, source: str, destination: Place, budget: CopyBudget) -> None:
        made: list[tuple[Place, int]] = []
        copies: list[Copy] = []
        links: list[tuple[str, Place]] = []
        folders = [(source, destination)]
        while folders:
            folder, target = folders.pop()
            with self._remote(folder):
                mode = (await self._client.stat(folder)).permissions or 0
                entries = _checked(folder, await entries_of(self._client, folder, budget))
            with self._local(target.path):
                if await anyio.to_thread.run_sync(target.make_folder):
                    made.append((target, mode))
            for name, attributes in entries:
                path, copy = posixpath.join(folder, name), target / name
                if attributes.type == FILEXFER_TYPE_DIRECTORY:
                    folders.append((path, copy))
                elif attributes.type == FILEXFER_TYPE_SYMLINK:
                    links.append((path, copy))
                elif attributes.type == FILEXFER_TYPE_REGULAR:
                    permissions = attributes.permissions or 0
                    copies.append(partial(self._get_file, path, copy, permissions, budget))
                else:
                    raise _special(path)
        await _in_parallel(copies)
        for path, copy in links:
            await self._get_link(path, copy)
        for target, mode in reversed(made):
            with self._local(target.path):
                await anyio.to_thread.run_sync(target.set_mode, mode & PERMISSIONS)

    async def _get_file(
        self, source: str, destination: Place, mode: int, budget: CopyBudget
    ) -> None:
        path = destination.path
        with self._local(path):
            async with _new_file(destination, mode & PERMISSIONS) as copy:
                await self._receive(source, path, copy, budget)

    async def _receive(self, source: str, path: Path, copy: BinaryIO, budget: CopyBudget) -> None:
        with self._remote(source):
            original = await self._client.open(source, "rb", encoding=None)
            async with original:
                offset = 0
                while block := cast("bytes", await original.read(BLOCK_BYTES, offset)):
                    offset += len(block)
                    with _named(source):
                        budget.charge_bytes(len(block), offset)
                    with self._local(path):
                        await anyio.to_thread.run_sync(partial(_write, copy, block))

    async def _get_link(self, source: str, destination: Place) -> None:
        with self._remote(source):
            target = await self._client.readlink(source)
        with self._local(destination.path):
            await anyio.to_thread.run_sync(destination.new_link, target)

    # Translation of errors.

    @contextmanager
    def _remote(self, path: str, unless: type[Exception] | tuple[()] = ()) -> Generator[None]:
        try:
            yield
        except unless:
            raise
        except FOREIGN as error:
            self._peer.raise_if_lost()
            if isinstance(error, (asyncssh.SFTPNoConnection, asyncssh.SFTPConnectionLost)):
                self.usable = False
            raise TransferFailed(f"{path} on {self._peer.where}: {cause(error)}") from error

    @contextmanager
    def _local(self, path: Path) -> Generator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # A NUL in the target of a link is the latter.
            raise TransferFailed(f"local path {path}: {cause(error)}", local=True) from error


@asynccontextmanager
async def _new_file(place: Place, mode: int) -> AsyncGenerator[BinaryIO]:
    """Do what `Place.new_file` does, without blocking the loop on a slow disk."""
    stack = ExitStack()
    copy = await anyio.to_thread.run_sync(stack.enter_context, place.new_file(mode))
    try:
        yield copy
    except BaseException as error:
        end = partial(stack.__exit__, type(error), error, error.__traceback__)
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(end)
        raise
    with anyio.CancelScope(shield=True):
        await anyio.to_thread.run_sync(stack.close)


def _entries(folder: Path) -> list[tuple[Path, int]]:
    return sorted((path, path.lstat().st_mode) for path in folder.iterdir())


def _checked(
    folder: str, listing: Sequence[asyncssh.SFTPName]
) -> list[tuple[str, asyncssh.SFTPAttrs]]:
    """Return a listing without "." and ".."; refuse names that are impossible in a directory."""
    entries = [(os.fsdecode(entry.filename), entry.attrs) for entry in listing]
    entries = [(name, attributes) for name, attributes in entries if name not in (".", "..")]
    names = [name for name, _ in entries]
    if len(set(names)) < len(names) or any(not name or set(name) & {"/", "\0"} for name in names):
        raise TransferFailed(f"{folder}: the server lists names that are impossible in a directory")
    return sorted(entries, key=lambda entry: entry[0])


def _open_original(path: Path) -> BinaryIO:
    return os.fdopen(open_regular(path), "rb")


def _write(file: BinaryIO, data: bytes) -> None:
    file.write(data)
    file.flush()  # Report a full disk here, not when the file is closed.


@contextmanager
def _named(path: str) -> Generator[None]:
    try:
        yield
    except TransferFailed as error:
        raise TransferFailed(f"{path}: {error}") from None


def _special(path: object, *, local: bool = False) -> TransferFailed:
    text = f"{path} is not a regular file, a directory or a link"
    return TransferFailed(text, local=local)


async def _in_parallel(copies: Sequence[Copy]) -> None:
    waiting = iter(copies)

    async def work() -> None:
        for copy in waiting:
            await copy()

    try:
        async with anyio.create_task_group() as workers:
            for _ in range(min(FILES_AT_ONCE, len(copies))):
                workers.start_soon(work)
    except BaseExceptionGroup as errors:
        raise first_error(errors) from errors
