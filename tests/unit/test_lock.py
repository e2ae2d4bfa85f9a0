"""The lock of a group: only one process holds it, and it ends with the process."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fleeting import _lock
from fleeting._lock import (
    Holder,
    driving,
    lock_directory,
    lock_path,
    locked_file,
    read_holder,
)
from fleeting.errors import ConfigError, GroupHeld

if TYPE_CHECKING:
    from collections.abc import Iterator

CHILD = """
import sys
from fleeting._lock import driving
with driving(sys.argv[1], "to test"):
    print("held", flush=True)
    sys.stdin.read()
"""
# Takes and releases one lock many times, and counts in a file that only the lock protects.
COUNTER = """
import sys
from pathlib import Path
from fleeting.errors import GroupHeld
from fleeting._lock import driving
file, left = Path(sys.argv[1]), 100
while left:
    try:
        with driving("race", "to count"):
            file.write_text(str(int(file.read_text()) + 1))
            left -= 1
    except GroupHeld:
        pass
"""


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a directory of locks."""
    monkeypatch.setenv("FLEETING_LOCK_DIR", str(tmp_path / "locks"))
    return tmp_path / "locks"


@pytest.fixture
def other() -> Iterator[subprocess.Popen[str]]:
    """Yield another process that drives the group `aws/builders`."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, "aws/builders"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_second_process_is_refused(other: subprocess.Popen[str]) -> None:
    """The error names the process that holds the lock, its computer and its purpose."""
    with pytest.raises(GroupHeld) as raised, driving("aws/builders", "refused"):
        pass
    assert raised.value.id == "aws/builders"
    assert f"process {other.pid} on " in raised.value.holder
    assert raised.value.holder.endswith(", to test")
    assert "group aws/builders is driven by another process now (process" in str(raised.value)


def test_other_groups_are_free(other: subprocess.Popen[str]) -> None:
    """Groups with similar ids have different locks."""
    assert other.poll() is None
    with driving("aws-builders", "one"), driving("aws/builders/2", "another"):
        pass


def test_killed_process_holds_no_lock(other: subprocess.Popen[str]) -> None:
    """After a crash the lock is free at once, although the note of the process remains."""
    other.kill()
    other.wait()
    path = lock_path("aws/builders")
    left = read_holder(path)
    assert left is not None
    assert left.is_alive is False
    with driving("aws/builders", "the next"):
        holder = read_holder(path)
        assert holder is not None
        assert (holder.process, holder.purpose) == (os.getpid(), "the next")
        assert holder.is_alive


def test_released_lock_leaves_no_file(directory: Path) -> None:
    """The file is removed with the lock, and the directory is private."""
    with driving("one", "it"):
        assert len(list(directory.iterdir())) == 1
    assert list(directory.iterdir()) == []
    assert directory.stat().st_mode & 0o777 == 0o700


def test_lock_is_exclusive(tmp_path: Path) -> None:
    """Processes that take and release a lock many times never hold it together."""
    counter = tmp_path / "counter"
    counter.write_text("0")
    command = [sys.executable, "-c", COUNTER, str(counter)]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert counter.read_text() == "300"


def test_file_name_is_safe() -> None:
    """Any id is one file in the directory, and different ids are different files."""
    ids = ["../../etc/passwd", "a/b", "a-b", "a b", "ä\ud800\0", "x" * 5000, "", "."]
    paths = [lock_path(id) for id in ids]
    assert {path.parent for path in paths} == {lock_directory()}
    assert len({path.name for path in paths}) == len(ids)
    assert all(len(path.name) < 100 and path.name.isascii() for path in paths)
    assert lock_path("aws/eu/builders").name.startswith("aws-eu-builders-")


def test_lock_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """FLEETING_LOCK_DIR comes first, then XDG_STATE_HOME, then the home directory."""
    assert lock_directory() == tmp_path / "locks"
    monkeypatch.delenv("FLEETING_LOCK_DIR")
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert lock_directory() == tmp_path / "state/fleeting/locks"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert lock_directory() == tmp_path / ".local/state/fleeting/locks"


def test_lock_that_cannot_be_created(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a writable directory the lock is refused, and the message names the variable."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("FLEETING_LOCK_DIR", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="FLEETING_LOCK_DIR"), driving("g", "it"):
        pass


def test_relative_directory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is refused, because processes would use different directories."""
    monkeypatch.setenv("FLEETING_LOCK_DIR", "here")
    with pytest.raises(ConfigError, match="FLEETING_LOCK_DIR"):
        lock_directory()


@pytest.mark.parametrize("home", ["file", "relative", None])
def test_user_without_a_writable_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str | None
) -> None:
    """The lock is in the run-time directory, or in a directory of the user in `/tmp`."""
    monkeypatch.setattr(_lock, "TEMPORARY", tmp_path / "tmp")
    (tmp_path / "tmp").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "file").touch()
    for name in ("FLEETING_LOCK_DIR", "XDG_STATE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    if home is None:
        monkeypatch.delenv("HOME")
        monkeypatch.setattr(pwd, "getpwuid", dict[int, object]().__getitem__)
    else:
        monkeypatch.setenv("HOME", str(tmp_path / home) if home == "file" else home)
    assert lock_directory() == tmp_path / "run" / "fleeting" / "locks"
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    assert lock_directory() == tmp_path / "tmp" / f"fleeting-locks-{os.getuid()}"
    with driving("g", "it"):
        assert read_holder(lock_path("g")) is not None


def test_directory_of_another_user_in_tmp_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A link, or a directory that another user made first, is not used."""
    monkeypatch.setattr(_lock, "TEMPORARY", tmp_path)
    for name in ("FLEETING_LOCK_DIR", "XDG_RUNTIME_DIR", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"fleeting-locks-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="another user"), driving("g", "it"):
        pass


def test_file_of_another_process_is_not_removed(directory: Path) -> None:
    """If the file was deleted and created again, the first holder does not remove it."""
    with ExitStack() as stack:
        with driving("g", "the first"):
            lock_path("g").unlink()
            stack.enter_context(driving("g", "the second"))
        assert len(list(directory.iterdir())) == 1
        with pytest.raises(GroupHeld, match="the second"), driving("g", "the third"):
            pass


def test_note_of_a_dead_process_is_ignored() -> None:
    """An error does not name a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        pass
    with driving("g", "it"):
        lock_path("g").write_text(f"{dead.pid} {socket.gethostname()} killed\n")
        with pytest.raises(GroupHeld, match="another process now; stop"), driving("g", "refused"):
            pass


def test_link_is_not_followed(tmp_path: Path) -> None:
    """A lock is never written through a symbolic link."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "lock").symlink_to(victim)
    with pytest.raises(OSError, match="lock"), locked_file(tmp_path / "lock", temporary=True):
        pass
    assert victim.read_text() == "precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_lock_of_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a shared directory, a lock also excludes processes of other users."""
    shared = Path("/tmp") / f"locks-{os.getpid()}"  # noqa: S108 - other users cannot enter tmp_path
    shared.mkdir()
    shared.chmod(0o1777)
    monkeypatch.setenv("FLEETING_LOCK_DIR", str(shared))
    script = (
        "import os, sys\nfrom fleeting.errors import ConfigError, GroupHeld\n"
        "from fleeting._lock import driving\n"
        "os.setuid(65534)\ntry:\n    with driving('g', 'refused'): print('in')\n"
        "except (ConfigError, GroupHeld) as refused: print(refused)\n"
    )

    def elsewhere() -> str:
        command = [sys.executable, "-c", script]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    try:
        with driving("g", "the first"):
            assert f"process {os.getpid()}" in elsewhere()
        assert elsewhere() == "in\n"
        lock_path("g").touch(0o644)  # The file of a killed process.
        assert elsewhere() == "in\n"
        lock_path("g").unlink()
        shared.chmod(0o755)
        assert "Permission denied" in elsewhere()
    finally:
        for path in shared.iterdir():
            path.unlink()
        shared.rmdir()


@pytest.mark.parametrize(
    "text", ["", "\n", "12", "x y", "-1 host", "12 ho\x1bst", "\x00\xff", "1" * 400]
)
def test_invalid_note_is_ignored(tmp_path: Path, text: str) -> None:
    """A file without a valid note has no known holder."""
    path = tmp_path / "lock"
    path.write_bytes(text.encode("latin-1"))
    assert read_holder(path) is None


def test_holder_on_another_computer() -> None:
    """It is unknown whether a process on another computer is alive."""
    assert Holder(1, "elsewhere.invalid").is_alive is None
    assert str(Holder(1, "elsewhere.invalid", "it")) == "process 1 on elsewhere.invalid, it"
    assert str(Holder(1, "elsewhere.invalid")) == "process 1 on elsewhere.invalid"
