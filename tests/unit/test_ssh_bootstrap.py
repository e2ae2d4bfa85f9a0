"""How a command's environment passes through any login shell."""

from __future__ import annotations

import importlib
import logging
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from fleeting.connectors._ssh_bootstrap import Launch, prepare

if TYPE_CHECKING:
    from pathlib import Path

EVERY_BYTE = os.fsdecode(bytes(range(1, 256))) + "\n'\\''\n"
LOGIN_SHELLS = ("dash", "bash", "zsh", "fish", "csh", "busybox")
PRINT = (
    f"exec {sys.executable} -c 'import os, sys; out = sys.stdout.buffer; "
    'out.write(os.environb[b"VALUE"] + b"|" + os.getcwdb() + b"|" + sys.stdin.buffer.read())\''
)


def _installed(shell: str) -> list[str]:
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"{shell} is not installed")
    return [path, "sh"] if shell == "busybox" else [path]


def _line(launch: Launch) -> str:
    assert launch.line is not None
    return launch.line


@pytest.mark.parametrize("shell", LOGIN_SHELLS)
def test_any_login_shell_starts_the_command(shell: str, tmp_path: Path) -> None:
    """With any login shell, value, directory and the command's own input arrive unchanged."""
    launch = prepare(PRINT, {"VALUE": EVERY_BYTE}, str(tmp_path), announced=False)
    done = subprocess.run(
        [*_installed(shell), "-c", _line(launch)],
        input=launch.header + b"its own\ninput\0",
        capture_output=True,
        env={**os.environ, "SHELL": "/bin/sh", "LC_ALL": "C.UTF-8"},
        check=False,
    )
    assert done.stderr == b""
    assert done.stdout == b"|".join(
        [os.fsencode(EVERY_BYTE), os.fsencode(tmp_path), b"its own\ninput\0"]
    )


@pytest.mark.parametrize("shell", ["dash", "bash", "zsh", "busybox"])
def test_any_system_shell_runs_the_script(shell: str, tmp_path: Path) -> None:
    """The script works whichever shell `/bin/sh` is."""
    launch = prepare(PRINT, {"VALUE": EVERY_BYTE}, str(tmp_path), announced=False)
    line = _line(launch).replace("/bin/sh", " ".join(_installed(shell)))
    done = subprocess.run(
        ["/bin/sh", "-c", line],
        input=launch.header,
        capture_output=True,
        env={**os.environ, "SHELL": "/bin/sh"},
        check=False,
    )
    assert (done.stdout.split(b"|" + os.fsencode(tmp_path))[0], done.stderr) == (
        os.fsencode(EVERY_BYTE),
        b"",
    )


def test_an_incomplete_header_starts_nothing(tmp_path: Path) -> None:
    """If the input ends within the header, the command is not started."""
    launch = prepare(f"touch {tmp_path}/started", {"A": "x\ny"}, None, announced=False)
    for length in range(0, len(launch.header), 7):
        done = subprocess.run(
            ["/bin/sh", "-c", _line(launch)], input=launch.header[:length], check=False
        )
        assert done.returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_has_no_secret() -> None:
    """The command line, which others can read, has no part of environment, directory or command."""
    launch = prepare("echo secret", {"SECRET": "secret"}, "/secret", announced=True)
    assert "secret" not in _line(launch).lower()


def test_a_plain_command_is_sent_unchanged() -> None:
    """Without environment and directory, the command line is sent unchanged."""
    launch = prepare("echo 'a' | wc", {}, None, announced=False)
    assert (launch.line, launch.header) == ("echo 'a' | wc", b"")


@pytest.mark.parametrize("name", ["", "1A", "A B", "A=B", "A\n", "É", "A;B"])
def test_names_of_variables_are_checked(name: str) -> None:
    """An invalid name of a variable is refused, and the message has the name."""
    with pytest.raises(ValueError, match="not a valid variable name"):
        prepare("true", {name: "x"}, None, announced=False)


@pytest.mark.parametrize(
    ("command", "value", "cwd"), [("a\0", "b", "c"), ("a", "b\0", "c"), ("a", "b", "c\0")]
)
def test_nul_is_refused(command: str, value: str, cwd: str) -> None:
    """A NUL, which is impossible in a command line, variable or path, is refused."""
    with pytest.raises(ValueError, match="NUL"):
        prepare(command, {"A": value}, cwd, announced=False)


def test_ssh_library_does_not_log_each_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """An application that logs at INFO does not get a line for each command of each instance."""
    importlib.import_module("fleeting.connectors._ssh_login")
    monkeypatch.setattr(logging.getLogger(), "level", logging.INFO)
    assert not logging.getLogger("asyncssh").isEnabledFor(logging.INFO)
