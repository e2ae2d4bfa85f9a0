"""Which local files a job uploads, and where its downloads may be written.

File names that an instance reports are not trusted: whatever it reports, nothing
is written outside the directory that the user named.
"""

from __future__ import annotations

import glob
import os
import posixpath
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = (
    "check_pattern",
    "check_readable",
    "check_reported",
    "find_uploads",
    "outermost",
    "resolve_target",
)


def check_pattern(pattern: str) -> str | None:
    """Return what is wrong with a pattern that is not inside its directory, or None."""
    if not pattern.strip():
        return "a path must not be empty; remove it"
    path = PurePosixPath(pattern)
    if path.is_absolute() or ".." in path.parts or "\0" in pattern:
        return f"{pattern!r} leads out of its directory; use a relative path without '..'"
    return None


def check_readable(path: Path) -> str | None:
    """Return why a local file cannot be read, or None if it can."""
    if path.is_dir():
        return f"{path} is a directory; name a file"
    if not path.exists():
        return f"{path}: the file does not exist; check the path"
    if not path.is_file():
        # A read from a pipe or a device may block forever and cannot be cancelled.
        return f"{path} is not a regular file; name a regular file"
    if not os.access(path, os.R_OK):
        return f"{path} is not readable; check its permissions"
    return None


def find_uploads(
    folder: Path, patterns: Sequence[str], *, follow_links: bool = False
) -> tuple[tuple[str, ...], list[str]]:
    """Find the files and directories that match the patterns of `upload`.

    Args:
        folder: the directory that the patterns are relative to.
        patterns: paths and globs.
        follow_links: whether symbolic links may lead out of the directory.

    Returns:
        The paths relative to the folder, without those inside another one of them; and a
        sentence for each pattern that matches nothing and each file that cannot be read.
    """
    found: set[str] = set()
    problems: list[str] = []
    for pattern in patterns:
        matches = glob.glob(pattern, root_dir=folder, recursive=True)  # noqa: PTH207 -- pathlib's `**` yields folders only before 3.13
        for match in map(os.path.normpath, matches):
            path = folder / match
            if not follow_links and not _is_inside(path, folder):
                problems.append(
                    f"{path} leads out of {folder.resolve()} through a symbolic link; copy the "
                    "file, or set follow_links = true"
                )
            elif not path.is_dir() and (problem := check_readable(path)):
                problems.append(problem)
            else:
                found.add(match)
        if not matches and glob.has_magic(pattern):
            problems.append(f"{pattern!r} matches nothing in {folder.resolve()}; check the pattern")
        elif not matches:
            problems.append(f"{pattern!r} does not exist in {folder.resolve()}; check the path")
    return outermost(found), problems


def _is_inside(path: Path, folder: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def outermost(paths: set[str]) -> tuple[str, ...]:
    """Return the paths without those inside another one, which is copied completely."""
    if "." in paths:
        return (".",)
    kept: list[str] = []
    # In this order a directory comes directly before its contents. An instance chooses the
    # number and the length of the paths, so each is compared with one other only.
    for path in sorted(paths, key=lambda path: path.split("/")):
        if not kept or not path.startswith(f"{kept[-1]}/"):
            kept.append(path)
    return tuple(kept)


def check_reported(name: str) -> str | None:
    """Return a path that an instance reported, normalized; None if it leads outside.

    Args:
        name: relative to the working directory.
    """
    path = PurePosixPath(posixpath.normpath(name))
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        return None
    return str(path)


def resolve_target(path: Path) -> Path:
    """Return the directory of a download as an absolute path without symbolic links.

    It is resolved before anything is downloaded. Afterwards no link on the way is followed,
    because an instance may have sent it.

    Raises:
        OSError: the path leads through a link to itself.
    """
    # `Path.resolve` reports a loop only before Python 3.13. A link that is left is part of one.
    resolved = Path(os.path.realpath(path))
    if any(part.is_symlink() for part in (resolved, *resolved.parents)):
        raise OSError(f"{path} leads through a symbolic link to itself")
    return resolved
