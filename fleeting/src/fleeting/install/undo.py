"""Keeps what an installer is about to change, and puts it back.

pip and uv have everything at hand before they change anything, but neither goes back over what
it has changed when the disk is full in the middle, or when it is killed. So the files that will
go are linked into the scratch folder first, with a journal of what will come. The journal is
all that is needed: what a killed installation left is put back by the next one.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
from contextlib import contextmanager, suppress
from importlib.metadata import Distribution
from pathlib import Path
from typing import TYPE_CHECKING

from fleeting.install.contents import metadata_folders

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from fleeting.install.environment import Facts

__all__ = ("SCRATCH", "is_pending", "prepare_undo", "remove_leftovers", "undo", "undone_on_failure")

SCRATCH = ".fleeting-install-"
_JOURNAL = "journal.json"
_REQUESTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def prepare_undo(
    scratch: Path,
    facts: Facts,
    *,
    changed: Sequence[str],
    coming: Path | None,
    lists: Sequence[Path],
) -> None:
    """Keep all that a change may touch.

    Args:
        scratch: the folder to keep it in, on the file system of the environment.
        facts: of the environment.
        changed: the distributions that will be replaced or removed.
        coming: a folder in which what will come is installed already; None if nothing will.
        lists: files in which the environment's keeper remembers what is in it.
    """
    backup = scratch / "backup"
    backup.mkdir()
    before = metadata_folders(facts.site)
    arriving = [place for path in _files(coming) for place in _destinations(path, facts)]
    leaving = [
        path
        for folder, name in before.items()
        if name in changed
        for path in _installed_files(folder)
        # Whatever a list of files says, nothing else is an installer's to change.
        if path.is_relative_to(facts.prefix) or path.is_relative_to(facts.site)
    ]
    kept: dict[str, str] = {}
    for path in dict.fromkeys([*arriving, *leaving, *lists]):
        if os.path.lexists(path) and not path.is_dir():
            kept[str(path)] = str(len(kept))
            _link(path, backup / kept[str(path)], copy=path in lists)
    journal = {
        "site": str(facts.site),
        "prefix": str(facts.prefix),
        "before": [folder.name for folder, name in before.items() if name not in changed],
        "arriving": [str(path) for path in arriving],
        "asides": [path.name for path in facts.site.glob("~*")],
        "kept": kept,
    }
    _write(scratch / _JOURNAL, json.dumps(journal))


def undo(scratch: Path) -> bool:
    """Put back all that was kept, and remove what came; repeating it changes nothing.

    Returns:
        Whether there was a change to undo.
    """
    try:
        journal = json.loads((scratch / _JOURNAL).read_text())
    except (OSError, ValueError):
        return False  # It had not come to a change.
    site = Path(journal["site"])
    gone = [Path(path) for path in journal["arriving"]]
    for folder in metadata_folders(site):
        if folder.name not in journal["before"]:
            gone += _installed_files(folder)
    for path in gone:
        if path.is_relative_to(journal["prefix"]) or path.is_relative_to(site):
            _remove(path, site)
    for aside in site.glob("~*"):
        if aside.name not in journal["asides"]:
            shutil.rmtree(aside, ignore_errors=True)
    for name, number in journal["kept"].items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).unlink(missing_ok=True)
        _link(scratch / "backup" / number, Path(name), copy=False)
    (scratch / _JOURNAL).unlink()
    importlib.invalidate_caches()
    return True


@contextmanager
def undone_on_failure(scratch: Path) -> Generator[None]:
    """Put everything back if the block does not end as it should, whatever the reason."""
    try:
        yield
    except BaseException:
        # Who asks again to stop waits for a moment.
        before = {number: signal.signal(number, signal.SIG_IGN) for number in _REQUESTS}
        try:
            undo(scratch)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        raise
    (scratch / _JOURNAL).unlink(missing_ok=True)


def is_pending(scratch: Path) -> bool:
    """Return whether there is still a change to undo."""
    return (scratch / _JOURNAL).exists()


def remove_leftovers(site: Path) -> bool:
    """Undo what a killed installation had begun; only who holds the lock may ask for it.

    Returns:
        Whether there was something to undo.
    """
    found = False
    for scratch in sorted(site.glob(f"{SCRATCH}*")):
        if scratch.is_dir():
            found = undo(scratch) or found
            shutil.rmtree(scratch, ignore_errors=True)
    return found


def _files(folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    return [path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir()]


def _destinations(relative: Path, facts: Facts) -> list[Path]:
    """Return where a file of a scratch installation may come to be in the environment.

    In such a folder a data file, as `share/x`, looks like one of a package: it is both then. That
    does no harm, as what was in either place before is kept.
    """
    if relative.parts[0] == "bin":
        return [facts.scripts.joinpath(*relative.parts[1:])]
    return [facts.site / relative, facts.prefix / relative]


def _installed_files(folder: Path) -> list[Path]:
    """Return the files of a distribution: those that it lists, and its metadata."""
    try:
        listed = Distribution.at(folder).files or []
    except (TypeError, ValueError):
        listed = []  # Its list is cut off, or was never one.
    found = [Path(os.path.normpath(str(file.locate()))) for file in listed]
    return [*found, *(path for path in folder.rglob("*") if not path.is_dir())]


def _link(source: Path, target: Path, *, copy: bool) -> None:
    """Give a file a second name, which costs no space; copy it if it is written in place."""
    if not copy:
        with suppress(OSError):
            os.link(source, target, follow_symlinks=False)
            return
    shutil.copy2(source, target, follow_symlinks=False)


def _remove(path: Path, site: Path) -> None:
    """Remove a file, what Python made of it, and the folders that are empty then."""
    with suppress(OSError):
        path.unlink()
    if path.suffix == ".py":
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
            compiled.unlink(missing_ok=True)
        with suppress(OSError):
            (path.parent / "__pycache__").rmdir()
    for folder in path.parents:
        if folder == site or not folder.is_relative_to(site):
            break
        try:
            folder.rmdir()
        except OSError:
            break


def _write(path: Path, text: str) -> None:
    """Write a file so that after a crash it is there as a whole or not at all."""
    new = path.with_suffix(".new")
    with new.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
