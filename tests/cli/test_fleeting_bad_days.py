"""The command where streams, files or servers are not as they should be."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

START = "from fleeting.cli import main; main()"


def run(
    arguments: str,
    folder: Path,
    *,
    code: int,
    given: bytes = b"",
    streams: str = "",
    home: Path | None = None,
) -> list[str]:
    """Run the command in a folder, and return what it says on standard error."""
    line = f'exec "$0" -c "$1" {arguments} {streams}'
    completed = subprocess.run(
        ["/bin/sh", "-c", line, sys.executable, START],
        cwd=folder,
        env={
            "HOME": str(home or folder),
            "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
        },
        input=given,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert completed.returncode == code, completed.stderr
    return completed.stderr.decode().splitlines()


@pytest.mark.parametrize("streams", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(tmp_path: Path, streams: str) -> None:
    """A stream that is closed is one that nobody reads, and no reason to fail."""
    assert run("list", tmp_path, code=0, streams=streams) == []
    assert run("install local", tmp_path, code=0, streams=f"{streams} 2>/dev/null") == []


def test_files_are_named_as_they_are(tmp_path: Path) -> None:
    """What the system refuses is told with the name of the file, letter by letter."""
    (tmp_path / "Taken").write_text("")
    arguments = "login http://127.0.0.1:9/ --username x --password-stdin"
    told = run(f"{arguments} ", tmp_path, code=3, given=b"word\n", home=tmp_path / "Taken")
    assert (
        told[-1]
        == f"error: the system refused: not a directory at {tmp_path}/Taken/.config/fleeting"
    )


def test_password_that_is_no_text(tmp_path: Path) -> None:
    """Bytes that no file of credentials can hold are refused before they are tried."""
    arguments = "login http://127.0.0.1:9/ --username x --password-stdin"
    for given in (b"\xff\n", b"a\x01b\n"):
        (line,) = run(arguments, tmp_path, code=2, given=given)
        assert line.startswith("error: a user name or a password has a character")


def test_config_file_installs_names_only(tmp_path: Path) -> None:
    """A path in a config file is no plugin, and is refused with its place."""
    wheel = tmp_path / "x-1-py3-none-any.whl"
    wheel.touch()
    text = "[[runners]]\n[runners.autoscaler]\nplugin = {!r}\n"
    (tmp_path / "c.toml").write_text(text.format(str(wheel)))
    (line,) = run("install -c c.toml --no-index", tmp_path, code=2)
    assert line.startswith(
        f"error: c.toml: runners[0].autoscaler.plugin: '{wheel}' names no plugin"
    )
