"""SSH channels as byte streams with bounded memory.

asyncssh calls a session's methods on the event loop as packets arrive. Here they
only append to a buffer and set an event, and the streams read from that buffer.

Flow control. A channel has one window for everything it receives, so stdout and
stderr share it. When more than `HIGH_WATER` bytes are unread, the channel is
paused: asyncssh stops to extend the window, and the sender blocks once it has used
up the rest. asyncssh extends the window by its whole size when it delivers the
first packet that it held back, however many more it holds. So when a channel is
resumed, it accepts all of them before it can be paused again; otherwise each turn
would bring more data than the reader takes. Hence a channel holds at most
`HIGH_WATER` plus two windows, however slow its reader. Outgoing data is bounded by
asyncssh's write buffer, which a sender waits for.

Ends. The end of the data and the end of the command are different events, and an
exit status can arrive before, after or without the end of the data. To a channel,
asyncssh reports the same when the server closes it and when the connection is shut
down in an orderly way. So the channel asks the connection: a stream ends without an
error only if the server sent its end while the connection was up.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import anyio
import asyncssh
from anyio.abc import ByteReceiveStream, ByteSendStream, ByteStream
from anyio.lowlevel import checkpoint
from asyncssh.session import SSHSession
from typing_extensions import override

if TYPE_CHECKING:
    from fleeting.connectors._ssh_peer import SSHPeer

# A channel is paused above the one number of unread bytes, and resumed below the other.
HIGH_WATER = 1024 * 1024
LOW_WATER = HIGH_WATER // 4
WRITE_CHUNK = 64 * 1024


class Channel(SSHSession[bytes]):
    """One channel: passes on what asyncssh reports to the streams that read it.

    Attributes:
        receivers: the stream for each type of data.
    """

    def __init__(self, peer: SSHPeer, datatypes: tuple[int | None, ...]) -> None:
        self.receivers = {datatype: ChannelReceiver(self) for datatype in datatypes}
        self._peer = peer
        self._transport: Any = None  # asyncssh's classes of channels have no common base type
        self._reading_paused = False
        self._resuming = False
        self._writable = anyio.Event()
        self._writable.set()
        self._closed = False

    # Called by asyncssh.

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
        return True  # Keep the other direction open.

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

    # Called by the streams.

    def regulate(self) -> None:
        """Pause or resume reading, depending on how much is unread."""
        if self._resuming:
            return
        if self._reading_paused and self._unread() <= LOW_WATER:
            # This delivers at once all packets that were held back.
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
        """Raise `ConnectionLost` if the connection is lost."""
        self._peer.raise_if_lost()

    async def write(self, data: bytes) -> None:
        """Send all of it; wait while the other side is not ready for more.

        Raises:
            BrokenResourceError: the other side does not read any more.
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
        """Send a few bytes without waiting for the write buffer."""
        self._transport.write(data)

    def can_write(self) -> bool:
        """Return whether the channel is open for writing."""
        return not self._closed and not self._transport.is_closing()

    def write_eof(self) -> None:
        """Send the end of file; idempotent."""
        if self.can_write():
            self._transport.write_eof()

    def close(self) -> None:
        """Close the channel in both directions once everything is sent; idempotent."""
        if not self._closed:
            self._transport.close()

    def abort(self) -> None:
        """Close the channel in both directions, and drop unsent data; idempotent."""
        if not self._closed:
            self._transport.abort()


class StreamChannel(Channel, asyncssh.SSHTCPSession[bytes], asyncssh.SSHUNIXSession[bytes]):
    """A channel that is a stream of bytes in each direction."""

    def __init__(self, peer: SSHPeer) -> None:
        super().__init__(peer, (None,))


class ChannelReceiver(ByteReceiveStream):
    """One type of data of a channel, as a stream."""

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
        """Append received data; drop it after `aclose`, so that the command can go on writing."""
        if data and not self._closed:
            self._chunks.append(data)
            self.unread += len(data)
            self._news.set()

    def feed_end(self, *, orderly: bool) -> None:
        """Note the end of the data, and whether the other side sent it explicitly."""
        self._ended_orderly = self._ended_orderly or orderly
        self._ended = True
        self._news.set()

    @override
    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Return the available data, up to `max_bytes`; wait if there is none.

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
        """Drop unread data and everything that arrives later."""
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
        """Remove and return as many whole chunks as fit, or a part of the first."""
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


class ChannelSender(ByteSendStream):
    """The outgoing direction of a channel; closing it sends the end of file."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._closed = False
        self._busy = False

    @override
    async def send(self, item: bytes) -> None:
        """Send some bytes; wait while the other side is not ready for more.

        Raises:
            BrokenResourceError: the other side does not read any more.
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
        self._sender = ChannelSender(channel)
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
