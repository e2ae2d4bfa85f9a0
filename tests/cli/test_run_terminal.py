"""`taskscaler run` on a terminal: the status line, the table, and a typed Ctrl-C."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cli_command import PROGRAM
from own_terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cli_command import Command


def open_terminal(command: Command, *words: str, columns: int = 80) -> Terminal:
    """Start `taskscaler run` with a report on a terminal."""
    words = ("run", "--report", str(command.report), *words)
    terminal = Terminal(PROGRAM, words, command.folder, columns=columns)
    terminal.let_go()
    return terminal


@pytest.fixture
def terminal(taskscaler: Command, fifo: Path) -> Iterator[Terminal]:
    """Yield a terminal on which two jobs read a pipe, one after the other."""
    script = f"echo up; cat {fifo}"
    words = ("--count", "2", "--max-instances", "1", "--", "sh", "-c", script)
    opened = open_terminal(taskscaler, *words)
    yield opened
    opened.close()


def test_status_and_table(taskscaler: Command, terminal: Terminal, fifo: Path) -> None:
    """While jobs run, a line shows their number; at the end a table shows all of them."""
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
    """A Ctrl-C reaches every process of the terminal, but the running job finishes."""
    terminal.read_until("command#1 | up")
    terminal.type("\x03")
    terminal.read_until("no more jobs will start")
    fifo.write_text("go on\n")
    terminal.read_all()
    assert terminal.process.wait() == 130
    assert taskscaler.states() == {"command#1": "success", "command#2": "canceled"}


def test_narrow_terminal_shows_the_most_important(taskscaler: Command, fifo: Path) -> None:
    """On 44 columns, the status line shows the jobs, and the table has whole words."""
    words = ("--count", "2", "--max-instances", "1", "--", "sh", "-c", f"cat {fifo}; exit 3")
    terminal = open_terminal(taskscaler, *words, columns=44)
    try:
        terminal.read_until("jobs: 1 waiting, 1 running, 0 done")
        fifo.write_text("one\n")
        terminal.read_until("jobs: 0 waiting, 1 running, 1 done")
        fifo.write_text("two\n")
        table = terminal.read_all().rpartition("reason")[2]
    finally:
        terminal.close()
    assert [table.count(word) for word in ("command#1", "failed", "exit code 3")] == [1, 3, 2]
