"""Which local files a job uploads, and where its downloads may be written.

File names that an instance reports are not trusted: whatever it reports, nothing
is written outside the directory that the user named.
"""

from __future__ import annotations

import glob
import os
import posixpath
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("check_pattern", "check_readable", "download_target", "find_uploads", "outermost")


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


def find_uploads(folder: Path, patterns: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Find the files and directories that match the patterns of `upload`.

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
            if not path.is_dir() and (problem := check_readable(path)):
                problems.append(problem)
            else:
                found.add(match)
        if not matches and glob.has_magic(pattern):
            problems.append(f"{pattern!r} matches nothing in {folder.resolve()}; check the pattern")
        elif not matches:
            problems.append(f"{pattern!r} does not exist in {folder.resolve()}; check the path")
    return outermost(found), problems


def outermost(paths: set[str]) -> tuple[str, ...]:
    """Return the paths without those inside another one, which is copied completely."""
    if "." in paths:
        return (".",)
    kept: dict[str, None] = {}
    for path in sorted(paths, key=lambda path: (path.count("/"), path)):
        # The shortest parents come first: a tree may be thousands of folders deep.
        parents = (path[: slash.start()] for slash in re.finditer("/", path))
        if not any(parent in kept for parent in parents):
            kept[path] = None
    return tuple(kept)


def download_target(destination: Path, relative: str) -> Path | None:
    """Return where to write a downloaded file, or None if that is outside `destination`.

    Args:
        destination: the local directory that the user named.
        relative: the path in the working directory that the instance reported.
    """
    path = PurePosixPath(posixpath.normpath(relative))
    if path.is_absolute() or ".." in path.parts or "\\" in relative or "\0" in relative:
        return None
    place = destination / path
    # An earlier download may have created a symbolic link that points outside.
    try:
        inside = place.parent.resolve().is_relative_to(destination.resolve())
    except RuntimeError:  # The link points to itself.
        return None
    if not inside or place.is_symlink():
        return None
    return place
