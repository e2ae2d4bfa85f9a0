"""`fleeting group connect`: this terminal becomes the terminal of a shell on an instance.

Every key goes to the instance unchanged, including Ctrl-C. To leave a shell that no longer
answers, there is the escape sequence of `ssh`: Enter, `~` and a period. The terminal is
restored however the command ends, except after SIGKILL.
"""

from __future__ import annotations

import os
import signal
import termios
import tty
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import anyio

from fleeting._text import output_descriptor, say
from fleeting.cli._open_group import connect_instance, open_group
from fleeting.cli._remote_command import exit_code
from fleeting.cli._signals import undo_on_exit
from fleeting.cli._streams import STDIN, chunks, write_all
from fleeting.errors import ConnectorError

if TYPE_CHECKING:
    from collections.abc import Generator

    from fleeting.abc import Terminal
    from fleeting.cli._selection import GroupSelection
    from fleeting.types import Exit

__all__ = ("EscapeKeys", "open_shell")

# How long the remaining output of a shell that has ended may take.
LAST_OUTPUT_SECONDS = 2.0
# The exit code if the connection ended before the shell, so that its own code is not known.
DISCONNECTED = 3


class EscapeKeys:
    """Finds the escape sequence in what is typed: Enter, `~` and a period."""

    def __init__(self) -> None:
        self.leaving = False
        self._at_start = True
        self._tilde = False

    def take(self, data: bytes) -> bytes:
        """Return the part for the instance, and set `leaving` at the escape sequence."""
        passed = bytearray()
        for key in data:
            if self._tilde:
                self._tilde = False
                if key == ord("."):
                    self.leaving = True
                    break
                if key != ord("~"):  # A doubled tilde stands for one.
                    passed += b"~"
            elif self._at_start and key == ord("~"):
                self._tilde = True
                continue
            passed.append(key)
            self._at_start = key in b"\r\n"
        return bytes(passed)


async def open_shell(selection: GroupSelection, id: str) -> int:
    """Open a shell on an instance, and return its exit code, or 3 if it was left before its end.

    Args:
        selection: the group.
        id: of the instance.

    Raises:
        NotSupported: the protocol, or the instance, has no terminals.
        ConnectionLost: the connection broke.
    """
    async with open_group(selection) as group, connect_instance(group, id) as connection:
        columns, rows = os.get_terminal_size(output_descriptor())
        kind = os.environ.get("TERM", "dumb")
        async with connection.open_shell(kind=kind, columns=columns, rows=rows) as shell:
            with _raw_terminal():
                ended = await _converse(shell)
    if ended is None:
        say("disconnected; what the shell was doing may continue on the instance", err=True)
        return DISCONNECTED
    return exit_code(ended)


async def _converse(shell: Terminal) -> Exit | None:
    """Pass on input and output until the shell ends or the escape sequence is typed."""
    ended: Exit | None = None
    async with anyio.create_task_group() as tasks:
        shown = anyio.Event()

        async def leave_at_escape() -> None:
            await _type(shell)
            tasks.cancel_scope.cancel()

        async def show() -> None:
            async for data in shell.stdout:
                await write_all(output_descriptor(), data)
            shown.set()

        tasks.start_soon(leave_at_escape)
        tasks.start_soon(show)
        tasks.start_soon(_follow_window, shell)
        ended = await shell.wait()
        with anyio.move_on_after(LAST_OUTPUT_SECONDS):
            await shown.wait()
        tasks.cancel_scope.cancel()
    return ended


async def _type(shell: Terminal) -> None:
    """Pass on what is typed, until the escape sequence."""
    keys = EscapeKeys()
    async for data in chunks():
        # A shell that has just ended takes no more input; `wait` reports its end.
        with suppress(anyio.BrokenResourceError):
            await shell.stdin.send(keys.take(data))
        if keys.leaving:
            return


async def _follow_window(shell: Terminal) -> None:
    with anyio.open_signal_receiver(signal.SIGWINCH) as changes:
        async for _ in changes:
            columns, rows = os.get_terminal_size(output_descriptor())
            await shell.resize(columns, rows)


@contextmanager
def _raw_terminal() -> Generator[None]:
    """Pass every key through, and restore the terminal afterwards."""
    before = termios.tcgetattr(STDIN)

    def restore() -> None:
        with suppress(termios.error):  # The terminal may be gone.
            termios.tcsetattr(STDIN, termios.TCSADRAIN, before)

    with undo_on_exit(restore):
        try:
            tty.setraw(STDIN, termios.TCSADRAIN)
            yield
        except (ConnectorError, BaseExceptionGroup):
            # Start the error message on a line of its own.
            with suppress(OSError):
                os.write(output_descriptor(), b"\r\n")
            raise
