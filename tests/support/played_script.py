"""Plays the shell that runs a job's script, for fake instances."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from taskscaler.jobs.script import REMOVAL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fleeting.testing import Command


async def play_script(
    command: Command,
    play: Callable[[str], Awaitable[int]],
    *,
    refuses: Callable[[str], bool] = lambda _line: False,
) -> int:
    """Read the only line of a script, call `play` with it, and report its begin and its end.

    If `refuses` returns true for the line, there is no room for the script.
    """
    data = await command.stdin.receive()  # The line is one chunk; the rest comes later.
    line = data.removeprefix(f"#{REMOVAL}".encode()).removesuffix(b"\\n\n")
    word = line.decode(errors="surrogateescape")
    if refuses(word):
        await command.stderr.send(b"mkdir: disk full\n")
        await _report(command, "failed")
        return 125
    await _report(command, "begin")
    async for _ in command.stdin:
        pass
    status = await play(word)
    await _report(command, f"end {status}")
    return status


async def _report(command: Command, word: str) -> None:
    """Write a mark to standard error."""
    token = re.search(r"taskscaler-\w+(?= begin)", command.line)
    assert token
    await command.stderr.send(f"\x1e{token[0]} {word}\n".encode())
