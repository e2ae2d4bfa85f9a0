"""The channel of a command: its streams, how it ended, and signals to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import anyio
import asyncssh
from asyncssh.constants import EXTENDED_DATA_STDERR
from typing_extensions import override

from fleeting._text import foreign
from fleeting.connectors._ssh_channels import Channel
from fleeting.connectors._ssh_signals import Announcement
from fleeting.types import Exit

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncssh.packet import SSHPacket

    from fleeting.connectors._ssh_peer import SSHPeer
    from fleeting.connectors._ssh_signals import Signaller

STATUS_BYTES = 4


def keep_whole_status(transport: Any, note: Callable[[int], None]) -> None:
    """Call `note` with each exit status that arrives, before asyncssh cuts it to 8 bits.

    The statuses of Windows have 32 bits, and many multiples of 256 among them are errors.
    """
    process = transport._process_exit_status_request  # noqa: SLF001 -- there is no other way

    def processed(packet: SSHPacket) -> bool:
        note(int.from_bytes(packet.get_remaining_payload()[:STATUS_BYTES], "big"))
        return cast("bool", process(packet))

    vars(transport)["_process_exit_status_request"] = processed


# The longest name of a signal, which the server chooses freely.
SIGNAL_CHARACTERS = 30


class CommandChannel(Channel, asyncssh.SSHClientSession[bytes]):
    """The channel of a command.

    Attributes:
        exit: how the command ended, once the server has reported it.
        settled: set when there is nothing left to wait for: the server reported how the
            command ended, or the channel was closed without such a report.
    """

    def __init__(
        self,
        peer: SSHPeer,
        on_settled: Callable[[], None],
        *,
        signaller: Signaller | None = None,
        token: str = "",
    ) -> None:
        super().__init__(peer, (None, EXTENDED_DATA_STDERR))
        self.exit: Exit | None = None
        self.settled = anyio.Event()
        self._on_settled = on_settled
        self._signaller = signaller
        self._announcement = Announcement(token) if signaller else None
        self._group: int | None = None
        self._signals: list[str] = []
        self._status: int | None = None

    @override
    def connection_made(self, chan: Any) -> None:
        super().connection_made(chan)
        keep_whole_status(chan, self._note_status)

    @override
    def data_received(self, data: bytes, datatype: int | None) -> None:
        announcement = self._announcement
        if announcement and not announcement.done and datatype == EXTENDED_DATA_STDERR:
            data, self._group = announcement.take(data)
            self._send_signals()
        if data:
            super().data_received(data, datatype)

    @override
    def eof_received(self) -> bool:
        self._release_stderr()
        return super().eof_received()

    @override
    def exit_status_received(self, status: int) -> None:
        self._settle(Exit(status if self._status is None else self._status))

    @override
    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        self._settle(Exit(None, foreign(signal, SIGNAL_CHARACTERS)))

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._release_stderr()
        super().connection_lost(exc)
        if not self.settled.is_set():
            self._settle(None)

    @override
    def can_write(self) -> bool:
        return super().can_write() and not self.settled.is_set()

    def send_signal(self, signal: str) -> None:
        """Send a signal to the command and its process group; there is no confirmation."""
        self._signals.append(signal)
        self._send_signals()

    def resize(self, columns: int, rows: int) -> None:
        """Report a new size of the command's terminal; there is no confirmation."""
        if self.can_write():
            self._transport.change_terminal_size(columns, rows)

    def kill(self) -> None:
        """Close the channel and end the command, without waiting for anything; idempotent."""
        if not self.settled.is_set():
            # A command that still waits for its header ends with its input anyway.
            self.send_signal("KILL")
        self.abort()

    def _note_status(self, status: int) -> None:
        self._status = status

    def _send_signals(self) -> None:
        if self._signaller is None:
            for signal in self._signals if not self._closed else ():
                self._transport.send_signal(signal)
        elif self._group is None:
            return  # The command has not announced its process group yet.
        else:
            for signal in self._signals:
                self._signaller.send(signal, self._group)
        self._signals.clear()

    def _release_stderr(self) -> None:
        if self._announcement and not self._announcement.done:
            self.receivers[EXTENDED_DATA_STDERR].feed(self._announcement.give_up())

    def _settle(self, ended: Exit | None) -> None:
        self.exit = ended
        self.settled.set()
        self._signals.clear()
        self._writable.set()  # Wake writers, so that they notice the end.
        self._on_settled()
