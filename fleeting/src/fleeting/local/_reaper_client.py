"""The server's client of one reaper: starts commands there and learns how they ended.

For use on the event loop's thread only. Nothing here blocks or awaits, so messages
reach a reaper in the order of the calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections import deque
from typing import TYPE_CHECKING, Any

from fleeting.local._supervisor import MessageReader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ("MessageWriter", "ReaperClient")


class MessageWriter:
    """Sends lines of JSON with file descriptors, in order; queues them while the socket is full."""

    def __init__(self, sink: socket.socket) -> None:
        self._sink = sink
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[bytes, tuple[int, ...]]] = deque()

    def send(self, message: Mapping[str, Any], descriptors: tuple[int, ...] = ()) -> None:
        """Send a message; the descriptors are closed in this process once they are sent."""
        self._waiting.append((json.dumps(message).encode() + b"\n", descriptors))
        if len(self._waiting) == 1:
            self._flush()

    def close(self) -> None:
        """Drop the messages that are still queued."""
        self._loop.remove_writer(self._sink)
        while self._waiting:
            _close_all(self._waiting.popleft()[1])

    def _flush(self) -> None:
        while self._waiting:
            data, descriptors = self._waiting[0]
            try:
                sent = socket.send_fds(self._sink, [data], descriptors)
            except (BlockingIOError, InterruptedError):
                self._loop.add_writer(self._sink, self._flush)
                return
            except OSError:
                self.close()  # The other side has ended; the reader notices that.
                return
            # The descriptors travel with the first byte; the rest of a long message follows alone.
            _close_all(descriptors)
            if sent < len(data):
                self._waiting[0] = (data[sent:], ())
            else:
                self._waiting.popleft()
        self._loop.remove_writer(self._sink)


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


class ReaperClient:
    """The server's client of one instance's reaper.

    Attributes:
        ready: done when the instance's directories exist and commands can be started; has an
            exception if that failed.
        ended: done when the reaper and everything that it started have ended.
    """

    def __init__(
        self, supervisor: MessageWriter, folder: str, environment: Mapping[str, str]
    ) -> None:
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)  # noqa: FBT003 - it has no name
        self._outbox = MessageWriter(self._socket)
        self._inbox = MessageReader(self._socket)
        self._commands: dict[int, Callable[[int | None, str], None]] = {}
        self._last = 0
        loop.add_reader(self._socket, self._receive)
        supervisor.send({"folder": folder, "environment": dict(environment)}, (theirs.detach(),))

    def start(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        streams: tuple[int, int, int],
        ended: Callable[[int | None, str], None],
        *,
        terminal: str | None = None,
    ) -> int:
        """Start a command in a session of its own.

        Args:
            arguments: the path of the program, and its arguments.
            environment: variables to add to the instance's.
            streams: its standard streams; closed in this process once they are sent.
            ended: called once with the wait status, or with None and a reason if it
                could not be started; not called if the reaper ends first.
            terminal: the path of its controlling terminal, to which all its streams are
                connected; None if it has none.

        Returns:
            The number of the command.
        """
        self._last += 1
        self._commands[self._last] = ended
        message = {
            "command": self._last,
            "arguments": list(arguments),
            "environment": dict(environment),
            "terminal": terminal,
        }
        self._outbox.send(message, streams)
        return self._last

    def signal(self, command: int, number: int, *, hangup: bool = False) -> None:
        """Send a signal to the process group of a command, if the command still runs.

        Args:
            command: the number that `start` returned.
            number: the number of the signal.
            hangup: kill the group a short time later if it still exists.
        """
        if command in self._commands:
            self._outbox.send({"command": command, "signal": number, "hangup": hangup})

    def end(self) -> None:
        """Make the reaper end everything, delete the instance's directory, and end."""
        if not self.ended.done():
            self._outbox.close()
            with contextlib.suppress(OSError):  # It may have ended just now.
                self._socket.shutdown(socket.SHUT_WR)

    def _receive(self) -> None:
        messages = self._inbox.receive()
        if messages is None:
            self._close()
            return
        for message in messages:
            if "ready" in message:
                self._settled(message)
                continue
            ended = self._commands.pop(message["command"])
            ended(message.get("status"), message.get("failed", ""))

    def _settled(self, message: Mapping[str, Any]) -> None:
        if message["ready"]:
            self.ready.set_result(None)
        else:
            self._fail(message["reason"])

    def _fail(self, reason: str) -> None:
        self.ready.set_exception(OSError(reason))
        self.ready.exception()  # Mark it as retrieved: its awaiter may be gone.

    def _close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._outbox.close()
        self._socket.close()
        self._commands.clear()
        if not self.ready.done():
            self._fail("its process could not be started")
        self.ended.set_result(None)
