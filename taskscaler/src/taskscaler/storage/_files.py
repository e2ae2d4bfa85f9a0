"""Private files, and the lock of the one scaler that writes to a state file."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from fleeting import locked_file, open_regular, read_holder
from taskscaler._errors import StoreError, StoreLocked

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

__all__ = (
    "check_kind",
    "create_private",
    "is_private",
    "locked",
    "make_directory",
    "open_private",
    "owner_note",
    "sibling",
    "sync_directory",
)

PRIVATE_FILE = 0o600
PRIVATE_DIRECTORY = 0o700
# Follow no symbolic link that another user may have planted.
SAFELY = getattr(os, "O_NOFOLLOW", 0)


def sibling(path: Path, suffix: str) -> Path:
    """Return the file next to another one that has its name plus a suffix."""
    return path.with_name(path.name + suffix)


def make_directory(directory: Path) -> None:
    """Create a directory and its missing parents, private to this user.

    Raises:
        StoreError: it cannot be created.
    """
    try:
        for part in (*reversed(directory.parents), directory):
            if not part.exists():
                part.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"the directory {directory} for the state file cannot be created ({error.strerror}); "
            "create it yourself, or choose a file elsewhere"
        ) from None


def check_kind(path: Path) -> None:
    """Check that a path is a regular file, or does not exist.

    Raises:
        StoreError: it is a directory, a device or the like.
    """
    if path.exists() and not path.is_file():
        raise StoreError(f"{path} is not a regular file; choose another path for the state file")


def create_private(path: Path) -> None:
    """Create an empty file that only this user may read, unless it exists.

    Raises:
        StoreError: it cannot be created, or is not a regular file.
    """
    try:
        os.close(open_private(path, os.O_RDWR | os.O_EXCL))
    except FileExistsError:
        check_kind(path)
    except OSError as error:
        raise StoreError(
            f"the state file {path} cannot be created ({error.strerror}); make its directory "
            "writable for this user, or choose a file elsewhere"
        ) from None
    else:
        sync_directory(path.parent)


def open_private(path: Path, flags: int) -> int:
    """Open a file; if it is missing, create it so that only this user may read it.

    Raises:
        OSError: it cannot be opened, or is a symbolic link.
    """
    return open_regular(path, flags | os.O_CREAT | SAFELY, PRIVATE_FILE)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory survive a power loss, where the system can do that."""
    if sys.platform != "win32":
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Keep other scalers from using a file while the block runs and this process lives.

    The lock is on a separate file next to it, which also names the holder.

    Raises:
        StoreLocked: another scaler that is alive holds it.
        StoreError: the lock cannot be acquired for another reason.
    """
    path_of_lock = sibling(path, ".lock")
    with ExitStack() as stack:
        try:
            stack.enter_context(locked_file(path_of_lock))
        except BlockingIOError:
            holder = read_holder(path_of_lock)
            raise StoreLocked(
                f"the state file {path} is in use by another scaler"
                f"{f' ({holder})' if holder else ''}; stop that scaler, or choose another file for "
                "this one"
            ) from None
        except OSError as error:
            raise _unlockable(path_of_lock, error) from None
        yield


def _unlockable(lock: Path, error: OSError) -> StoreError:
    return StoreError(
        f"the lock file {lock} cannot be locked ({error.strerror}{owner_note(lock)}); put the "
        "state file into a directory on a local disk that this user may write to"
    )


def is_private(path: Path) -> bool:
    """Return whether only this user may read a file. On Windows, modes do not tell."""
    return os.name == "nt" or not stat.S_IMODE(path.stat().st_mode) & 0o077


def owner_note(path: Path) -> str:
    """Return a note of the user whom a file belongs to, if that is another one; else nothing."""
    if sys.platform == "win32":
        return ""
    try:
        owner = path.stat().st_uid
    except OSError:
        return ""
    if owner == os.geteuid():
        return ""
    return f"; it belongs to {_user(owner)}, and this process runs as {_user(os.geteuid())}"


def _user(number: int) -> str:
    """Return the name of a user, or the number of one without a name, as in containers."""
    import pwd

    try:
        return f"user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"user id {number}"
