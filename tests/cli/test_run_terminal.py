"""`taskscaler run` on a terminal: the live status, the table, and a Ctrl-C that is typed."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cli_command import Command


# Becomes a program whose terminal is its standard input.
OWN_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """The command on a terminal of its own, as its foreground process."""

    def __init__(self, command: Command, *words: str, columns: int = 80) -> None:
        self._side, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, columns))
        words = ("run", "--report", str(command.report), *words)
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWN_TERMINAL, command.program, *words],
            cwd=command.folder,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        self.text = ""

    def read_until(self, text: str) -> None:
        """Read what is shown until there is some text in it."""
        while text not in self.text:
            data = self._read()
            assert data, f"{text!r} never came: {self.text!r}"

    def read_all(self) -> str:
        """Read what is shown until the command has ended."""
        while self._read():
            pass
        return self.text

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._side, text.encode())

    def close(self) -> None:
        """Hang up."""
        os.close(self._side)
        self.process.kill()
        self.process.wait()

    def _read(self) -> str:
        try:
            data = os.read(self._side, 65536).decode()
        except OSError:
            return ""  # Nobody has the terminal open any more.
        self.text += data
        return data


@pytest.fixture
def terminal(taskscaler: Command, fifo: Path) -> Iterator[Terminal]:
    """Yield a terminal on which two jobs read a pipe, one after the other."""
    script = f"echo up; cat {fifo}"
    opened = Terminal(taskscaler, "--count", "2", "--max-instances", "1", "--", "sh", "-c", script)
    yield opened
    opened.close()


def test_status_and_table(taskscaler: Command, terminal: Terminal, fifo: Path) -> None:
    """While jobs run, a line shows how many; at the end a table has all of them."""
    terminal.read_until("jobs: 1 waiting, 1 running, 0 done")
    fifo.write_text("one\n")
    terminal.read_until("jobs: 0 waiting, 1 running, 1 done")
    fifo.write_text("two\n")
    text = terminal.read_all()
    assert terminal.process.wait() == 0
    assert "command#1 | one\r\n" in text
    assert "instance/slot" in text
    assert text.endswith("s\r\n")
    assert set(taskscaler.states().values()) == {"success"}


def test_typed_interrupt_lets_the_job_finish(
    taskscaler: Command, terminal: Terminal, fifo: Path
) -> None:
    """A Ctrl-C reaches every process of the terminal, and still the running job ends well."""
    terminal.read_until("command#1 | up")
    terminal.type("\x03")
    terminal.read_until("no more jobs are started")
    fifo.write_text("go on\n")
    terminal.read_all()
    assert terminal.process.wait() == 130
    assert taskscaler.states() == {"command#1": "success", "command#2": "canceled"}


def test_narrow_terminal_shows_what_matters_most(taskscaler: Command, fifo: Path) -> None:
    """On 44 columns, the status tells of the jobs, and the table has whole words."""
    words = ("--count", "2", "--max-instances", "1", "--", "sh", "-c", f"cat {fifo}; exit 3")
    terminal = Terminal(taskscaler, *words, columns=44)
    try:
        terminal.read_until("jobs: 1 waiting, 1 running, 0 done")
        fifo.write_text("one\n")
        terminal.read_until("jobs: 0 waiting, 1 running, 1 done")
        fifo.write_text("two\n")
        table = terminal.read_all().rpartition("reason")[2]
    finally:
        terminal.close()
    assert [table.count(word) for word in ("command#1", "failed", "exit code 3")] == [1, 3, 2]
