"""One SSH session channel of an instance: a command, a shell or SFTP.

Theory of operation
-------------------

A command's three streams are pipes. Everything happens in callbacks on the event
loop's thread. There are no tasks, and no buffers except for the rest of a `write`:

* Output is read only while the channel accepts it. The channel is configured to pause
  the session as soon as a single byte cannot be sent at once. So a client that does
  not read stops the command, and a channel that has not paused the session is empty.
* Input that does not fit into the pipe pauses the channel, and thereby the client.
* When the command ends, the current content of the pipes is sent, and right after it
  the exit status, because a background process can hold the pipes open for ever. As
  with other SSH servers, the channel stays open for the output of such a process
  until the process closes it or the client closes the channel.
* When the channel closes before the command has ended, the command's process group
  gets HUP, and KILL a short time later.
* With a terminal, its master side replaces all three pipes. It ends when the command
  does, because the system hangs up the terminal when the leader of its session ends;
  only then is the output complete.
"""

from __future__ import annotations

import array
import asyncio
import errno
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

    from fleeting.local._reaper_client import ReaperClient

__all__ = ("InstanceSession", "explain")

READ_BYTES = 65536
# The exit status of a command that could not be started, as in shells.
CANNOT_START = 127
SFTP_VERSION = 3
# The errors that say that this process, or the computer, has too many open files.
FULL = {errno.EMFILE, errno.ENFILE}


class HomeSFTPServer(asyncssh.SFTPServer):
    """SFTP in which relative paths start at the instance's home directory, as commands do."""

    def __init__(self, channel: asyncssh.SSHServerChannel[bytes], home: str) -> None:
        super().__init__(channel)  # pyright: ignore[reportUnknownMemberType] - the library leaves its type open
        self._home = os.fsencode(home)

    @override
    def map_path(self, path: bytes) -> bytes:
        return os.path.join(self._home, path)  # noqa: PTH118 - SFTP paths are bytes


class CommandOutput:
    """One output of a command: copies its pipe to the channel.

    Attributes:
        due: how many bytes must be sent before the exit status.
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
        """Set the size of the terminal; its processes get WINCH."""
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
        """Record how many bytes the command left in the pipe."""
        if self.is_open and self._is_terminal:
            self.due = 1  # Everything until the terminal ends, which is soon.
        elif self.is_open:
            count = array.array("i", [0])
            fcntl.ioctl(self._descriptor, termios.FIONREAD, count)
            self.due = count[0]

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # A terminal reports its end with an error.
        if data:
            if not self._is_terminal:
                self.due = max(0, self.due - len(data))
            self._channel.write(data, self._datatype)  # pyright: ignore[reportUnknownMemberType] - the library leaves its type open
            self._moved()
        else:
            self.close()
            # In the next turn of the loop: this one may still report a failed start.
            self._loop.call_soon(self._moved)


class CommandInput:
    """The input of a command: copies what the client sends to its pipe."""

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
            return  # The command does not read the rest of its input, as `head` does not.
        was_waiting = bool(self._waiting)
        self._waiting += data
        self._flush()
        if self._waiting and not was_waiting:
            self._channel.pause_reading()
            self._loop.add_writer(self._descriptor, self._resume)

    def end(self) -> None:
        """Close the pipe once everything is written; on a terminal, do nothing."""
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
                self._channel.resume_reading()  # Data that arrives from now on is dropped.

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


class CommandSession(asyncssh.SSHServerSession[bytes]):
    """A session in which a command runs."""

    _stdin: CommandInput
    _outputs: tuple[CommandOutput, ...]
    _number: int

    def __init__(self, reaper: ReaperClient, channel: asyncssh.SSHServerChannel[bytes]) -> None:
        self._reaper = reaper
        self._channel = channel
        self._status: int | None = None
        self._is_paused = False
        self._has_exited = False
        self._has_reported = False

    def start(self, arguments: list[str], *, on_terminal: bool) -> None:
        """Start the command.

        Raises:
            OSError: this process has too many open files.
        """
        # Pause on any unsent byte, so that an unpaused channel is known to be empty.
        self._channel.set_write_buffer_limits(0, 0)
        environment = dict(self._channel.get_environment())
        opened: list[int] = []
        try:
            streams = self._open_terminal(opened) if on_terminal else self._open_pipes(opened)
        except OSError:
            for descriptor in opened:
                os.close(descriptor)
            raise
        if on_terminal:
            environment["TERM"] = self._channel.get_terminal_type() or "dumb"
        for output in self._outputs:
            output.resume()
        terminal = os.ttyname(streams[0]) if on_terminal else None
        self._number = self._reaper.start(
            arguments, environment, streams, self._ended, terminal=terminal
        )

    def _open_pipes(self, opened: list[int]) -> tuple[int, int, int]:
        for _ in range(3):
            opened += os.pipe()
        theirs_in, ours_in, ours_out, theirs_out, ours_error, theirs_error = opened
        self._stdin = CommandInput(ours_in, self._channel)
        self._outputs = (
            CommandOutput(ours_out, self._channel, None, self._moved),
            CommandOutput(ours_error, self._channel, EXTENDED_DATA_STDERR, self._moved),
        )
        return theirs_in, theirs_out, theirs_error

    def _open_terminal(self, opened: list[int]) -> tuple[int, int, int]:
        opened += os.openpty()
        ours, theirs = opened
        for descriptor in (ours, theirs, theirs):
            opened.append(os.dup(descriptor))
        self._stdin = CommandInput(opened[2], self._channel)
        self._outputs = (CommandOutput(ours, self._channel, None, self._moved),)
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
        """Record how the command ended, and report it once its output is sent."""
        self._has_exited = True
        self._status = status
        if status is None and not self._channel.is_closing():
            self._channel.write_stderr(f"{reason}\n".encode())
        for output in self._outputs:
            output.command_ended()
        self._stdin.close()
        self._moved()

    def _moved(self) -> None:
        """Report to the client what is due: the end of the output, or the exit status."""
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
        """Send the exit status or the signal, and leave the channel open.

        asyncssh's own methods for this close the channel, but a background process may still
        write output.
        """
        no_reply = Boolean(False)  # noqa: FBT003 - a value of the protocol
        status = CANNOT_START << 8 if self._status is None else self._status
        if os.WIFSIGNALED(status):
            name = _signal_name(os.WTERMSIG(status))
            core = Boolean(os.WCOREDUMP(status))
            fields = [String("exit-signal"), no_reply, String(name), core]
            self._channel.send_packet(MSG_CHANNEL_REQUEST, *fields, String(""), String(""))
        else:
            code = UInt32(os.WEXITSTATUS(status))
            fields = [String("exit-status"), no_reply, code]
            self._channel.send_packet(MSG_CHANNEL_REQUEST, *fields)


class FailedSession(asyncssh.SSHServerSession[bytes]):
    """A session in which no command could be started: it tells why, and ends."""

    def __init__(self, channel: asyncssh.SSHServerChannel[bytes], reason: str) -> None:
        self._channel = channel
        self._reason = reason

    @override
    def session_started(self) -> None:
        self._channel.write_stderr(f"{self._reason}\n".encode())
        self._channel.exit(CANNOT_START)


class InstanceSession(asyncssh.SSHServerSession[bytes]):
    """A session channel: passes everything on to the handler that the client's request selects."""

    _channel: asyncssh.SSHServerChannel[bytes]

    def __init__(self, reaper: ReaperClient, shell: str, home: str) -> None:
        self._reaper = reaper
        self._shell = shell
        self._home = home
        self._wants_terminal = False
        # Ignores everything until the client has requested a command, a shell or SFTP.
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
            None, lambda _: HomeSFTPServer(self._channel, self._home), SFTP_VERSION
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
        command = CommandSession(self._reaper, self._channel)
        try:
            command.start(arguments, on_terminal=self._wants_terminal)
        except OSError as error:
            # To refuse the request would tell the client no reason.
            reason = f"the server of the local group cannot start a command: {explain(error)}"
            self._handler = FailedSession(self._channel, reason)
        else:
            self._handler = command
        return True


def explain(error: OSError) -> str:
    """Return the cause of an error, and what to do if files ran out."""
    reason = (error.strerror or str(error)).lower()
    return f"{reason}; raise `ulimit -n`" if error.errno in FULL else reason


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
