"""Files that nobody else may read, and the lock that says who writes to them."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from fleeting import locked_file, read_holder
from taskscaler._errors import StoreError, StoreLocked

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

__all__ = (
    "beside",
    "check_kind",
    "create_private",
    "is_private",
    "locked",
    "make_directory",
    "open_private",
    "sync_directory",
)

PRIVATE_FILE = 0o600
PRIVATE_DIRECTORY = 0o700
# Where nothing is linked to another file behind our back, and no child process inherits it.
SAFELY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


def beside(path: Path, suffix: str) -> Path:
    """Return the file that has the same name with something added."""
    return path.with_name(path.name + suffix)


def make_directory(directory: Path) -> None:
    """Make a directory and what is missing above it, private to this user.

    Raises:
        StoreError: it cannot be made.
    """
    try:
        for part in (*reversed(directory.parents), directory):
            if not part.exists():
                part.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"the directory {directory} for the state cannot be made ({error.strerror}); make it "
            "yourself, or name a file elsewhere"
        ) from None


def check_kind(path: Path) -> None:
    """Refuse what is there and is no file.

    Raises:
        StoreError: it is a directory, a device or the like.
    """
    if path.exists() and not path.is_file():
        raise StoreError(f"{path} is no file; name a file for the state")


def create_private(path: Path) -> None:
    """Make an empty file that only this user may read, unless there is one.

    Raises:
        StoreError: it cannot be made, or is no file.
    """
    try:
        os.close(open_private(path, os.O_RDWR | os.O_EXCL))
    except FileExistsError:
        check_kind(path)
    except OSError as error:
        raise StoreError(
            f"the state file {path} cannot be made ({error.strerror}); make its directory "
            "writable for this user, or name a file elsewhere"
        ) from None
    else:
        sync_directory(path.parent)


def open_private(path: Path, flags: int) -> int:
    """Open a file, and make it readable for this user alone if it is missing.

    Raises:
        OSError: it cannot be opened, or is a symbolic link.
    """
    return os.open(path, flags | os.O_CREAT | SAFELY, PRIVATE_FILE)


def sync_directory(directory: Path) -> None:
    """Have the names in a directory survive a power loss, where a system offers that."""
    if sys.platform != "win32":
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Keep every other scaler away from a file, as long as this process lives at most.

    The lock is on a file of its own beside it, which says who holds it; see `fleeting._lock`.

    Raises:
        StoreLocked: another scaler that is alive holds it.
        StoreError: the lock cannot be had for another reason.
    """
    path_of_lock = beside(path, ".lock")
    with ExitStack() as stack:
        try:
            stack.enter_context(locked_file(path_of_lock))
        except BlockingIOError:
            holder = read_holder(path_of_lock)
            raise StoreLocked(
                f"the state file {path} is in use by another scaler"
                f"{f' ({holder})' if holder else ''}; stop that one, or give this one a file of "
                "its own"
            ) from None
        except OSError as error:
            raise _unlockable(path_of_lock, error) from None
        yield


def _unlockable(lock: Path, error: OSError) -> StoreError:
    return StoreError(
        f"the lock {lock} cannot be had ({error.strerror}); put the state into a directory on a "
        "local disk that this user may write to"
    )


def is_private(path: Path) -> bool:
    """Return whether nobody else may read a file, as far as the system tells."""
    return os.name == "nt" or not stat.S_IMODE(path.stat().st_mode) & 0o077
