"""Sends signals to commands on servers that do not deliver them.

OpenSSH delivers a signal only where it has separated its privileges, which it does
not do when root logs in. For root, a small shell runs for as long as the connection.
It reads lines with a signal and a process group, and sends the signal to the group.
To learn a command's process group, the bootstrap script starts the command and first
writes one line to stderr: the token of its header, and its process id. This module
removes that line from the command's stderr again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fleeting.connectors._ssh_channels import Channel

# The shell that sends the signals. Every login shell can parse this, like the bootstrap script.
SIGNAL_SHELL = 'exec /bin/sh -c \'while read -r s p; do kill -s "$s" -- "-$p" 2>/dev/null; done\''

# Login shells can print messages when they start. After this many bytes without the token,
# treat everything as the command's own output.
NOISE_BYTES = 256 * 1024


def delivers_signals(server_version: str, username: str) -> bool:
    """Return whether the server can send a signal to a command of this user."""
    return username != "root" or "OpenSSH" not in server_version


class Announcement:
    """Extracts the line with the command's process id from its stderr."""

    def __init__(self, token: str) -> None:
        self._marker = token.encode() + b" "
        self._held = b""
        self.done = False

    def take(self, data: bytes) -> tuple[bytes, int | None]:
        """Take received data; return the command's own output, and its process id if complete."""
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
        """Stop looking for the line, and return the data that was held back."""
        held, self._held, self.done = self._held, b"", True
        return held


class Signaller:
    """Sends signals to process groups on the instance, through a shell there."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    @property
    def usable(self) -> bool:
        """Return whether the shell still reads its input."""
        return self._channel.can_write()

    def end(self) -> None:
        """End the shell."""
        self._channel.abort()

    def send(self, signal: str, group: int) -> None:
        """Send a signal; there is no confirmation."""
        if self.usable:
            self._channel.write_now(f"{signal} {group}\n".encode())
