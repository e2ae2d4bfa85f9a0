"""Opening files that may be something else by now."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from fleeting import open_regular, read_regular

if TYPE_CHECKING:
    from pathlib import Path


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
