"""`fleeting group connect`: this terminal becomes that of a shell on an instance.

Every key goes to the instance as it is, Ctrl-C too. So there has to be a way out when it
hears nothing any more, which is that of `ssh`: Enter, `~` and a period. Whatever happens,
the terminal is given back as it was; only SIGKILL leaves us no time for that.
"""

from __future__ import annotations

import os
import signal
import termios
import tty
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import anyio

from fleeting.cli._command import exit_code
from fleeting.cli._endings import undone
from fleeting.cli._open_group import opened, reach
from fleeting.cli._streams import STDIN, STDOUT, chunks, write_all
from fleeting.errors import ConnectorError

if TYPE_CHECKING:
    from collections.abc import Generator

    from fleeting.abc import Terminal
    from fleeting.cli._target import Target
    from fleeting.types import Exit

__all__ = ("Keys", "open_shell")

# How long the last words of a shell that has ended may take.
LAST_WORDS_SECONDS = 2.0


class Keys:
    """Looks in what is typed for the keys that mean us, and not the instance."""

    def __init__(self) -> None:
        self.leaving = False
        self._at_start = True
        self._tilde = False

    def take(self, data: bytes) -> bytes:
        """Return what of it is for the instance; `leaving` says whether to leave after that."""
        passed = bytearray()
        for key in data:
            if self._tilde:
                self._tilde = False
                if key == ord("."):
                    self.leaving = True
                    break
                if key != ord("~"):  # A second one stands for one.
                    passed += b"~"
            elif self._at_start and key == ord("~"):
                self._tilde = True
                continue
            passed.append(key)
            self._at_start = key in b"\r\n"
        return bytes(passed)


async def open_shell(target: Target, id: str) -> int:
    """Open a shell on an instance, and return its exit code.

    Args:
        target: the group.
        id: of the instance.

    Raises:
        NotSupported: this kind of connection, or this instance, has no terminals.
        ConnectionLost: the connection broke.
    """
    async with opened(target) as hand, reach(hand, id) as connection:
        columns, rows = os.get_terminal_size(STDOUT)
        kind = os.environ.get("TERM", "dumb")
        async with connection.open_shell(kind=kind, columns=columns, rows=rows) as shell:
            with _raw_terminal():
                ended = await _converse(shell)
    return 0 if ended is None else exit_code(ended)


async def _converse(shell: Terminal) -> Exit | None:
    """Pass on what is typed and shown, until the shell ends, or a person has had enough of it."""
    ended: Exit | None = None
    async with anyio.create_task_group() as tasks:
        shown = anyio.Event()

        async def leave_when_told() -> None:
            await _type(shell)
            tasks.cancel_scope.cancel()

        async def show() -> None:
            async for data in shell.stdout:
                await write_all(STDOUT, data)
            shown.set()

        tasks.start_soon(leave_when_told)
        tasks.start_soon(show)
        tasks.start_soon(_follow_window, shell)
        ended = await shell.wait()
        with anyio.move_on_after(LAST_WORDS_SECONDS):
            await shown.wait()
        tasks.cancel_scope.cancel()
    return ended


async def _type(shell: Terminal) -> None:
    """Pass on what is typed, until the keys to leave are."""
    keys = Keys()
    async for data in chunks():
        # A shell that has just ended takes no more, and its end is told elsewhere.
        with suppress(anyio.BrokenResourceError):
            await shell.stdin.send(keys.take(data))
        if keys.leaving:
            return


async def _follow_window(shell: Terminal) -> None:
    with anyio.open_signal_receiver(signal.SIGWINCH) as changes:
        async for _ in changes:
            columns, rows = os.get_terminal_size(STDOUT)
            await shell.resize(columns, rows)


@contextmanager
def _raw_terminal() -> Generator[None]:
    """Let every key through, and give the terminal back as it was."""
    before = termios.tcgetattr(STDIN)

    def give_back() -> None:
        with suppress(termios.error):  # It may be gone itself.
            termios.tcsetattr(STDIN, termios.TCSADRAIN, before)

    with undone(give_back):
        try:
            tty.setraw(STDIN, termios.TCSADRAIN)
            yield
        except (ConnectorError, BaseExceptionGroup):
            # What we say next shall not stand in the middle of a line of the shell.
            with suppress(OSError):
                os.write(STDOUT, b"\r\n")
            raise
