"""`fleeting group run`: one command on one instance, with its streams as they come."""

from __future__ import annotations

import shlex
import signal
from functools import partial
from typing import TYPE_CHECKING

import click

from fleeting._text import plain
from fleeting.cli._open_group import opened, reach
from fleeting.cli._streams import STDERR, STDOUT, chunks, write_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fleeting.cli._target import Target
    from fleeting.types import Completed, Exit

__all__ = ("exit_code", "run_command")

# What a shell says of a command that a signal ended: this and the signal's number.
SIGNALLED = 128
MOST = 255


async def run_command(target: Target, id: str, words: Sequence[str]) -> int:
    """Run a command, and return its exit code.

    Args:
        target: the group.
        id: of the instance.
        words: of the command; no shell reads anything into them.
    """
    async with opened(target) as hand, reach(hand, id) as connection:
        try:
            completed = await connection.run(
                shlex.join(words),
                stdin=chunks(),
                stdout=partial(write_all, STDOUT),
                stderr=partial(write_all, STDERR),
            )
        except BrokenPipeError:
            # As after `| head`; a command of this computer would end so, too.
            return SIGNALLED + signal.Signals["SIGPIPE"]
    return exit_code(completed)


def exit_code(ended: Completed | Exit) -> int:
    """Return the exit code of a command that has ended, and say so if that was by a signal."""
    if ended.status is not None:
        # A process has eight bits for it. What is left of another one must not look like success.
        return ended.status & MOST or min(ended.status, 1)
    name = ended.signal or "KILL"
    click.echo(f"the command was ended by the signal {plain(name)}", err=True)
    number = signal.Signals.__members__.get(f"SIG{name}", signal.SIGTERM)
    return SIGNALLED + number
