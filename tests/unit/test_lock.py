"""The lock of a group: one process at a time, and gone with it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

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
# Takes and leaves one lock over and over, and counts in a file that only the lock protects.
COUNTER = """
import sys
from pathlib import Path
from fleeting.errors import GroupHeld
from fleeting._lock import driving
file, left = Path(sys.argv[1]), 200
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
    """Keep the locks of a test to itself."""
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


def test_a_second_process_is_refused(other: subprocess.Popen[str]) -> None:
    """Who comes second learns which process drives the group, where, and what it does."""
    with pytest.raises(GroupHeld) as raised, driving("aws/builders", "too late"):
        pass
    assert raised.value.id == "aws/builders"
    assert f"process {other.pid} on " in raised.value.holder
    assert raised.value.holder.endswith(", to test")
    assert "group aws/builders is driven by another process now (process" in str(raised.value)


def test_other_groups_are_free(other: subprocess.Popen[str]) -> None:
    """A lock is about one group, whatever others are called."""
    assert other.poll() is None
    with driving("aws-builders", "one"), driving("aws/builders/2", "another"):
        pass


def test_a_killed_process_holds_nothing(other: subprocess.Popen[str]) -> None:
    """After a crash the group is free at once, although the name of the dead still stands there."""
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


def test_nothing_is_left_behind(directory: Path) -> None:
    """In the end the file is gone, so that a thousand groups leave no thousand files."""
    with driving("one", "it"):
        assert len(list(directory.iterdir())) == 1
    assert list(directory.iterdir()) == []
    assert directory.stat().st_mode & 0o777 == 0o700


def test_removing_the_file_lets_nobody_in_twice(tmp_path: Path) -> None:
    """Processes that take and leave a lock over and over are never inside together."""
    counter = tmp_path / "counter"
    counter.write_text("0")
    command = [sys.executable, "-c", COUNTER, str(counter)]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert counter.read_text() == "600"


def test_the_name_of_a_file_is_safe() -> None:
    """An id with any characters is one file in the folder, and two ids are two."""
    ids = ["../../etc/passwd", "a/b", "a-b", "a b", "ä\ud800\0", "x" * 5000, "", "."]
    paths = [lock_path(id) for id in ids]
    assert {path.parent for path in paths} == {lock_directory()}
    assert len({path.name for path in paths}) == len(ids)
    assert all(len(path.name) < 100 and path.name.isascii() for path in paths)
    assert lock_path("aws/eu/builders").name.startswith("aws-eu-builders-")


def test_where_the_locks_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder that is named comes first, then the user's own for what is kept, then the home."""
    assert lock_directory() == tmp_path / "locks"
    monkeypatch.delenv("FLEETING_LOCK_DIR")
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert lock_directory() == tmp_path / "state/fleeting/locks"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert lock_directory() == tmp_path / ".local/state/fleeting/locks"


def test_no_place_for_locks_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a folder to write to nothing is driven, and the message says how to name one."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("FLEETING_LOCK_DIR", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="FLEETING_LOCK_DIR"), driving("g", "it"):
        pass


@pytest.mark.parametrize(
    "variables", [{"FLEETING_LOCK_DIR": "here"}, {"FLEETING_LOCK_DIR": "", "HOME": "here"}]
)
def test_a_folder_that_depends_on_the_command_is_none(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    """Two commands that run in different folders would not meet there, and both drive the group."""
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="FLEETING_LOCK_DIR"):
        lock_directory()


def test_what_is_another_ones_stays(directory: Path) -> None:
    """Where somebody has cleared the folder meanwhile, the lock of the next one is not removed."""
    with ExitStack() as stack:
        with driving("g", "the first"):
            lock_path("g").unlink()
            stack.enter_context(driving("g", "the second"))
        assert len(list(directory.iterdir())) == 1
        with pytest.raises(GroupHeld, match="the second"), driving("g", "the third"):
            pass


def test_a_dead_process_is_not_blamed() -> None:
    """Who holds a lock and could not write its name there is not told by that of the last one."""
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        pass
    with driving("g", "it"):
        lock_path("g").write_text(f"{dead.pid} {socket.gethostname()} killed\n")
        with pytest.raises(GroupHeld, match="another process now; stop"), driving("g", "too late"):
            pass


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """Nobody is made to write into a file elsewhere."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "lock").symlink_to(victim)
    with pytest.raises(OSError, match="lock"), locked_file(tmp_path / "lock", temporary=True):
        pass
    assert victim.read_text() == "precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_sees_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder that all may write to, a lock holds whoever has made its file."""
    shared = Path("/tmp") / f"locks-{os.getpid()}"  # noqa: S108 - others cannot enter tmp_path
    shared.mkdir()
    shared.chmod(0o1777)
    monkeypatch.setenv("FLEETING_LOCK_DIR", str(shared))
    script = (
        "import os, sys\nfrom fleeting.errors import ConfigError, GroupHeld\n"
        "from fleeting._lock import driving\n"
        "os.setuid(65534)\ntry:\n    with driving('g', 'too late'): print('in')\n"
        "except (ConfigError, GroupHeld) as refused: print(refused)\n"
    )

    def elsewhere() -> str:
        command = [sys.executable, "-c", script]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    try:
        with driving("g", "the first"):
            assert f"process {os.getpid()}" in elsewhere()
        assert elsewhere() == "in\n"
        lock_path("g").touch(0o644)  # Of one that was killed.
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
def test_a_strangers_text_is_not_repeated(tmp_path: Path, text: str) -> None:
    """What stands in a lock and is no holder's name is nobody."""
    path = tmp_path / "lock"
    path.write_bytes(text.encode("latin-1"))
    assert read_holder(path) is None


def test_a_holder_elsewhere_may_be_alive() -> None:
    """Of a process on another computer nobody knows whether it lives; one that is huge does not."""
    assert Holder(1, "elsewhere.invalid").is_alive is None
    assert str(Holder(1, "elsewhere.invalid", "it")) == "process 1 on elsewhere.invalid, it"
    assert str(Holder(1, "elsewhere.invalid")) == "process 1 on elsewhere.invalid"
