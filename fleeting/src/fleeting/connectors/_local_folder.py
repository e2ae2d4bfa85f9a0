"""Writes below a local folder, and follows no symbolic link on the way.

Copies from several instances may arrive in one folder at the same time, and each of them can
contain links. So a path that was checked may lead elsewhere a moment later. Here, no path is
checked: each folder is opened from the descriptor of its parent without following links, and
each file and link is created under a new name in an open folder, and then renamed.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import BinaryIO, Self

# A folder on the way need not be readable.
_PASS = os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
_READ = os.O_DIRECTORY | os.O_CLOEXEC | os.O_RDONLY
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PRIVATE_FOLDER = 0o700
_PRIVATE_FILE = 0o600
_FOLDER = 0o777


class LocalFolder:
    """An open folder. Close it, or use it as a context manager."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def reach(cls, path: Path, *, follow: bool) -> Self:
        """Open a folder; create it and its parents if they are missing.

        Args:
            path: of the folder; absolute if links are not followed.
            follow: whether to follow symbolic links.

        Raises:
            OSError: it cannot be opened, or one part of its path is a link.
        """
        if follow:
            path.mkdir(parents=True, exist_ok=True)
            return cls(os.open(path, _PASS))
        with cls(os.open(path.anchor, _PASS)) as root:
            return cls(root._walk(path.parts[1:], make=True))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def make_folder(self, parts: Sequence[str]) -> bool:
        """Make a folder that is private for now; a link in its place is replaced.

        Returns:
            Whether it is new.
        """
        with self._parent(parts) as (parent, name):
            try:
                os.mkdir(name, _PRIVATE_FOLDER, dir_fd=parent)
            except FileExistsError:
                if not _is_link(name, parent):
                    os.close(_open_folder(name, parent))
                    return False
                os.unlink(name, dir_fd=parent)
                os.mkdir(name, _PRIVATE_FOLDER, dir_fd=parent)
        return True

    def set_mode(self, parts: Sequence[str], mode: int) -> None:
        """Set the permission bits of a folder."""
        with self._parent(parts) as (parent, name):
            folder = _open_folder(name, parent, _READ)
            try:
                os.fchmod(folder, mode)
            finally:
                os.close(folder)

    @contextmanager
    def new_file(self, parts: Sequence[str], mode: int) -> Generator[BinaryIO]:
        """Write a file in the block; it gets its name and its permission bits at the end.

        A file or a link of that name is replaced. If the block fails, nothing has changed.

        Raises:
            OSError: it cannot be written, or a pipe, a socket or a device has its name.
        """
        with self._parent(parts) as (parent, name):
            _refuse_special(name, parent)
            opened: list[int] = []

            def create(temporary: str) -> None:
                opened.append(os.open(temporary, _CREATE, _PRIVATE_FILE, dir_fd=parent))

            with _replacing(name, parent, create), os.fdopen(opened[0], "wb") as file:
                yield file
                file.flush()
                os.fchmod(file.fileno(), mode)

    def new_link(self, parts: Sequence[str], target: str) -> None:
        """Make a symbolic link; a file or a link of that name is replaced."""
        with self._parent(parts) as (parent, name):

            def create(temporary: str) -> None:
                os.symlink(target, temporary, dir_fd=parent)

            with _replacing(name, parent, create):
                pass

    @contextmanager
    def _parent(self, parts: Sequence[str]) -> Generator[tuple[int, str]]:
        """Open the folder of the last part."""
        descriptor = self._walk(parts[:-1])
        try:
            yield descriptor, parts[-1]
        finally:
            os.close(descriptor)

    def _walk(self, parts: Sequence[str], *, make: bool = False) -> int:
        current = os.dup(self._descriptor)
        for name in parts:
            try:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(name, _FOLDER, dir_fd=current)
                following = _open_folder(name, current)
            finally:
                os.close(current)
            current = following
        return current


@dataclass(frozen=True, slots=True)
class Place:
    """A place below an open folder, which may not exist.

    Attributes:
        root: the open folder.
        path: the place as a path, for messages.
        parts: the names that lead from the folder to the place.
    """

    root: LocalFolder
    path: Path
    parts: tuple[str, ...] = ()

    def __truediv__(self, name: str) -> Place:
        """Return a place in this folder; the name must not contain a slash."""
        return Place(self.root, self.path / name, (*self.parts, name))

    def make_folder(self) -> bool:
        """See `LocalFolder.make_folder`."""
        return self.root.make_folder(self.parts)

    def set_mode(self, mode: int) -> None:
        """See `LocalFolder.set_mode`."""
        self.root.set_mode(self.parts, mode)

    def new_file(self, mode: int) -> AbstractContextManager[BinaryIO]:
        """See `LocalFolder.new_file`."""
        return self.root.new_file(self.parts, mode)

    def new_link(self, target: str) -> None:
        """See `LocalFolder.new_link`."""
        self.root.new_link(self.parts, target)


def _open_folder(name: str, parent: int, how: int = _PASS) -> int:
    try:
        return os.open(name, how | os.O_NOFOLLOW, dir_fd=parent)
    except OSError:
        if _is_link(name, parent):
            raise OSError(f"{name!r} is a symbolic link, which is not followed") from None
        raise


def _refuse_special(name: str, parent: int) -> None:
    # A mistake of the user; replacing `/dev/null` would break other programs.
    with suppress(FileNotFoundError):
        kind = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISLNK(kind) or stat.S_ISDIR(kind)):
            raise OSError(errno.EINVAL, "not a regular file")


def _is_link(name: str, parent: int) -> bool:
    # Only for a message, or to choose what to try; a wrong answer leads to an error.
    with suppress(OSError):
        os.readlink(name, dir_fd=parent)
        return True
    return False


@contextmanager
def _replacing(name: str, parent: int, create: Callable[[str], None]) -> Generator[None]:
    """Create something under a temporary name, and give it its name after the block."""
    temporary = f".fleeting-{secrets.token_hex(8)}"
    create(temporary)
    try:
        yield
        os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=parent)
        raise
