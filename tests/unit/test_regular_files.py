"""Opening files that may be something else by now."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fleeting import _regular_files, locked_file, open_regular, read_holder, read_regular, read_toml
from fleeting.errors import ConfigError


def test_regular_file_is_read(tmp_path: Path) -> None:
    """Also through a symbolic link."""
    (tmp_path / "file").write_bytes(b"x\xff")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link") == b"x\xff"


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY | os.O_CREAT, os.O_RDWR])
def test_pipe_does_not_block(tmp_path: Path, flags: int) -> None:
    """Without anything at its other end, it is an error at once."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(tmp_path / "pipe", flags)


def test_directory_and_device_are_refused(tmp_path: Path) -> None:
    """The error of a directory is the system's."""
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    with pytest.raises(OSError, match="not a regular file"):
        read_regular(tmp_path.joinpath("/dev/zero"))


@pytest.mark.parametrize("size", [1, 200_000])
def test_pipe_of_a_command_is_a_file_that_a_user_names(size: int) -> None:
    """`<(command)` of a shell works, also if the command is slow to start or has ended."""
    text = f'a = "{"x" * size}"'
    for command in (f"echo '{text}' | cat", f"sleep 0.2; echo '{text}'"):
        reader, writer = os.pipe()
        with subprocess.Popen(["/bin/sh"], stdin=subprocess.PIPE, stdout=writer) as process:
            os.close(writer)
            assert process.stdin is not None
            process.stdin.write(command.encode())
            process.stdin.close()
            assert read_toml(Path(f"/dev/fd/{reader}")) == {"a": "x" * size}
            os.close(reader)


def test_pipe_that_ends_without_a_word_is_an_empty_file() -> None:
    """Such as that of `<(true)`: its end is noticed at once."""
    reader, writer = os.pipe()
    os.close(writer)
    assert read_toml(Path(f"/dev/fd/{reader}")) == {}
    os.close(reader)


def test_pipe_without_an_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that nothing writes to, or that stays open, is an error after a while."""
    monkeypatch.setattr(_regular_files, "PIPE_SECONDS", 0.2)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match=r"this pipe had no end within 0\.2 s"):
        read_toml(pipe)
    kept_open = os.open(pipe, os.O_RDWR)
    os.write(kept_open, b"a = 1")
    with pytest.raises(ConfigError, match=r"this pipe had no end within 0\.2 s"):
        read_toml(pipe)
    os.close(kept_open)


def test_holder_of_a_pipe_is_unknown(tmp_path: Path) -> None:
    """A pipe in the place of a lock file does not block who asks for its holder."""
    os.mkfifo(tmp_path / "lock")
    assert read_holder(tmp_path / "lock") is None
    with pytest.raises(OSError, match="not a regular file"), locked_file(tmp_path / "lock"):
        pytest.fail("it was locked")
