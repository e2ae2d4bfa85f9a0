"""Which files travel between here and an instance, and that none lands where it must not.

Names that come from an instance are a stranger's: whatever it answers,
nothing is written outside the folder that the user named.
"""

from __future__ import annotations

import glob
import os
import posixpath
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("find_uploads", "landing_place", "outermost", "readable", "unsafe")


def unsafe(pattern: str) -> str | None:
    """Say what is wrong with a pattern that could lead out of its folder, or None."""
    if not pattern.strip():
        return "an empty path means nothing; remove it"
    path = PurePosixPath(pattern)
    if path.is_absolute() or ".." in path.parts or "\0" in pattern:
        return f"{pattern!r} leads out of its folder; write a path below it, without '..'"
    return None


def readable(path: Path) -> str | None:
    """Say why a file cannot be read, or None if it can."""
    if path.is_dir():
        return f"{path} is a folder; name a file"
    if not path.exists():
        return f"{path}: there is no such file; check the path"
    if not path.is_file():
        # Reading it might never end, and nothing could interrupt that.
        return f"{path} is a pipe or a device; name an ordinary file"
    if not os.access(path, os.R_OK):
        return f"{path}: it cannot be read; check its permissions"
    return None


def find_uploads(folder: Path, patterns: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Expand what a job wants to upload.

    Returns:
        The paths, relative to the folder, of which none lies in another; and a
        sentence for each pattern that yields nothing and each file that cannot be read.
    """
    found: set[str] = set()
    problems: list[str] = []
    for pattern in patterns:
        matches = glob.glob(pattern, root_dir=folder, recursive=True)  # noqa: PTH207 -- pathlib's `**` yields folders only before 3.13
        for match in map(os.path.normpath, matches):
            path = folder / match
            if not path.is_dir() and (problem := readable(path)):
                problems.append(problem)
            else:
                found.add(match)
        if not matches and glob.has_magic(pattern):
            problems.append(f"{pattern!r} matches nothing in {folder.resolve()}; check the pattern")
        elif not matches:
            problems.append(f"there is no {pattern!r} in {folder.resolve()}; check the path")
    return outermost(found), problems


def outermost(paths: set[str]) -> tuple[str, ...]:
    """Leave out each path that lies in another one, which is copied as a whole."""
    kept: list[str] = []
    for path in sorted(paths, key=lambda path: (path.count("/"), path)):
        parents = {str(parent) for parent in PurePosixPath(path).parents if path != "."}
        if parents.isdisjoint(kept):
            kept.append(path)
    return tuple(kept)


def landing_place(destination: Path, relative: str) -> Path | None:
    """Return where a file of an instance belongs, or None if that is not below `destination`.

    Args:
        destination: the folder that the user named.
        relative: the file's path in the working directory, as the instance tells it.
    """
    path = PurePosixPath(posixpath.normpath(relative))
    if path.is_absolute() or ".." in path.parts or "\\" in relative or "\0" in relative:
        return None
    place = destination / path
    # A link that an earlier download left behind must not lead the next one astray.
    try:
        inside = place.parent.resolve().is_relative_to(destination.resolve())
    except RuntimeError:  # The link leads to itself.
        return None
    if not inside or place.is_symlink():
        return None
    return place
