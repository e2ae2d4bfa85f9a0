"""The command where streams, files or servers are not as they should be."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest

from fleeting._program import run_program

if TYPE_CHECKING:
    from pathlib import Path

START = "from fleeting.cli import main; main()"


def run(
    arguments: str,
    folder: Path,
    *,
    code: int,
    streams: str = "",
) -> list[str]:
    """Run the command in a folder, and return what it says on standard error."""
    line = f'exec "$0" -c "$1" {arguments} {streams}'
    completed = subprocess.run(
        ["/bin/sh", "-c", line, sys.executable, START],
        cwd=folder,
        env={"HOME": str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert completed.returncode == code, completed.stderr
    return completed.stderr.decode().splitlines()


@pytest.mark.parametrize("streams", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(tmp_path: Path, streams: str) -> None:
    """A closed stream is not a reason to fail."""
    assert run("list", tmp_path, code=0, streams=streams) == []
    assert run("install local", tmp_path, code=0, streams=f"{streams} 2>/dev/null") == []


def test_files_are_named_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An error of the system names the file exactly."""
    taken = tmp_path / "Taken"
    taken.touch()
    command = click.Command("make", callback=(taken / "folder").mkdir)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["make"])
        assert run_program(command, "make") == 3
    told = capsys.readouterr().err
    assert told == f"error: the system refused: not a directory at {taken}/folder\n"


def test_config_file_installs_names_only(tmp_path: Path) -> None:
    """A path in a config file does not name a plugin; it is refused with its place."""
    wheel = tmp_path / "x-1-py3-none-any.whl"
    wheel.touch()
    text = "[[runners]]\n[runners.autoscaler]\nplugin = {!r}\n"
    (tmp_path / "c.toml").write_text(text.format(str(wheel)))
    (line,) = run("install -c c.toml --no-index", tmp_path, code=2)
    assert line.startswith(f"error: c.toml: runners[0].autoscaler.plugin: '{wheel}' is a path")
