"""What a distribution brings, read from its metadata before it is installed."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleeting._metadata import announced
from fleeting._references import PREFIX, canonical, is_name
from fleeting.errors import InstallError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fleeting._registry import PluginEntry
    from fleeting.install.requests import Wish

__all__ = (
    "Contents",
    "Planned",
    "check_plugins",
    "contents_of",
    "metadata_folders",
    "planned_by_pip",
    "planned_by_uv",
)

GROUPS = ("fleeting", "fleeting.connectors")
_PLANNED = re.compile(
    r" [+~] (?P<name>[A-Za-z0-9._-]+)(?:==(?P<version>\S+))?(?: @ (?P<place>\S+))?"
    r"(?: \(from (?P<origin>\S+)\))?"
)


@dataclass(frozen=True, slots=True)
class Planned:
    """A distribution that would be installed.

    Attributes:
        name: normalized.
        version: empty if it is known once it is built.
        is_direct: whether it comes from a path or a URL.
    """

    name: str
    version: str
    is_direct: bool = False


@dataclass(frozen=True, slots=True)
class Contents:
    """What a distribution turned out to be.

    Attributes:
        name: normalized.
        version: of it.
        plugins: the names that it registers, as providers or as connectors.
    """

    name: str
    version: str
    plugins: tuple[str, ...]


def planned_by_pip(report: str) -> list[Planned]:
    """Read the report that pip writes."""
    return [
        Planned(
            canonical(entry["metadata"]["name"]),
            entry["metadata"]["version"],
            bool(entry.get("is_direct")),
        )
        for entry in json.loads(report)["install"]
    ]


def planned_by_uv(output: str) -> list[Planned]:
    """Read what uv prints that it would do."""
    found = [match for line in output.splitlines() if (match := _PLANNED.fullmatch(line.rstrip()))]
    return [
        Planned(
            canonical(match["name"]),
            match["version"] or "",
            bool(match["place"] or match["origin"]),
        )
        for match in found
    ]


def metadata_folders(site: Path) -> dict[Path, str]:
    """Return the metadata folders of a folder, with the normalized names of the distributions.

    An installer that was stopped leaves some without their files, so the name is the folder's.
    """
    return {path: canonical(path.name.split("-")[0]) for path in sorted(site.glob("*.dist-info"))}


def contents_of(folder: Path) -> list[Contents]:
    """Read what is installed in a folder; what is there in part only counts as not installed."""
    found: list[Contents] = []
    for path, name in metadata_folders(folder).items():
        if (path / "METADATA").is_file():
            version, plugins = announced(str(path), GROUPS)
            found.append(Contents(name, version, tuple(plugins)))
    return found


def check_plugins(
    wishes: Sequence[Wish], found: Sequence[Contents], installed: Sequence[PluginEntry]
) -> None:
    """Refuse what is no plugin, or would claim a name that is taken.

    Args:
        wishes: what was asked for.
        found: what would be installed, dependencies too.
        installed: the plugins that are there now.

    Raises:
        InstallError: one of them is to be refused.
    """
    by_name = {contents.name: contents for contents in found}
    for one in found:
        for name in one.plugins:
            if not is_name(name):
                raise InstallError(
                    f"{one.name} {one.version} registers {name[:100]!r}, which is no "
                    "name that a file could refer to, so it was not installed"
                )
    for wish in wishes:
        contents = by_name.get(wish.distribution)
        if contents is None and not wish.distribution:
            contents = next((one for one in found if one.plugins), None) or next(iter(found), None)
        if contents is None:
            continue  # It is installed, and no newer one was found.
        _check_names(wish, contents)
    for contents in found:
        for name in contents.plugins:
            owners = {canonical(entry.distribution) for entry in installed if entry.name == name}
            if owners and contents.name not in owners:
                raise InstallError(
                    f"{contents.name} {contents.version} registers {name!r}, and so does "
                    f"{owners.pop()}, which is installed; uninstall that first"
                )


def _check_names(wish: Wish, contents: Contents) -> None:
    what = f"{contents.name} {contents.version}"
    if not contents.plugins:
        raise InstallError(
            f"{what} registers no plugin, so it was not installed; is it the right package?"
        )
    wanted = wish.plugin
    if not wanted and contents.name.startswith(PREFIX) and wish.distribution:
        return
    if wanted and wanted not in contents.plugins:
        raise InstallError(
            f"{what} registers {', '.join(contents.plugins)}, and not {wanted!r}, so it was not "
            "installed; name the package itself if that is what you want"
        )
