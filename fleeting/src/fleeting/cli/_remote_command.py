"""`fleeting group run`: one command on one instance, with live input and output."""

from __future__ import annotations

import shlex
import signal
from functools import partial
from typing import TYPE_CHECKING

from fleeting._text import output_descriptor, say
from fleeting.cli._open_group import connect_instance, open_group
from fleeting.cli._signals import SIGNAL_EXIT_BASE
from fleeting.cli._streams import STDERR, chunks, write_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fleeting.cli._selection import GroupSelection
    from fleeting.types import Completed, Exit

__all__ = ("exit_code", "run_command")

HIGHEST_CODE = 255


async def run_command(selection: GroupSelection, id: str, words: Sequence[str]) -> int:
    """Run a command, and return its exit code.

    Args:
        selection: the group.
        id: of the instance.
        words: of the command; no shell interprets them.
    """
    async with open_group(selection) as group, connect_instance(group, id) as connection:
        try:
            completed = await connection.run(
                shlex.join(words),
                stdin=chunks(),
                stdout=partial(write_all, output_descriptor()),
                stderr=partial(write_all, STDERR),
            )
        except BrokenPipeError:
            # The reader is gone, as after `| head`; a local command would end like this, too.
            return SIGNAL_EXIT_BASE + signal.Signals["SIGPIPE"]
    return exit_code(completed)


def exit_code(ended: Completed | Exit) -> int:
    """Return the exit code for a command that has ended, and report the signal that ended it."""
    if ended.status is not None:
        # A process has eight bits for its code; a wider one must not end up as success.
        return ended.status & HIGHEST_CODE or min(ended.status, 1)
    name = ended.signal or "KILL"
    say(f"the command was ended by signal {name}", err=True)
    number = signal.Signals.__members__.get(f"SIG{name}", signal.SIGTERM)
    return SIGNAL_EXIT_BASE + number
