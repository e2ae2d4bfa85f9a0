"""Runs a command on a terminal of its own, as the foreground process."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

# Makes standard input the controlling terminal, and becomes the program.
OWN_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """A terminal and the command that runs on it.

    Attributes:
        process: the command.
        text: everything that was shown.
    """

    def __init__(
        self,
        program: str,
        words: Sequence[str],
        folder: Path,
        *,
        columns: int = 80,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._side, self._theirs = pty.openpty()
        termios.tcsetwinsize(self._theirs, (24, columns))
        self.modes = termios.tcgetattr(self._theirs)
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWN_TERMINAL, program, *words],
            cwd=folder,
            env=environment,
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
        )
        self._is_open = True
        self.text = ""

    def read_until(self, text: str) -> str:
        """Read the output until new output contains the text, and return the new output."""
        shown = ""
        while text not in shown:
            data = self._read()
            assert data, f"{text!r} never came: {self.text!r}"
            shown += data
        return shown

    def read_all(self) -> str:
        """Read the output until the command has ended, and return all of it."""
        self.let_go()
        while self._read():
            pass
        return self.text

    def let_go(self) -> None:
        """Close our copy of the command's side, so that the terminal closes with the command."""
        if self._is_open:
            self._is_open = False
            os.close(self._theirs)

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._side, text.encode())

    def resize(self, columns: int, rows: int) -> None:
        """Change the size of the window, which sends the command a signal."""
        termios.tcsetwinsize(self._side, (rows, columns))

    def is_restored(self) -> bool:
        """Return whether the terminal has the modes that it had before the command."""
        return termios.tcgetattr(self._theirs) == self.modes

    def close(self) -> None:
        """Close the terminal and end the command."""
        self.let_go()
        os.close(self._side)
        self.process.kill()
        self.process.wait()

    def _read(self) -> str:
        try:
            data = os.read(self._side, 65536).decode(errors="replace")
        except OSError:
            return ""  # The command has closed the terminal.
        self.text += data
        return data
