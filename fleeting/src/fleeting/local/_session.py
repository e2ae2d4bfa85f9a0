"""One SSH session channel of an instance: a command, a shell or SFTP.

Theory of operation
-------------------

A command's three streams are pipes. Everything happens in callbacks on the
event loop's thread, with no task and no buffer of our own beside what one
`write` left over:

* Output is read only while the channel takes it. The channel is told to pause
  us as soon as a single byte cannot go out at once, so a client that does not
  read stops the command, and a channel that does not pause us is empty.
* Input that the pipe does not take pauses the channel, and then the client.
* When the command ends, what lies in the pipes at that moment is sent, then the
  exit status at once: a background process may hold the pipes open for ever. As
  with other SSH servers, the channel stays open for what that process writes
  until it closes its outputs or the client has had enough.
* When the channel closes before the command has ended, the command's process
  group gets HUP, and a short time later KILL.
* With a terminal, its other side takes the place of all three pipes. It ends when
  the command does, because the system hangs up the terminal of a session whose
  leader is gone; so what is shown is complete when it ends, and not before.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import signal
import termios
from typing import TYPE_CHECKING

import asyncssh
from asyncssh.constants import EXTENDED_DATA_STDERR, MSG_CHANNEL_REQUEST
from asyncssh.packet import Boolean, String, UInt32
from asyncssh.stream import SSHServerStreamSession
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fleeting.local._reaper import Reaper

__all__ = ("Files", "Session")

READ_SIZE = 65536
CANNOT_START = 127
SFTP_VERSION = 3


class Files(asyncssh.SFTPServer):
    """SFTP as the user sees it who starts commands there: relative paths begin at home."""

    def __init__(self, channel: asyncssh.SSHServerChannel[bytes], home: str) -> None:
        super().__init__(channel)  # pyright: ignore[reportUnknownMemberType] - the library leaves its type open
        self._home = os.fsencode(home)

    @override
    def map_path(self, path: bytes) -> bytes:
        return os.path.join(self._home, path)  # noqa: PTH118 - SFTP paths are bytes


class Output:
    """One output of a command: moves what is in its pipe to the channel.

    Attributes:
        due: how many bytes must still go out before the exit status may.
        is_open: whether the pipe has not ended yet.
    """

    def __init__(
        self,
        descriptor: int,
        channel: asyncssh.SSHServerChannel[bytes],
        datatype: int | None,
        moved: Callable[[], None],
    ) -> None:
        self.due = 0
        self.is_open = True
        self._descriptor = descriptor
        self._channel = channel
        self._datatype = datatype
        self._moved = moved
        self._is_terminal = os.isatty(descriptor)
        self._loop = asyncio.get_running_loop()
        os.set_blocking(descriptor, False)

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal that this is another size, which its processes hear of."""
        if self.is_open:
            termios.tcsetwinsize(self._descriptor, (rows, columns))

    def resume(self) -> None:
        if self.is_open:
            self._loop.add_reader(self._descriptor, self._read)

    def pause(self) -> None:
        if self.is_open:
            self._loop.remove_reader(self._descriptor)

    def close(self) -> None:
        if self.is_open:
            self.pause()
            self.is_open = False
            self.due = 0
            os.close(self._descriptor)

    def command_ended(self) -> None:
        """Note how much the command left in the pipe."""
        if self.is_open and self._is_terminal:
            self.due = 1  # All that comes until it ends, which is soon.
        elif self.is_open:
            count = array.array("i", [0])
            fcntl.ioctl(self._descriptor, termios.FIONREAD, count)
            self.due = count[0]

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # So ends a terminal that nobody has open any more.
        if data:
            if not self._is_terminal:
                self.due = max(0, self.due - len(data))
            self._channel.write(data, self._datatype)  # pyright: ignore[reportUnknownMemberType] - the library leaves its type open
            self._moved()
        else:
            self.close()
            # Not at once: that the command could not start may be known in this turn of the loop.
            self._loop.call_soon(self._moved)


class Input:
    """The input of a command: moves what the client sends to its pipe."""

    def __init__(self, descriptor: int, channel: asyncssh.SSHServerChannel[bytes]) -> None:
        self._descriptor = descriptor
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._waiting = b""
        self._is_ending = False
        self._is_open = True
        self._is_terminal = os.isatty(descriptor)
        os.set_blocking(descriptor, False)

    def write(self, data: bytes) -> None:
        if not self._is_open:
            return  # The command does not read any more, as `head` does not.
        was_waiting = bool(self._waiting)
        self._waiting += data
        self._flush()
        if self._waiting and not was_waiting:
            self._channel.pause_reading()
            self._loop.add_writer(self._descriptor, self._resume)

    def end(self) -> None:
        """Give the command the end of file once everything is written; a terminal has none."""
        if self._is_terminal:
            return
        self._is_ending = True
        if not self._waiting:
            self.close()

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._loop.remove_writer(self._descriptor)
            os.close(self._descriptor)
            if self._waiting:
                self._waiting = b""
                self._channel.resume_reading()  # What comes now is dropped.

    def _flush(self) -> None:
        try:
            written = os.write(self._descriptor, self._waiting)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._waiting = self._waiting[written:]

    def _resume(self) -> None:
        self._flush()
        if self._waiting:
            return
        if self._is_open:
            self._loop.remove_writer(self._descriptor)
        if self._is_ending:
            self.close()
        self._channel.resume_reading()


class Command(asyncssh.SSHServerSession[bytes]):
    """A channel that a command runs on."""

    _stdin: Input
    _outputs: tuple[Output, ...]
    _number: int

    def __init__(self, reaper: Reaper, channel: asyncssh.SSHServerChannel[bytes]) -> None:
        self._reaper = reaper
        self._channel = channel
        self._status: int | None = None
        self._is_paused = False
        self._has_exited = False
        self._has_reported = False

    def start(self, arguments: list[str], *, on_terminal: bool) -> bool:
        """Start the command; return whether there were files enough to do so."""
        # Any byte that waits pauses us: then an unpaused channel is known to be empty.
        self._channel.set_write_buffer_limits(0, 0)
        environment = dict(self._channel.get_environment())
        opened: list[int] = []
        try:
            streams = self._open_terminal(opened) if on_terminal else self._open_pipes(opened)
        except OSError:
            for descriptor in opened:
                os.close(descriptor)
            return False
        if on_terminal:
            environment["TERM"] = self._channel.get_terminal_type() or "dumb"
        for output in self._outputs:
            output.resume()
        terminal = os.ttyname(streams[0]) if on_terminal else None
        self._number = self._reaper.start(
            arguments, environment, streams, self._ended, terminal=terminal
        )
        return True

    def _open_pipes(self, opened: list[int]) -> tuple[int, int, int]:
        for _ in range(3):
            opened += os.pipe()
        theirs_in, ours_in, ours_out, theirs_out, ours_error, theirs_error = opened
        self._stdin = Input(ours_in, self._channel)
        self._outputs = (
            Output(ours_out, self._channel, None, self._moved),
            Output(ours_error, self._channel, EXTENDED_DATA_STDERR, self._moved),
        )
        return theirs_in, theirs_out, theirs_error

    def _open_terminal(self, opened: list[int]) -> tuple[int, int, int]:
        opened += os.openpty()
        ours, theirs = opened
        for descriptor in (ours, theirs, theirs):
            opened.append(os.dup(descriptor))
        self._stdin = Input(opened[2], self._channel)
        self._outputs = (Output(ours, self._channel, None, self._moved),)
        columns, rows, _, _ = self._channel.get_terminal_size()
        self._outputs[0].resize(columns, rows)
        return theirs, opened[3], opened[4]

    @override
    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        for output in self._outputs[:1]:
            output.resize(width, height)

    @override
    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._stdin.write(data)

    @override
    def eof_received(self) -> bool:
        self._stdin.end()
        return True

    @override
    def pause_writing(self) -> None:
        self._is_paused = True
        for output in self._outputs:
            output.pause()

    @override
    def resume_writing(self) -> None:
        self._is_paused = False
        for output in self._outputs:
            output.resume()
        self._moved()

    @override
    def signal_received(self, signal: str) -> None:
        number = _signal_number(signal)
        if number is not None:
            self._reaper.signal(self._number, number)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._reaper.signal(self._number, signal.SIGHUP, hangup=True)
        self._stdin.close()
        for output in self._outputs:
            output.close()

    def _ended(self, status: int | None, reason: str) -> None:
        """Note how the command ended, and send it as soon as its output is out."""
        self._has_exited = True
        self._status = status
        if status is None and not self._channel.is_closing():
            self._channel.write_stderr(f"{reason}\n".encode())
        for output in self._outputs:
            output.command_ended()
        self._stdin.close()
        self._moved()

    def _moved(self) -> None:
        """Tell the client what has become true: the end of output, the exit status."""
        if self._is_paused:
            return
        is_open = any(output.is_open for output in self._outputs)
        if not self._has_exited:
            if not is_open:
                self._channel.write_eof()
            return
        if not self._has_reported and not any(output.due for output in self._outputs):
            self._has_reported = True
            self._report()
        if self._has_reported and not is_open:
            self._channel.close()

    def _report(self) -> None:
        """Send the exit status, or the signal, and leave the channel open.

        The library's own methods for it close the channel, but a background process
        may have more to say.
        """
        no_reply = Boolean(False)  # noqa: FBT003 - it is what the wire carries
        status = CANNOT_START << 8 if self._status is None else self._status
        if os.WIFSIGNALED(status):
            name = _signal_name(os.WTERMSIG(status))
            core = Boolean(os.WCOREDUMP(status))
            words = [String("exit-signal"), no_reply, String(name), core]
            self._channel.send_packet(MSG_CHANNEL_REQUEST, *words, String(""), String(""))
        else:
            code = UInt32(os.WEXITSTATUS(status))
            words = [String("exit-status"), no_reply, code]
            self._channel.send_packet(MSG_CHANNEL_REQUEST, *words)


class Session(asyncssh.SSHServerSession[bytes]):
    """A session channel: passes everything on to what the client asked it to be."""

    _channel: asyncssh.SSHServerChannel[bytes]

    def __init__(self, reaper: Reaper, shell: str, home: str) -> None:
        self._reaper = reaper
        self._shell = shell
        self._home = home
        self._wants_terminal = False
        # Until the client has asked, nothing is done with what comes.
        self._handler: asyncssh.SSHServerSession[bytes] = asyncssh.SSHServerSession()

    @override
    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = chan

    @override
    def pty_requested(
        self, term_type: str, term_size: object, term_modes: Mapping[int, int]
    ) -> bool:
        self._wants_terminal = True
        return True

    @override
    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        self._handler.terminal_size_changed(width, height, pixwidth, pixheight)

    @override
    def exec_requested(self, command: str) -> bool:
        return self._start([self._shell, "-c", command])

    @override
    def shell_requested(self) -> bool:
        return self._start([self._shell])

    @override
    def subsystem_requested(self, subsystem: str) -> bool:
        if subsystem != "sftp":
            return False
        self._handler = SSHServerStreamSession[bytes](
            None, lambda _: Files(self._channel, self._home), SFTP_VERSION
        )
        self._handler.connection_made(self._channel)
        return True

    @override
    def session_started(self) -> None:
        self._handler.session_started()

    @override
    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._handler.data_received(data, datatype)

    @override
    def eof_received(self) -> bool:
        return self._handler.eof_received()

    @override
    def pause_writing(self) -> None:
        self._handler.pause_writing()

    @override
    def resume_writing(self) -> None:
        self._handler.resume_writing()

    @override
    def signal_received(self, signal: str) -> None:
        self._handler.signal_received(signal)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._handler.connection_lost(exc)

    def _start(self, arguments: list[str]) -> bool:
        command = Command(self._reaper, self._channel)
        is_started = command.start(arguments, on_terminal=self._wants_terminal)
        if is_started:
            self._handler = command
        return is_started


def _signal_number(name: str) -> int | None:
    try:
        return signal.Signals[f"SIG{name}"].value
    except KeyError:
        return None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return str(number)
