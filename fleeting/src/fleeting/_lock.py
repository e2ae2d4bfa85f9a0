"""The lock of a group: only one process at a time changes its size.

A manager holds the lock of a group while its scaler runs, and a command such as
`fleeting group increase` holds it while it runs. Reading needs no lock. It is a lock of the
operating system, which ends with the process in every case, so it never has to be removed by
hand.

The lock is a file in the user's `$XDG_STATE_HOME/fleeting/locks` (`~/.local/state` by
default). If the user cannot write there, it is in `$XDG_RUNTIME_DIR/fleeting/locks`, or in
`/tmp/fleeting-locks-UID`. If a manager runs as another user or in a container,
`FLEETING_LOCK_DIR` names a directory that all of them share and can write to. The lock does not
reach other computers.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import socket
import stat
import sys
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fleeting._regular_files import open_regular
from fleeting.errors import ConfigError, GroupHeld

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

__all__ = (
    "Holder",
    "driving",
    "lock_directory",
    "lock_path",
    "locked_file",
    "read_holder",
)

DIRECTORY_VARIABLE = "FLEETING_LOCK_DIR"
PRIVATE_FILE = 0o600
# In a shared directory, other users must be able to read who holds a lock.
SHARED_FILE = 0o644
PRIVATE_DIRECTORY = 0o700
# Follow no link that another user may have planted.
SAFELY = getattr(os, "O_NOFOLLOW", 0)
# On Windows a locked byte cannot be read, so lock one that is far behind the note.
LOCKED_BYTE = 1 << 20
NOTE_BYTES = 300
TEMPORARY = Path("/tmp")  # noqa: S108 -- the directory in it is checked
READABLE_LENGTH = 60


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds a lock, according to the note in the file.

    Attributes:
        process: its id; 0 if unknown.
        host: the host name of its computer.
        purpose: what it does, such as `taskscaler run`; may be empty.
    """

    process: int = 0
    host: str = ""
    purpose: str = ""

    @property
    def is_alive(self) -> bool | None:
        """Return whether the process exists; None if it runs on another computer."""
        if sys.platform == "win32" or self.host != socket.gethostname():
            return None
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return False
        except (OSError, OverflowError):
            return True  # It belongs to another user.
        return True

    def __str__(self) -> str:
        """Return a description for messages; empty if the process is unknown."""
        if not self.process:
            return ""
        purpose = f", {self.purpose}" if self.purpose else ""
        return f"process {self.process} on {self.host}{purpose}"


def lock_directory() -> Path:
    """Return the directory of the locks, which may not exist yet.

    It is the first that this user can write to, so all processes of a user with the same
    permissions use the same one. If there is none, it is the first.

    Raises:
        ConfigError: `FLEETING_LOCK_DIR` is a relative path.
    """
    named = os.environ.get(DIRECTORY_VARIABLE)
    if named:
        if not Path(named).is_absolute():
            # Two processes with different working directories would use different locks.
            raise ConfigError(f"{DIRECTORY_VARIABLE} must be an absolute path, got {named!r}")
        return Path(named)
    candidates = list(_candidates())
    return next(filter(_can_write, candidates), candidates[0])


def _candidates() -> Iterator[Path]:
    state = os.environ.get("XDG_STATE_HOME") or os.environ.get("LOCALAPPDATA")
    # The XDG convention says to ignore relative paths.
    if state and Path(state).is_absolute():
        yield Path(state) / "fleeting" / "locks"
    else:
        with suppress(RuntimeError):  # The user has no home directory.
            home = Path.home()
            if home.is_absolute():
                yield home / ".local" / "state" / "fleeting" / "locks"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_absolute():
        yield Path(runtime) / "fleeting" / "locks"
    yield _temporary_directory()


def _temporary_directory() -> Path:
    if sys.platform == "win32":
        return Path(tempfile.gettempdir()) / "fleeting-locks"
    # Not `$TMPDIR`, which may differ between the processes of a user.
    return TEMPORARY / f"fleeting-locks-{os.getuid()}"


def _can_write(directory: Path) -> bool:
    """Return whether this user can create files in a directory, or the directory itself."""
    existing = next(path for path in (directory, *directory.parents) if os.path.lexists(path))
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def _make_directory(directory: Path) -> None:
    """Create the directory of the locks.

    Raises:
        OSError: it cannot be created, or another user owns one that should be this user's.
    """
    directory.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)
    if sys.platform != "win32" and directory == _temporary_directory():
        found = directory.stat(follow_symlinks=False)
        # In `/tmp`, another user may have been faster, and could remove the locks.
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise PermissionError(errno.EPERM, "it belongs to another user")


def lock_path(id: str) -> Path:
    """Return the path of the lock of a group.

    Args:
        id: of the group, `GroupInfo.id`; may contain any character.

    Raises:
        ConfigError: see `lock_directory`.
    """
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", id)[-READABLE_LENGTH:].strip("-.")
    digest = hashlib.sha256(id.encode(errors="surrogatepass")).hexdigest()[:16]
    return lock_directory() / f"{readable}-{digest}.lock"


@contextmanager
def driving(id: str, purpose: str) -> Generator[None]:
    """Hold the lock of a group while the block runs.

    Args:
        id: of the group, `GroupInfo.id`.
        purpose: what this process does, for the message that refuses other processes.

    Raises:
        GroupHeld: on entering, another process holds the lock.
        ConfigError: on entering, the lock cannot be created.
    """
    path = lock_path(id)
    with ExitStack() as stack:
        try:
            _make_directory(path.parent)
            stack.enter_context(locked_file(path, purpose, temporary=True))
        except BlockingIOError:
            holder = read_holder(path)
            # The note of a killed process stays if the new holder may not write to the file.
            known = holder is not None and holder.is_alive is not False
            raise GroupHeld(id, str(holder) if known else "") from None
        except OSError as error:
            raise ConfigError(
                f"cannot create the lock {path} of group {id} ({error.strerror}); set "
                f"{DIRECTORY_VARIABLE} to a directory that this user can write to"
            ) from None
        yield


@contextmanager
def locked_file(path: Path, purpose: str = "", *, temporary: bool = False) -> Generator[None]:
    """Hold the lock of a file while the block runs; the file contains a note of the holder.

    Args:
        path: of the file, which is used for nothing else; created if it is missing.
        purpose: what this process does, for the note.
        temporary: whether to remove the file with the lock, and to share it with other users;
            otherwise it stays, empty and private.

    Raises:
        BlockingIOError: on entering, another process holds the lock.
        OSError: on entering, the file cannot be created or locked.
    """
    handle = _locked(path, temporary=temporary)
    try:
        # The note lets an operator find the process that has to stop.
        _write(handle, f"{os.getpid()} {socket.gethostname()} {purpose}".rstrip() + "\n")
        try:
            yield
        finally:
            _write(handle, "")
            # The file may have been deleted and recreated by another process.
            if temporary and _is_there(path, handle):
                with suppress(OSError):
                    path.unlink()
    finally:
        os.close(handle)


def read_holder(path: Path) -> Holder | None:
    """Return the holder that the note in a file names; None if it has no valid note.

    The note of a killed process stays in the file, so check `Holder.is_alive`.
    """
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            text = file.read(NOTE_BYTES).decode(errors="replace")
    except OSError:
        return None
    # Another program may have written the file, so check every part.
    process, _, rest = text.strip().partition(" ")
    host, _, purpose = rest.partition(" ")
    if not (process.isascii() and process.isdecimal() and host and rest.isprintable()):
        return None
    return Holder(int(process), host, purpose)


def _locked(path: Path, *, temporary: bool) -> int:
    while True:
        handle = _open(path, temporary=temporary)
        try:
            _lock(handle)
            if not temporary or _is_there(path, handle):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # The last holder has just removed the file, so its lock means nothing.


def _open(path: Path, *, temporary: bool) -> int:
    flags = os.O_RDWR | os.O_CREAT | SAFELY
    if not temporary:
        return open_regular(path, flags, PRIVATE_FILE)
    try:
        return open_regular(path, flags, SHARED_FILE)
    except PermissionError:
        with suppress(FileNotFoundError):
            # A file of another user can be locked, too.
            return open_regular(path, os.O_RDONLY | SAFELY)
    # It was removed in between, or this user may not create files here.
    return open_regular(path, flags, SHARED_FILE)


def _is_there(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat(follow_symlinks=False))
    except OSError:
        return False


def _lock(handle: int) -> None:
    try:
        if sys.platform == "win32":
            os.lseek(handle, LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except PermissionError as error:
        raise BlockingIOError(*error.args) from None


def _write(handle: int, text: str) -> None:
    # On a full disk the lock still holds; only the note is lost.
    with suppress(OSError):
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, text.encode())
