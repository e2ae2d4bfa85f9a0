"""A command on an SSH channel, and how its environment reaches it.

Environment and working directory. A server accepts hardly any variable by
itself (`AcceptEnv`), and a command line can be read by every user of the
instance. So a command with either is started by a small fixed script, which
reads a header from its standard input, and evaluates it: it changes the
folder, exports the variables, and becomes the user's shell with the command.
`read` of a POSIX shell takes no byte beyond the end of a line, so what follows
the header is the command's own input. The header is evaluated only once its
last line has arrived: a connection that breaks in between starts nothing.
"""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint
from asyncssh.constants import EXTENDED_DATA_STDERR
from typing_extensions import override

from fleeting.abc import Process
from fleeting.connectors._ssh_channels import CommandChannel, Sender
from fleeting.errors import ConnectionLost

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fleeting.types import Exit

# How long a command may take to end after TERM, and its end to arrive after KILL.
TERM_SECONDS = 3.0
KILL_SECONDS = 1.0

# The words of this line mean the same to every login shell that a user may
# have: no quote, newline or exclamation mark within the quotes (fish, csh).
BOOTSTRAP = (
    "exec /bin/sh -c '"
    'n=$(printf "\\012x"); n=${n%x}; h=; IFS= read -r e || exit 1; '
    "while IFS= read -r l; do "
    'if [ "$l" = "$e" ]; then eval "$h"; exit 1; fi; h=$h$l$n; '
    "done; exit 1'"
)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def bootstrap(command: str, env: Mapping[str, str] | None, cwd: str | None) -> tuple[str, bytes]:
    """Return the line to start and the header to send to its standard input.

    Raises:
        ValueError: a variable's name cannot be one, or something holds a NUL.
    """
    for name in env or ():
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} cannot be the name of a variable: letters, digits and underscores, "
                "and no digit first"
            )
    if any("\0" in text for text in (command, cwd or "", *(env or {}).values())):
        raise ValueError("a command, a folder and the value of a variable cannot hold a NUL")
    if not env and cwd is None:
        return command, b""
    # The user's own shell, before a variable of the same name is set.
    lines = ['set -- "${SHELL:-/bin/sh}"']
    if cwd is not None:
        # The prefix keeps `cd` from reading "-" or $CDPATH into the name.
        lines.append(f"cd {_quoted(cwd if cwd.startswith('/') else './' + cwd)} || exit 1")
    lines += [f"export {name}={_quoted(value)}" for name, value in (env or {}).items()]
    lines.append(f'exec "$1" -c {_quoted(command)}')
    # No value can contain a line that it cannot know.
    end = secrets.token_hex(16)
    header = "\n".join([end, *lines, end, ""])
    return BOOTSTRAP, header.encode("utf-8", "surrogateescape")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


class SSHProcess(Process):
    """A command that runs on an instance, through one channel."""

    def __init__(self, channel: CommandChannel) -> None:
        self._channel = channel
        self.stdin = Sender(channel)
        self.stdout = channel.receivers[None]
        self.stderr = channel.receivers[EXTENDED_DATA_STDERR]

    @override
    async def wait(self) -> Exit:
        await self._channel.settled.wait()
        if self._channel.exit is None:
            self._channel.raise_if_lost()
            raise ConnectionLost(
                "the server closed the command's channel without saying how the command ended"
            )
        return self._channel.exit

    @override
    async def send_signal(self, signal: str) -> None:
        await checkpoint()
        if self._channel.exit is None:
            self._channel.raise_if_lost()
            self._channel.send_signal(signal)

    async def send_header(self, header: bytes) -> None:
        """Send what the bootstrap script reads; if that has ended already, its status tells."""
        with suppress(anyio.BrokenResourceError):
            await self.stdin.send(header)

    async def end(self) -> None:
        """End the command if it still runs, and close its channel; idempotent.

        Takes some seconds at most. When cancelled, it kills the command.
        """
        try:
            for signal, patience in (("TERM", TERM_SECONDS), ("KILL", KILL_SECONDS)):
                if self._channel.settled.is_set():
                    break
                self._channel.send_signal(signal)
                with anyio.move_on_after(patience):
                    await self._channel.settled.wait()
        except anyio.get_cancelled_exc_class():
            self._channel.send_signal("KILL")
            raise
        finally:
            self._channel.abort()
