"""Reads the entry points of installed distributions, quickly.

The result is the same as that of `importlib.metadata`, whose import alone would take
longer than the rest of `fleeting list`; a test compares the two. If there are
archives on `sys.path`, which this module does not read, it delegates to the library.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("PluginEntry", "entry_points")

# The file that contains the name and the version, for each kind of metadata directory.
_HEADERS = {".dist-info": "METADATA", ".egg-info": "PKG-INFO"}


class PluginEntry(NamedTuple):
    """A plugin as declared in the metadata of its distribution; not imported.

    Attributes:
        name: the name by which it is requested.
        distribution: the name of the distribution that contains it.
        version: the version of that distribution.
    """

    name: str
    distribution: str
    version: str


def entry_points(group: str) -> list[PluginEntry]:
    """Return the entry points of a group, in any order, each once."""
    if any(os.path.isfile(folder) for folder in sys.path):  # noqa: PTH113 - pathlib is slow to import
        return _by_the_library(group)
    found: dict[PluginEntry, None] = {}
    for folder in _metadata_folders():
        names = _names(_read(os.path.join(folder, "entry_points.txt")), group)  # noqa: PTH118 - as above
        if names:
            kind = os.path.splitext(folder)[1]  # noqa: PTH122 - as above
            header = _read(os.path.join(folder, _HEADERS[kind]))  # noqa: PTH118 - as above
            distribution, version = _field(header, "Name"), _field(header, "Version")
            found.update(dict.fromkeys(PluginEntry(name, distribution, version) for name in names))
    return list(found)


def _by_the_library(group: str) -> list[PluginEntry]:
    import importlib.metadata

    points = importlib.metadata.entry_points(group=group)
    return list(
        {
            PluginEntry(point.name, point.dist.name, point.dist.version)
            for point in points
            if point.dist is not None
        }
    )


def _metadata_folders() -> Iterator[str]:
    """Yield one directory for each distribution: the first on the path, which Python imports."""
    seen: set[str] = set()
    for folder in sys.path:
        try:
            names = sorted(os.listdir(folder or "."))  # noqa: PTH208 - pathlib is slow to import
        except OSError:
            continue
        for name in names:
            stem, kind = os.path.splitext(name)  # noqa: PTH122 - as above
            project = stem.partition("-")[0].lower().replace(".", "_").replace("-", "_")
            if kind in _HEADERS and project not in seen:
                seen.add(project)
                yield os.path.join(folder, name)  # noqa: PTH118 - as above


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - as above
            return file.read()
    except OSError:
        return ""


def _names(text: str, group: str) -> list[str]:
    """Return the names in one section of an `entry_points.txt`."""
    names: list[str] = []
    section = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            section = line.strip("[]")
        elif section == group and "=" in line and not line.startswith("#"):
            names.append(line.partition("=")[0].strip())
    return names


def _field(header: str, name: str) -> str:
    """Return a field of the header; the header ends at the first empty line."""
    for line in header.splitlines():
        if not line:
            break
        key, colon, value = line.partition(":")
        if colon and key.lower() == name.lower():
            return value.strip()
    return ""
