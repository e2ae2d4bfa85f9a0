"""`taskscaler run` on a terminal: the status line, the table, and a typed Ctrl-C."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from cli_command import PROGRAM
from own_terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cli_command import Command


CONTROL = re.compile(r"\r?\x1b\[[0-9;]*[mK]|\r")


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


def test_colour_of_a_job_is_its_own(taskscaler: Command, fifo: Path) -> None:
    """A colour that a job leaves open ends with the line, and returns in its next one."""
    script = f"printf '\\033[31mred\\n'; cat {fifo}; echo still"
    words = ("--count", "2", "--max-instances", "1", "--", "sh", "-c", script)
    terminal = open_terminal(taskscaler, *words)
    try:
        for number in (1, 2):
            terminal.read_until(f"command#{number} | \x1b[31mred\x1b[0m\r\n")
            fifo.write_text("x\n")
            terminal.read_until(f"command#{number} | \x1b[31mstill\x1b[0m\r\n")
        terminal.read_all()
    finally:
        terminal.close()


def test_single_job_colours_no_message(taskscaler: Command, fifo: Path) -> None:
    """The colour of a single job is set aside while a line of ours is written."""
    script = f"printf '\\033[31mred\\n'; cat {fifo}; echo still"
    terminal = open_terminal(taskscaler, "--", "sh", "-c", script)
    try:
        terminal.read_until("\x1b[31mred\r\n")
        assert "\x1b[0m\r\x1b[K" in terminal.read_until("1 running")
        terminal.type("\x03")
        message = terminal.read_until("again to cancel)")
        fifo.write_text("x\n")
        text = terminal.read_all()
    finally:
        terminal.close()
    assert "\x1b[0minterrupted: " in message
    assert "still" in text


@pytest.mark.parametrize("columns", [12, 40, 100])
def test_messages_have_whole_words(taskscaler: Command, columns: int) -> None:
    """At any width, lines of ours are broken between words, and job and state can be read."""
    script = "echo a-rather-long-line-of-output >&2; exit 3"
    terminal = open_terminal(taskscaler, "--count", "2", "--", "sh", "-c", script, columns=columns)
    try:
        text = terminal.read_all()
    finally:
        terminal.close()
    # The status line is erased before a message is written.
    lines = [CONTROL.sub("", line.rpartition("\x1b[K")[2]) for line in text.split("\r\n")]
    ours = [line for line in lines if "|" not in line]
    words = {word for line in ours for word in line.split()}
    assert {"command#1:", "failed", "exit", "code"} <= words
    longest = max(len(line) for line in ours)
    assert longest <= max(columns, len("instance/slot"))
