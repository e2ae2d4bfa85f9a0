"""Proves that a new connection runs commands: one prints a word, and the word comes back."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import TYPE_CHECKING

from fleeting._run import run_command
from fleeting._text import plain
from fleeting.errors import NotSupported

if TYPE_CHECKING:
    from fleeting.connectors._ssh_connection import SSHConnection

__all__ = ("why_no_command_runs",)

_QUOTED = 300
_CAPTURED_BYTES = 64 * 1024


async def why_no_command_runs(connection: SSHConnection) -> str | None:
    """Return why no command runs; None if one does.

    A server that refuses commands altogether, and so only forwards streams, is not asked more.

    Raises:
        ConnectionLost: the connection broke.
    """
    word = f"ready-{secrets.token_hex(8)}"
    try:
        # Every shell of every system can do this.
        done = await run_command(
            connection.start_unprepared(f"echo {word}"),
            stdin=None,
            stdout=None,
            stderr=None,
            timeout=None,
            grace=timedelta(0),
            capture_limit=_CAPTURED_BYTES,
        )
    except NotSupported:
        return None
    # A start-up file may print something before, and a program that prints its arguments is not a
    # shell.
    lines = done.stdout.decode(errors="replace").splitlines()
    if any(line.strip() == word for line in lines):
        return None
    ending = f"by signal {done.signal}" if done.signal else f"with exit code {done.status}"
    text = (done.stdout + done.stderr).decode(errors="replace").strip().replace("\n", "; ")
    wrote = f"wrote: {plain(text)[-_QUOTED:]}" if text else "wrote nothing"
    return f"its login shell ended {ending} and {wrote}"
