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
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint
from asyncssh.constants import EXTENDED_DATA_STDERR
from typing_extensions import override

from fleeting.abc import Process, Terminal
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
    '_n=$(printf "\\012x"); _n=${_n%x}; _h=; IFS= read -r _e || exit 1; '
    "while IFS= read -r _l; do "
    'if [ "$_l" = "$_e" ]; then eval "$_h"; exit 1; fi; _h=$_h$_l$_n; '
    "done; exit 1'"
)

_SIGNAL = re.compile(r"[A-Z][A-Z0-9]*", re.ASCII)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a command.

    Attributes:
        line: for the user's login shell; None is that shell itself.
        header: to send to its standard input first; empty if there is none.
        token: the first and last line of the header.
    """

    line: str | None
    header: bytes = b""
    token: str = ""


def prepare(
    command: str, env: Mapping[str, str] | None, cwd: str | None, *, announced: bool
) -> Launch:
    """Work out how to start a command; one that needs nothing of all this goes as it is.

    Args:
        command: the command line.
        env: variables to add.
        cwd: the folder to start in.
        announced: whether it shall say its process id on stderr, after the token.

    Raises:
        ValueError: a variable's name cannot be one, or something holds a NUL.
    """
    env = env or {}
    for name in env:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} cannot be the name of a variable: letters, digits and underscores, "
                "and no digit first"
            )
    if any("\0" in text for text in (command, cwd or "", *env.values())):
        raise ValueError("a command, a folder and the value of a variable cannot hold a NUL")
    if not env and cwd is None and not announced:
        return Launch(command)
    # The user's own shell, before a variable of the same name is set.
    lines = ['set -- "${SHELL:-/bin/sh}"']
    if announced:
        lines.append('echo "$_e $$" >&2')
    if cwd is not None:
        # The prefix keeps `cd` from reading "-" or $CDPATH into the name.
        lines.append(f"cd {_quoted(cwd if cwd.startswith('/') else './' + cwd)} || exit 1")
    lines += [f"export {name}={_quoted(value)}" for name, value in env.items()]
    lines.append(f'exec "$1" -c {_quoted(command)}')
    # No value can contain a line that it cannot know.
    token = secrets.token_hex(16)
    header = "\n".join([token, *lines, token, ""])
    return Launch(BOOTSTRAP, header.encode("utf-8", "surrogateescape"), token)


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
        if not _SIGNAL.fullmatch(signal):
            raise ValueError(f"{signal!r} is no name of a signal: write for instance TERM")
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
        # A server may hold back how the command ended until its output is taken.
        for receiver in self._channel.receivers.values():
            receiver.discard()
        try:
            for signal, patience in (("TERM", TERM_SECONDS), ("KILL", KILL_SECONDS)):
                if self._channel.settled.is_set():
                    break
                self._channel.send_signal(signal)
                with anyio.move_on_after(patience):
                    await self._channel.settled.wait()
        finally:
            self._channel.kill()


class SSHTerminal(SSHProcess, Terminal):
    """A shell on a terminal."""

    @override
    async def resize(self, columns: int, rows: int) -> None:
        await checkpoint()
        if self._channel.exit is None:
            self._channel.raise_if_lost()
            self._channel.resize(columns, rows)

    @override
    async def end(self) -> None:
        """Close the channel: the server hangs up, which ends a shell that hears no TERM."""
        for receiver in self._channel.receivers.values():
            receiver.discard()
        self._channel.abort()
        with anyio.move_on_after(KILL_SECONDS):
            await self._channel.settled.wait()
