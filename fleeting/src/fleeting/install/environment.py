"""Which installer a Python environment wants: pip, uv, pipx or `uv tool`."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import json
import os
import re
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from fleeting._references import canonical
from fleeting.errors import InstallError

__all__ = (
    "RECORDS",
    "Environment",
    "Installed",
    "Installer",
    "choose_installer",
    "installed_distributions",
    "observe",
)


class Installer(Enum):
    """A program that installs distributions into an environment."""

    PIP = "pip"
    UV = "uv"
    PIPX = "pipx"
    UV_TOOL = "uv tool"


# The files in which installers remember what belongs in an environment.
RECORDS = {Installer.PIPX: "pipx_metadata.json", Installer.UV_TOOL: "uv-receipt.toml"}

# The files of a distribution that an installer writes, not its author.
_ADDED = re.compile(r".*(\.pyc|/INSTALLER|/REQUESTED|/(direct_url|uv_cache|uv_build)\.json)")


class Installed(NamedTuple):
    """An installed distribution; two builds of one version differ in `files`, a digest.

    `origin` is the requirement for the place that it came from; empty if that was an index.
    """

    version: str
    written_ns: int = 0
    origin: str = ""
    files: str = ""

    def is_same_build(self, other: Installed | None) -> bool:
        """Return whether the other one has the same version and the same files."""
        return other is not None and (self.version, self.files) == (other.version, other.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The facts about a Python environment; `files` are the names in its folder."""

    prefix: Path
    python: Path
    has_pip: bool = False
    uv: str = ""
    pipx: str = ""
    files: frozenset[str] = frozenset()


def choose_installer(environment: Environment) -> Installer:
    """Return what made the environment, or else its pip, or else uv; refuse if it is missing."""
    made_by = [installer for installer, name in RECORDS.items() if name in environment.files]
    if environment.has_pip and not made_by:
        return Installer.PIP
    installer = made_by[0] if made_by else Installer.UV
    if not (environment.pipx if installer is Installer.PIPX else environment.uv):
        reason = f"was made by {installer.value}" if made_by else "has no pip"
        program = installer.value.partition(" ")[0]
        raise InstallError(
            f"the Python environment {environment.prefix} {reason}, and {program} was not found; "
            f"add {program} to the PATH",
            retryable=True,
        )
    return installer


def observe() -> Environment:
    """Return the environment that this process runs in."""
    return Environment(
        prefix=Path(sys.prefix),
        python=Path(sys.executable),
        has_pip=importlib.util.find_spec("pip") is not None,
        uv=shutil.which("uv") or "",
        pipx=shutil.which("pipx") or "",
        files=frozenset(os.listdir(sys.prefix)),  # noqa: PTH208 - the names alone
    )


def installed_distributions() -> dict[str, Installed]:
    """Return the installed distributions by their normalized names."""
    found: dict[str, Installed] = {}
    for site in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        # pip renames a folder to `~...` before it removes it.
        for folder in Path(site).glob("[!~]*.dist-info"):
            name, _, version = folder.name.removesuffix(".dist-info").partition("-")
            if (folder / "METADATA").exists():
                found[canonical(name)] = Installed(
                    version, folder.stat().st_mtime_ns, _origin(folder), _digest(folder)
                )
    return found


def _origin(folder: Path) -> str:
    """Return the path or the URL in `direct_url.json`, which installers write; empty without it."""
    try:
        found = json.loads((folder / "direct_url.json").read_text(encoding="utf-8"))
        url = str(found["url"])
        if revision := found.get("vcs_info"):
            return f"{revision['vcs']}+{url}@{revision['commit_id']}"
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return ""
    return unquote(urlsplit(url).path) if url.startswith("file:") else url


def _digest(folder: Path) -> str:
    """Return a digest of the digests in `RECORD`, without those that an installer adds."""
    record = path.read_text("utf-8", "replace") if (path := folder / "RECORD").is_file() else ""
    rows = [row for row in csv.reader(record.splitlines()) if len(row) > 1 and row[1]]
    own = sorted(row[:2] for row in rows if not _ADDED.fullmatch(row[0]))
    return hashlib.sha256(repr(own).encode()).hexdigest()
