"""SSH channels as byte streams with a bounded memory.

asyncssh calls a session's methods from the event loop as packets arrive; here
they only append to a buffer and set an event, and the streams take from there.

Flow control. A channel has one window for all that it receives, so stdout and
stderr share it. When more than `HIGH_WATER` bytes lie unread, the channel is
paused: asyncssh stops granting window, and the sender blocks as soon as what
it was granted is used up. asyncssh grants a whole window anew when it delivers the
first piece of what it held back, whatever else it holds; so when a channel is
resumed it takes all of that, before it may be paused again. Else more would come
with each turn than goes. So a channel holds at most `HIGH_WATER` plus two
windows, however slow its reader. The way out is bounded likewise by asyncssh's
write buffer, for which a sender waits.

Ends. The end of the data and the end of the command are different things, and
an exit status can come before, after or without the other. asyncssh tells a
channel no difference between being closed by the server and going down with a
connection that was closed in good order, so the connection is asked: a stream
ends without an error only if the server said so while there was a connection.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import anyio
import asyncssh
from anyio.abc import ByteReceiveStream, ByteSendStream, ByteStream
from anyio.lowlevel import checkpoint
from asyncssh.constants import EXTENDED_DATA_STDERR
from asyncssh.session import SSHSession
from typing_extensions import override

from fleeting.connectors._ssh_signals import Announcement
from fleeting.types import Exit

if TYPE_CHECKING:
    from collections.abc import Callable

    from fleeting.connectors._ssh_signals import Signaller
    from fleeting.connectors._ssh_watcher import Watcher

HIGH_WATER = 1024 * 1024
LOW_WATER = HIGH_WATER // 4
WRITE_CHUNK = 64 * 1024


class Channel(SSHSession[bytes]):
    """What asyncssh tells about one channel, kept until somebody asks.

    Attributes:
        receivers: for each type of data, where it goes.
    """

    def __init__(self, watcher: Watcher, datatypes: tuple[int | None, ...]) -> None:
        self.receivers = {datatype: Receiver(self) for datatype in datatypes}
        self._watcher = watcher
        self._transport: Any = None  # asyncssh's channels of all kinds have this in common
        self._reading_paused = False
        self._resuming = False
        self._writable = anyio.Event()
        self._writable.set()
        self._closed = False

    # What asyncssh calls.

    @override
    def connection_made(self, chan: Any) -> None:
        self._transport = chan

    @override
    def data_received(self, data: bytes, datatype: int | None) -> None:
        self.receivers[datatype].feed(data)
        self.regulate()

    @override
    def eof_received(self) -> bool:
        for receiver in self.receivers.values():
            receiver.feed_end(orderly=True)
        return True  # Our own direction stays open.

    @override
    def pause_writing(self) -> None:
        self._writable = anyio.Event()

    @override
    def resume_writing(self) -> None:
        self._writable.set()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._writable.set()
        for receiver in self.receivers.values():
            receiver.feed_end(orderly=False)

    # What the streams call.

    def regulate(self) -> None:
        """Ask for more or for less, according to what lies unread."""
        if self._resuming:
            return
        if self._reading_paused and self._unread() <= LOW_WATER:
            # This delivers at once all that was held back.
            self._resuming = True
            try:
                self._transport.resume_reading()
            finally:
                self._resuming = self._reading_paused = False
        if not self._reading_paused and self._unread() > HIGH_WATER:
            self._reading_paused = True
            self._transport.pause_reading()

    def _unread(self) -> int:
        return sum(receiver.unread for receiver in self.receivers.values())

    def raise_if_lost(self) -> None:
        """Raise `ConnectionLost` if the connection is gone."""
        self._watcher.raise_if_lost()

    async def write(self, data: bytes) -> None:
        """Send all of it, as fast as the other side takes it.

        Raises:
            BrokenResourceError: the other side takes no more.
            ConnectionLost: the connection broke.
        """
        await checkpoint()
        view = memoryview(data)
        for start in range(0, len(view), WRITE_CHUNK):
            await self._writable.wait()
            self.raise_if_lost()
            if not self.can_write():
                raise anyio.BrokenResourceError
            self._transport.write(view[start : start + WRITE_CHUNK])

    def write_now(self, data: bytes) -> None:
        """Send a little without waiting; for one who knows that there is room."""
        self._transport.write(data)

    def can_write(self) -> bool:
        """Return whether there is anybody to write to."""
        return not self._closed and not self._transport.is_closing()

    def write_eof(self) -> None:
        """Tell the other side that nothing more will be sent; idempotent."""
        if self.can_write():
            self._transport.write_eof()

    def close(self) -> None:
        """Close the channel in both directions once all is sent; idempotent."""
        if not self._closed:
            self._transport.close()

    def abort(self) -> None:
        """Close the channel in both directions, dropping what was not sent; idempotent."""
        if not self._closed:
            self._transport.abort()


class CommandChannel(Channel, asyncssh.SSHClientSession[bytes]):
    """The channel of a command, which also brings how that ended.

    Attributes:
        exit: how the command ended, once it has told.
        settled: set as soon as there is nothing more to wait for: the command told
            how it ended, or the channel is closed and it never will.
    """

    def __init__(
        self,
        watcher: Watcher,
        on_settled: Callable[[], None],
        *,
        signaller: Signaller | None = None,
        token: str = "",
    ) -> None:
        super().__init__(watcher, (None, EXTENDED_DATA_STDERR))
        self.exit: Exit | None = None
        self.settled = anyio.Event()
        self._on_settled = on_settled
        self._signaller = signaller
        self._announcement = Announcement(token) if signaller else None
        self._group: int | None = None
        self._signals: list[str] = []

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
        self._settle(Exit(status))

    @override
    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        self._settle(Exit(None, signal))

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
        """Send a signal to the command and its process group; nobody confirms it."""
        self._signals.append(signal)
        self._send_signals()

    def resize(self, columns: int, rows: int) -> None:
        """Tell the command's terminal its size, which nobody confirms."""
        if self.can_write():
            self._transport.change_terminal_size(columns, rows)

    def kill(self) -> None:
        """Close the channel and end the command, without waiting for anything; idempotent."""
        if not self.settled.is_set():
            # A command that still waits for its header ends anyway, with its input.
            self.send_signal("KILL")
        self.abort()

    def _send_signals(self) -> None:
        if self._signaller is None:
            for signal in self._signals if not self._closed else ():
                self._transport.send_signal(signal)
        elif self._group is None:
            return  # It has not yet said who it is.
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
        self._writable.set()  # Who waits to write shall learn that nobody reads.
        self._on_settled()


class StreamChannel(Channel, asyncssh.SSHTCPSession[bytes], asyncssh.SSHUNIXSession[bytes]):
    """A channel that is nothing but a stream of bytes each way."""

    def __init__(self, watcher: Watcher) -> None:
        super().__init__(watcher, (None,))


class Receiver(ByteReceiveStream):
    """One kind of data of a channel, as a stream."""

    def __init__(self, channel: Channel) -> None:
        self.unread = 0
        self._channel = channel
        self._chunks: deque[bytes] = deque()
        self._news = anyio.Event()
        self._ended = False
        self._ended_orderly = False
        self._closed = False
        self._busy = False

    def feed(self, data: bytes) -> None:
        """Take what arrived; after `aclose` it is dropped, so that the command goes on."""
        if data and not self._closed:
            self._chunks.append(data)
            self.unread += len(data)
            self._news.set()

    def feed_end(self, *, orderly: bool) -> None:
        """Note that nothing more will arrive, and whether the other side said so itself."""
        self._ended_orderly = self._ended_orderly or orderly
        self._ended = True
        self._news.set()

    @override
    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Return what there is, up to `max_bytes`; wait if there is nothing.

        Raises:
            EndOfStream: the other side has finished sending.
            ConnectionLost: the connection broke.
        """
        if max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._busy:
            raise anyio.BusyResourceError("reading from")
        await checkpoint()
        self._busy = True
        try:
            await self._wait_for_chunks()
        finally:
            self._busy = False
        data = self._take(max_bytes)
        self.unread -= len(data)
        self._channel.regulate()
        return data

    def discard(self) -> None:
        """Drop what is unread and all that comes."""
        self._closed = True
        self._chunks.clear()
        self.unread = 0
        self._news.set()
        self._channel.regulate()

    @override
    async def aclose(self) -> None:
        self.discard()
        await checkpoint()

    async def _wait_for_chunks(self) -> None:
        while not self._chunks:
            if self._closed:
                raise anyio.ClosedResourceError
            if self._ended:
                if not self._ended_orderly:
                    self._channel.raise_if_lost()
                raise anyio.EndOfStream
            self._news = anyio.Event()
            await self._news.wait()

    def _take(self, max_bytes: int) -> bytes:
        """Return as many whole chunks as fit, or a part of the first."""
        if len(self._chunks[0]) > max_bytes:
            data = self._chunks[0][:max_bytes]
            self._chunks[0] = self._chunks[0][max_bytes:]
            return data
        taken: list[bytes] = []
        room = max_bytes
        while self._chunks and len(self._chunks[0]) <= room:
            room -= len(self._chunks[0])
            taken.append(self._chunks.popleft())
        return taken[0] if len(taken) == 1 else b"".join(taken)


class Sender(ByteSendStream):
    """The way to the other side of a channel; closing it sends the end of file."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._closed = False
        self._busy = False

    @override
    async def send(self, item: bytes) -> None:
        """Send some bytes; wait as long as the other side does not take them.

        Raises:
            BrokenResourceError: the other side takes no more.
            ConnectionLost: the connection broke.
        """
        if self._closed:
            raise anyio.ClosedResourceError
        if self._busy:
            raise anyio.BusyResourceError("writing to")
        self._busy = True
        try:
            await self._channel.write(item)
        finally:
            self._busy = False

    @override
    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._channel.write_eof()
        await checkpoint()


class ChannelStream(ByteStream):
    """A stream channel in both directions."""

    def __init__(self, channel: StreamChannel) -> None:
        self._channel = channel
        self._sender = Sender(channel)
        self._receiver = channel.receivers[None]

    @override
    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await self._receiver.receive(max_bytes)

    @override
    async def send(self, item: bytes) -> None:
        await self._sender.send(item)

    @override
    async def send_eof(self) -> None:
        await self._sender.aclose()

    @override
    async def aclose(self) -> None:
        self._channel.close()
        await self._sender.aclose()
        await self._receiver.aclose()
