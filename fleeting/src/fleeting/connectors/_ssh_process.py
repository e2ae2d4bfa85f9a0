"""A command, or a shell on a terminal, that runs on an instance through one SSH channel."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint
from asyncssh.constants import EXTENDED_DATA_STDERR
from typing_extensions import override

from fleeting.abc import Process, Terminal
from fleeting.connectors._ssh_channels import ChannelSender
from fleeting.errors import ConnectionLost

if TYPE_CHECKING:
    from fleeting.connectors._ssh_command_channel import CommandChannel
    from fleeting.types import Exit

# How long a command may take to end after TERM, and the report of its end to arrive after KILL.
TERM_SECONDS = 3.0
KILL_SECONDS = 1.0

_SIGNAL = re.compile(r"[A-Z][A-Z0-9]*", re.ASCII)


class SSHProcess(Process):
    """A command that runs on an instance."""

    def __init__(self, channel: CommandChannel) -> None:
        self._channel = channel
        self.stdin = ChannelSender(channel)
        self.stdout = channel.receivers[None]
        self.stderr = channel.receivers[EXTENDED_DATA_STDERR]
        self._killed = False

    @override
    async def wait(self) -> Exit:
        await self._channel.settled.wait()
        if self._channel.exit is None:
            self._channel.raise_if_lost()
            raise ConnectionLost(
                "the server closed the command's channel without reporting how the command ended"
            )
        return self._channel.exit

    @override
    async def send_signal(self, signal: str) -> None:
        if not _SIGNAL.fullmatch(signal):
            raise ValueError(f"{signal!r} is not the name of a signal; write for example TERM")
        await checkpoint()
        if self._channel.exit is None:
            self._channel.raise_if_lost()
            self._channel.send_signal(signal)
            self._killed = self._killed or signal == "KILL"

    async def send_header(self, header: bytes) -> None:
        """Send the input of the bootstrap script.

        If the script has ended already, its exit status says why, so that is not an error here.
        """
        with suppress(anyio.BrokenResourceError):
            await self.stdin.send(header)

    async def end(self) -> None:
        """End the command if it still runs, and close its channel; idempotent.

        Takes a few seconds at most. When cancelled, it kills the command.
        """
        # A server may not report the end of a command until its output has been read.
        for receiver in self._channel.receivers.values():
            receiver.discard()
        try:
            for signal, patience in (("TERM", TERM_SECONDS), ("KILL", KILL_SECONDS)):
                if self._channel.settled.is_set() or self._killed:
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
        """Close the channel: the server then sends HUP, which ends shells that ignore TERM."""
        for receiver in self._channel.receivers.values():
            receiver.discard()
        self._channel.abort()
        with anyio.move_on_after(KILL_SECONDS):
            await self._channel.settled.wait()
