"""Who drives a group now, so that a hand and a manager never fight over one.

Whoever changes the size of a group first takes the lock of its id, and lets it go
when he is done: a manager for as long as the group is open, a person's command for as
long as it runs. Reading needs no lock. The lock is the operating system's: it goes
with the process, however that ends, so it never has to be removed by hand.

It is a file in a folder that belongs to the user: `fleeting/locks` below
`$XDG_STATE_HOME`, which is `~/.local/state` by default. Where a manager runs as another user, or in
a container, `FLEETING_LOCK_DIR` names a folder that all of them use; they may all
write to it. Nobody on another computer notices the lock.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import sys
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fleeting.errors import ConfigError, GroupHeld

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Generator

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
# Another user who may use the folder has to see who holds a lock; it tells no secret.
SHARED_FILE = 0o644
PRIVATE_DIRECTORY = 0o700
# Where nothing is linked to another file behind our back, and no child process inherits it.
SAFELY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
# On Windows a locked byte cannot be read, so it is one that the holder's name never reaches.
LOCKED_BYTE = 1 << 20
NOTE_BYTES = 300
READABLE_LENGTH = 60


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds a lock, as it said itself.

    Attributes:
        process: its id; 0 if it did not say.
        host: where it runs.
        purpose: what it does, such as `taskscaler run`; may be empty.
    """

    process: int = 0
    host: str = ""
    purpose: str = ""

    @property
    def is_alive(self) -> bool | None:
        """Return whether the process is there; None if that cannot be known from here."""
        if sys.platform == "win32" or self.host != socket.gethostname():
            return None
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return False
        except (OSError, OverflowError):
            return True  # Of another user.
        return True

    def __str__(self) -> str:
        """Say it to a person; empty if nothing is known."""
        if not self.process:
            return ""
        purpose = f", {self.purpose}" if self.purpose else ""
        return f"process {self.process} on {self.host}{purpose}"


def lock_directory() -> Path:
    """Return the folder of the locks, which need not be there yet.

    Raises:
        ConfigError: this user has no home, and nothing else names a folder; or what is named
            depends on where a command runs.
    """
    named = os.environ.get(DIRECTORY_VARIABLE)
    if named:
        if not Path(named).is_absolute():
            raise ConfigError(
                f"{DIRECTORY_VARIABLE}: {named} is another folder for whoever runs elsewhere; "
                "write its whole path"
            )
        return Path(named)
    state = os.environ.get("XDG_STATE_HOME") or os.environ.get("LOCALAPPDATA")
    try:
        # What is relative there is to be ignored, says the convention.
        above = Path(state) if state and Path(state).is_absolute() else _home() / ".local/state"
    except RuntimeError:
        raise ConfigError(
            "this user has no home directory for the locks of groups; name a folder with "
            f"{DIRECTORY_VARIABLE}"
        ) from None
    return above / "fleeting" / "locks"


def _home() -> Path:
    home = Path.home()
    if not home.is_absolute():
        raise RuntimeError(home)
    return home


def lock_path(id: str) -> Path:
    """Return the file that is the lock of a group.

    Args:
        id: of the group, `GroupInfo.id`; may hold any character.

    Raises:
        ConfigError: see `lock_directory`.
    """
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", id)[-READABLE_LENGTH:].strip("-.")
    digest = hashlib.sha256(id.encode(errors="surrogatepass")).hexdigest()[:16]
    return lock_directory() / f"{readable}-{digest}.lock"


@contextmanager
def driving(id: str, purpose: str) -> Generator[None]:
    """Hold the lock of a group: only one process at a time changes its size.

    A group that belongs to a process alone has an id of its own, and meets nobody.

    Args:
        id: of the group, `GroupInfo.id`.
        purpose: what this process does, for who is refused meanwhile.

    Raises:
        GroupHeld: on entering, another process that is alive holds it.
        ConfigError: on entering, there is no place for the lock.
    """
    path = lock_path(id)
    with ExitStack() as stack:
        try:
            path.parent.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)
            stack.enter_context(locked_file(path, purpose, passing=True))
        except BlockingIOError:
            holder = read_holder(path)
            # Of one that was killed, the name may still be there for who cannot write over it.
            known = holder is not None and holder.is_alive is not False
            raise GroupHeld(id, str(holder) if known else "") from None
        except OSError as error:
            raise ConfigError(
                f"the lock {path} of group {id} cannot be had ({error.strerror}); name a folder "
                f"that this user may write to with {DIRECTORY_VARIABLE}"
            ) from None
        yield


@contextmanager
def locked_file(path: Path, purpose: str = "", *, passing: bool = False) -> Generator[None]:
    """Lock a file, as long as this process lives at most; it says who holds it.

    Args:
        path: of a file that is nothing but the lock; made if it is missing.
        purpose: what this process does.
        passing: whether the file goes with the lock, and other users may use it, too.
            Else it stays, empty and private.

    Raises:
        BlockingIOError: on entering, another process that is alive holds it.
        OSError: on entering, the file cannot be made or locked.
    """
    handle = _locked(path, passing=passing)
    try:
        # Whoever is alive may be asked to stop, so say who that is.
        _write(handle, f"{os.getpid()} {socket.gethostname()} {purpose}".rstrip() + "\n")
        try:
            yield
        finally:
            _write(handle, "")
            # Somebody may have removed it, and then another one is another's.
            if passing and _is_there(path, handle):
                with suppress(OSError):
                    path.unlink()
    finally:
        os.close(handle)


def read_holder(path: Path) -> Holder | None:
    """Return who has locked a file, as it stands there; None if nobody has.

    It is not known for sure: whoever was killed has not taken his name away. See
    `Holder.is_alive`.
    """
    try:
        with path.open("rb") as file:
            text = file.read(NOTE_BYTES).decode(errors="replace")
    except OSError:
        return None
    # What stands there is for a person and may be another program's: do not trust it.
    process, _, rest = text.strip().partition(" ")
    host, _, purpose = rest.partition(" ")
    if not (process.isascii() and process.isdecimal() and host and rest.isprintable()):
        return None
    return Holder(int(process), host, purpose)


def _locked(path: Path, *, passing: bool) -> int:
    while True:
        handle = _open(path, passing=passing)
        try:
            _lock(handle)
            if not passing or _is_there(path, handle):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # Whoever held it has just removed it: it locks nothing any more.


def _open(path: Path, *, passing: bool) -> int:
    if not passing:
        return os.open(path, os.O_RDWR | os.O_CREAT | SAFELY, PRIVATE_FILE)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | SAFELY, SHARED_FILE)
    except PermissionError:
        with suppress(FileNotFoundError):
            return os.open(path, os.O_RDONLY | SAFELY)  # Another user's, which can be locked, too.
    # He has just removed it, or nobody may make one here.
    return os.open(path, os.O_RDWR | os.O_CREAT | SAFELY, SHARED_FILE)


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
    # On a full disk the lock holds all the same; only its message would be poorer.
    with suppress(OSError):
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, text.encode())
