"""Signals for the commands of a server that does not deliver them.

OpenSSH delivers a signal only where it has separated its privileges, and it
does not when root logs in. There, a small shell runs as long as the connection:
it reads lines with a signal and a process group, and sends the one to the other.
To know its group, each command is started by the bootstrap script, which first
writes a line of its own to stderr: the header's token and its process id. That
line is taken out again here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fleeting.connectors._ssh_channels import CommandChannel

# Digestible by any login shell, as the bootstrap script is.
COMMAND = 'exec /bin/sh -c \'while read -r s p; do kill -s "$s" -- "-$p" 2>/dev/null; done\''

# What a login shell may complain about, on starting, before we cease to look.
NOISE_BYTES = 256 * 1024


def delivers_signals(server_version: str, username: str) -> bool:
    """Return whether the server can send a signal to a command of this user."""
    return username != "root" or "OpenSSH" not in server_version


class Announcement:
    """The line in which a command says its process id, while it is awaited."""

    def __init__(self, token: str) -> None:
        self._marker = token.encode() + b" "
        self._held = b""
        self.done = False

    def take(self, data: bytes) -> tuple[bytes, int | None]:
        """Return what of stderr is the command's, and the process id once it is there."""
        self._held += data
        before, marker, after = self._held.partition(self._marker)
        digits, newline, rest = after.partition(b"\n")
        if newline:
            self.done = True
            return before + rest, int(digits)
        if not marker and len(before) > NOISE_BYTES:
            return self.give_up(), None
        return b"", None

    def give_up(self) -> bytes:
        """Return what was held back; nothing more will be."""
        held, self._held, self.done = self._held, b"", True
        return held


class Signaller:
    """Sends signals to process groups on the instance, through a shell there."""

    def __init__(self, channel: CommandChannel) -> None:
        self._channel = channel

    @property
    def usable(self) -> bool:
        """Return whether the shell still listens."""
        return self._channel.can_write()

    def send(self, signal: str, group: int) -> None:
        """Send a signal, which nobody confirms."""
        if self.usable:
            self._channel.write_now(f"{signal} {group}\n".encode())
