"""Who drives this Python environment: pip, uv, pipx, or `uv tool`."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from fleeting.errors import InstallError

__all__ = ("Environment", "Facts", "Keeper", "choose_installer", "look_around")

RECEIPT = "uv-receipt.toml"
PIPX = "pipx_metadata.json"
_HOW = (
    "install fleeting in one of its own, with `uv tool install fleeting` or `pipx install fleeting`"
)


class Keeper(Enum):
    """What made the environment, and has a list of what belongs in it."""

    NOBODY = "nobody"
    PIPX = "pipx"
    UV_TOOL = "uv tool"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What can be seen of an environment.

    Attributes:
        prefix: its folder.
        python: its interpreter.
        site: where its distributions are.
        scripts: where its commands are.
        is_virtual: whether it is a virtual environment.
        is_writable: whether this user can change it.
        is_archive: whether fleeting runs out of one file, in which nothing can be installed.
        has_pip: whether its Python has pip.
        uv: the path of uv, or an empty text.
        pipx: likewise.
        files: which of the files are there that tell who made it.
    """

    prefix: Path
    python: Path
    site: Path
    scripts: Path
    is_virtual: bool
    is_writable: bool = True
    is_archive: bool = False
    has_pip: bool = False
    uv: str = ""
    pipx: str = ""
    files: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Environment:
    """An environment in which something can be installed, and by whom.

    Attributes:
        facts: what was seen of it.
        keeper: what has a list of its contents, and must be asked to change it.
        uses_pip: whether the installer below that is pip; otherwise it is uv.
    """

    facts: Facts
    keeper: Keeper
    uses_pip: bool


def choose_installer(facts: Facts) -> Environment:
    """Decide who installs.

    Raises:
        InstallError: nobody can, or nobody may.
    """
    where = f"the Python environment {facts.prefix}"
    if facts.is_archive:
        raise InstallError(f"fleeting runs out of an archive, which cannot be added to; {_HOW}")
    if not facts.is_virtual and "EXTERNALLY-MANAGED" in facts.files:
        raise InstallError(f"{where} belongs to the operating system; {_HOW}")
    if not facts.is_writable:
        raise InstallError(
            f"{where} cannot be written to; ask who owns it, or {_HOW}", retryable=True
        )
    keeper = Keeper.NOBODY
    if PIPX in facts.files:
        keeper = Keeper.PIPX
    elif RECEIPT in facts.files:
        keeper = Keeper.UV_TOOL
    needed = {Keeper.PIPX: facts.pipx, Keeper.UV_TOOL: facts.uv}.get(keeper, "x")
    if not needed:
        raise InstallError(f"{where} was made by {keeper.value}, which is not on the PATH; add it")
    if not facts.has_pip and not facts.uv:
        raise InstallError(f"{where} has no pip, and uv is not on the PATH; install one of them")
    return Environment(facts, keeper, uses_pip=facts.has_pip and keeper is not Keeper.UV_TOOL)


def look_around() -> Facts:
    """Look at the environment that this process runs in."""
    paths = sysconfig.get_paths()
    prefix, site, scripts = Path(sys.prefix), Path(paths["purelib"]), Path(paths["scripts"])
    marks = {
        RECEIPT: prefix / RECEIPT,
        PIPX: prefix / PIPX,
        "EXTERNALLY-MANAGED": Path(paths["stdlib"]) / "EXTERNALLY-MANAGED",
    }
    return Facts(
        prefix=prefix,
        python=Path(sys.executable),
        site=site,
        scripts=scripts,
        is_virtual=sys.prefix != sys.base_prefix,
        is_writable=os.access(site, os.W_OK | os.X_OK),
        is_archive=not Path(__file__).is_file(),
        has_pip=importlib.util.find_spec("pip") is not None,
        uv=_find_uv(),
        pipx=shutil.which("pipx") or "",
        files=frozenset(name for name, path in marks.items() if path.is_file()),
    )


def _find_uv() -> str:
    """Return uv's path: that on the PATH, or the one that is installed beside this Python."""
    beside = Path(sys.executable).with_name("uv")
    return shutil.which("uv") or (str(beside) if os.access(beside, os.X_OK) else "")
