"""The files of a fake instance: a dictionary from path to content."""

from __future__ import annotations

import fnmatch
import posixpath
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from fleeting.errors import TransferFailed

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ("FakeFiles",)


class FakeFiles(dict[str, bytes]):
    """File contents by path; paths are relative to the home, without `.` and `..`.

    Attributes:
        modes: the permission bits of uploaded files.
        folders: the uploaded folders, which may be empty.
    """

    def __init__(self) -> None:
        super().__init__()
        self.modes: dict[str, int] = {}
        self.folders: set[str] = set()

    def upload(self, source: Path, destination: str) -> None:
        """Copy a file or folder to the instance; see `Connection.put`."""
        target = posixpath.normpath(destination)
        try:
            if not source.is_dir():
                self._write(source, target)
                return
            self.folders.add(target)
            for path in sorted(source.rglob("*")):
                below = posixpath.join(target, path.relative_to(source).as_posix())
                if path.is_dir():
                    self.folders.add(below)
                else:
                    self._write(path, below)
        except OSError as error:
            raise _failed(source, error) from None

    def download(self, source: str, destination: Path) -> None:
        """Copy a file or folder from the instance; see `Connection.get`."""
        origin = posixpath.normpath(source)
        if origin not in {".", *self, *self._all_folders()}:
            raise TransferFailed(f"{source} does not exist on the instance; check the path")
        try:
            for path in sorted(self._all_folders()):
                if _is_below(path, origin):
                    (destination / posixpath.relpath(path, origin)).mkdir(
                        parents=True, exist_ok=True
                    )
            for path, data in self.items():
                if _is_below(path, origin):
                    local = destination / posixpath.relpath(path, origin)
                    local.parent.mkdir(parents=True, exist_ok=True)
                    local.write_bytes(data)
                    local.chmod(self.modes.get(path, 0o644))
        except OSError as error:
            raise _failed(destination, error) from None

    def glob(self, pattern: str) -> list[str]:
        """Return the paths that match; see `Connection.glob`."""
        wanted = posixpath.normpath(pattern).split("/")
        paths = {*self, *self._all_folders()}
        return sorted(path for path in paths if _matches(path.split("/"), wanted))

    def _write(self, source: Path, target: str) -> None:
        if target in self._all_folders():
            raise IsADirectoryError(f"{target} on the instance is a folder")
        self[target] = source.read_bytes()
        self.modes[target] = source.stat().st_mode & 0o777

    def _all_folders(self) -> set[str]:
        above = {str(parent) for path in self for parent in PurePosixPath(path).parents}
        return (self.folders | above) - {".", "/"}


def _is_below(path: str, folder: str) -> bool:
    return folder in {".", path} or path.startswith(f"{folder}/")


def _failed(path: Path, error: OSError) -> TransferFailed:
    reason = (error.strerror or str(error)).lower()
    return TransferFailed(f"{path} cannot be copied ({reason}); check the path")


def _matches(path: list[str], pattern: list[str]) -> bool:
    """Compare name by name; `**` matches any number of names."""
    if not pattern:
        return not path
    if pattern[0] == "**":
        return any(_matches(path[skip:], pattern[1:]) for skip in range(len(path) + 1))
    return (
        bool(path) and fnmatch.fnmatchcase(path[0], pattern[0]) and _matches(path[1:], pattern[1:])
    )
