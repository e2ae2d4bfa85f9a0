"""The small processes below the server, which start commands and end what is left of them.

Theory of operation
-------------------

::

    manager                 the program that opened the group
    └── server              all instances' SSH servers
        └── supervisor      this file, run as a script; forks reapers, cleans up
            ├── reaper      one for each instance; starts its commands and waits for them
            │   ├── command     in a session of its own
            │   └── ...         everything the commands left behind, however they detached
            └── reaper

The server does not fork, because that would take milliseconds in a process of its
size. It passes three file descriptors to a reaper, which spawns the command. This
file imports no large module, and nothing from its own package, which is large.

No process is told explicitly that another one died: each watches a stream to the
process above it, and the kernel closes that stream. When the manager ends, the
server ends (unless it is persistent). When the server ends, even by SIGKILL, each
reaper ends what its instance started, deletes the instance's directory and ends.
The supervisor waits for the reapers, deletes the rest and ends. A lock on the root
is inherited along the tree, so a process that acquires it knows that nothing of the
previous tree is left.

On Linux a reaper is a subreaper: a process that detached (setsid, double fork)
becomes the reaper's child as soon as its parent ends. So when `waitpid` reports no
children, there are no descendants either. The supervisor is a subreaper too: if a
reaper is killed, the processes of its instance become children of the supervisor. It
has no other children than reapers, so it kills every other one.
macOS has no subreapers. There, as best effort, the process groups of commands are
killed; a process that left its group survives its instance.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import re
import select
import signal
import socket
import sys
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import NoReturn

__all__ = ()

INSTANCE_NAME = re.compile(r"local-[0-9a-f]{12}")
# The time between HUP and KILL for a process group whose channel was closed.
HANGUP_SECONDS = 2.0
# How often to check whether killed processes have ended.
KILL_INTERVAL_SECONDS = 0.02
PR_SET_CHILD_SUBREAPER = 36
# Python ignores SIGPIPE, and a manager can ignore others (nohup). Commands must not inherit that.
DEFAULT_SIGNALS = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGPIPE,
    signal.SIGTERM,
    signal.SIGCHLD,
    signal.SIGXFSZ,
)


class MessageReader:
    """Receives lines of JSON, and file descriptors in the order of the messages they belong to.

    Attributes:
        descriptors: received and not yet taken, oldest first.
    """

    def __init__(self, source: socket.socket) -> None:
        self.descriptors: deque[int] = deque()
        self._source = source
        self._rest = b""

    def receive(self) -> list[dict[str, Any]] | None:
        """Return the messages received so far, possibly none; None at the end of the stream."""
        flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
        try:
            data, descriptors, _, _ = socket.recv_fds(self._source, 65536, 16, flags)
        except (BlockingIOError, InterruptedError):
            return []
        except ConnectionResetError:
            return None
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)  # noqa: FBT003 - it has no name
        self.descriptors += descriptors
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]


class ChildSignal:
    """A file descriptor that becomes readable when a child of this process has ended."""

    def __init__(self) -> None:
        self.descriptor, self._writer = os.pipe()
        os.set_blocking(self.descriptor, False)
        os.set_blocking(self._writer, False)
        signal.signal(signal.SIGCHLD, _ignore)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self.descriptor, 4096):
                pass

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        os.close(self.descriptor)
        os.close(self._writer)


def _ignore(number: int, frame: object) -> None:
    """Do nothing. A handler is needed for the signal to be written to the descriptor."""


def reap() -> Iterator[tuple[int, int]]:
    """Wait for the children that have ended, without blocking.

    Yields:
        Their process ids and wait statuses.

    Raises:
        ChildProcessError: there are no children.
    """
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        yield pid, status


def become_subreaper() -> None:
    """Become the parent of every descendant whose parent ends; on Linux only."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def process_table() -> dict[int, tuple[int, int]]:
    """Return the parent and the process group of every process; empty where there is no /proc."""
    table: dict[int, tuple[int, int]] = {}
    with contextlib.suppress(OSError), os.scandir("/proc") as entries:
        for entry in entries:
            if not entry.name.isdigit():
                continue
            # The process may end while it is read; then it does not matter any more.
            with contextlib.suppress(OSError, ValueError, IndexError):
                text = Path("/proc", entry.name, "stat").read_bytes()
                # The name, in parentheses, can contain any character.
                fields = text[text.rindex(b")") + 2 :].split()
                table[int(entry.name)] = (int(fields[1]), int(fields[2]))
    return table


def descendants(roots: Iterable[int], table: dict[int, tuple[int, int]]) -> list[int]:
    """Return all descendants of the given processes."""
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in table.items():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    waiting = list(roots)
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def kill(pids: Iterable[int]) -> None:
    """Kill processes; ignore those that have ended or belong to another user."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def kill_group(group: int, number: int) -> None:
    """Send a signal to a process group; ignore one that has ended."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def remove_tree(folder: str) -> None:
    """Delete a directory tree, even if it contains directories without write permission.

    The tree may be deeper than a recursion or a path can go, so each directory is first moved to
    the top.
    """
    todo = [folder]
    numbers = itertools.count()
    while todo:
        path = todo.pop()
        with contextlib.suppress(OSError):
            os.chmod(path, 0o700)  # noqa: PTH101 -- a name may be no text
            for entry in list(os.scandir(path)):
                with contextlib.suppress(OSError):
                    if not entry.is_dir(follow_symlinks=False):
                        os.unlink(entry.path)  # noqa: PTH108 -- as above
                        continue
                    os.chmod(entry.path, 0o700)  # noqa: PTH101 -- as above
                    moved = f"{folder}.{next(numbers)}"
                    os.rename(entry.path, moved)  # noqa: PTH104 -- as above
                    todo.append(moved)
            os.rmdir(path)  # noqa: PTH106 -- as above


def remove_instances(root: str) -> None:
    """Delete the directories of instances below a root, and nothing else."""
    folder = Path(root, "instances")
    with contextlib.suppress(OSError):
        for entry in folder.iterdir():
            if INSTANCE_NAME.fullmatch(entry.name):
                remove_tree(str(entry))
        folder.rmdir()


class Reaper:
    """The process that starts the commands of one instance, and ends everything they started."""

    _children: ChildSignal

    def __init__(self, server: socket.socket, order: dict[str, Any]) -> None:
        self._server = server
        self._reader = MessageReader(server)
        self._folder: str = order["folder"]
        self._environment: dict[str, str] = order["environment"]
        self._running: dict[int, int] = {}  # process id -> the server's number for the command
        self._commands: dict[int, int] = {}  # the reverse
        self._left_groups: set[int] = set()  # outlived their command; used where there is no /proc
        self._hangups: dict[int, float] = {}  # process group -> when to kill it

    def run(self) -> None:
        """Serve until the server closes the socket, then end everything."""
        self._children = ChildSignal()
        become_subreaper()
        try:
            self._prepare()
        except OSError as error:
            self._report({"ready": False, "reason": f"{error.filename}: {error.strerror}"})
            return
        self._report({"ready": True})
        poll = select.poll()
        poll.register(self._server, select.POLLIN)
        poll.register(self._children.descriptor, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll(self._patience_milliseconds())}
            if self._server.fileno() in ready:
                messages = self._reader.receive()
                if messages is None:
                    break
                for message in messages:
                    self._handle(message)
            if self._children.descriptor in ready:
                self._children.clear()
                self._report_ended()
            self._kill_hung_up()
        self._end_all(poll)
        os.chdir("/")
        remove_tree(self._folder)

    def _prepare(self) -> None:
        """Create the instance's directories, and change to its home, where commands start."""
        home, temporary = self._environment["HOME"], self._environment["TMPDIR"]
        Path(self._folder).parent.mkdir(mode=0o700, exist_ok=True)
        for folder in (self._folder, home, temporary):
            Path(folder).mkdir(mode=0o700)
        os.chdir(home)

    def _handle(self, message: dict[str, Any]) -> None:
        command: int = message["command"]
        if "arguments" in message:
            self._start(command, message)
        elif command in self._commands:
            group = self._commands[command]
            kill_group(group, message["signal"])
            if message.get("hangup"):
                self._hangups[group] = time.monotonic() + HANGUP_SECONDS

    def _start(self, command: int, order: dict[str, Any]) -> None:
        arguments: list[str] = order["arguments"]
        descriptors = [self._reader.descriptors.popleft() for _ in range(3)]
        try:
            pid = os.posix_spawn(
                arguments[0],
                arguments,
                self._environment | order["environment"],
                file_actions=[
                    *_opening(order["terminal"]),
                    *((os.POSIX_SPAWN_DUP2, one, number) for number, one in enumerate(descriptors)),
                ],
                setsid=True,
                setsigmask=(),
                setsigdef=DEFAULT_SIGNALS,
            )
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self._report({"command": command, "failed": f"{arguments[0]}: {reason}"})
        else:
            self._running[pid] = command
            self._commands[command] = pid
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _report_ended(self) -> bool:
        """Report the commands that have ended; return whether any children are left."""
        try:
            for pid, status in reap():
                command = self._running.pop(pid, None)
                if command is None:
                    continue  # A detached process, which this one adopted.
                del self._commands[command]
                self._note_left_group(pid)
                self._report({"command": command, "status": status})
        except ChildProcessError:
            return False
        return True

    def _note_left_group(self, group: int) -> None:
        if sys.platform != "linux":
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, 0)
                self._left_groups.add(group)

    def _report(self, message: dict[str, Any]) -> None:
        # If the server is gone, nothing reads this; `run` notices that.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._server.sendall(json.dumps(message).encode() + b"\n")

    def _patience_milliseconds(self) -> float | None:
        if not self._hangups:
            return None
        return max(0.0, min(self._hangups.values()) - time.monotonic()) * 1000 + 1

    def _kill_hung_up(self) -> None:
        """Kill what remains of the process groups whose time after HUP is up.

        The command itself may have ended long ago, and the number of its group may be in use
        again elsewhere, so only descendants of this process are killed.
        """
        now = time.monotonic()
        due = {group for group, deadline in self._hangups.items() if deadline <= now}
        if not due:
            return
        for group in due:
            del self._hangups[group]
        table = process_table()
        kill(pid for pid in descendants([os.getpid()], table) if table[pid][1] in due)
        for group in due & (self._running.keys() | self._left_groups):
            kill_group(group, signal.SIGKILL)

    def _end_all(self, poll: select.poll) -> None:
        """Kill all descendants until none is left."""
        poll.unregister(self._server)
        while self._report_ended():
            kill(descendants([os.getpid()], process_table()))
            for group in self._running.keys() | self._left_groups:
                kill_group(group, signal.SIGKILL)
            poll.poll(KILL_INTERVAL_SECONDS * 1000)
            self._children.clear()


def _opening(terminal: str | None) -> list[tuple[Any, ...]]:
    """Return the action that makes a terminal the controlling one: the leader opens it."""
    return [] if terminal is None else [(os.POSIX_SPAWN_OPEN, 0, terminal, os.O_RDWR, 0)]


class Supervisor:
    """Forks reapers on request; cleans up after reapers that were killed, and at the end."""

    def __init__(self, server: socket.socket, clean_up: Callable[[], None]) -> None:
        self._server = server
        self._reader = MessageReader(server)
        self._clean_up = clean_up
        self._children = ChildSignal()
        self._folders: dict[int, str] = {}  # process id of a reaper -> the directory it deletes
        self._abandoned: list[str] = []  # directories of reapers that were killed
        self._has_strays = False  # whether there may be children that are not reapers

    def run(self) -> None:
        """Serve until the server has closed the socket and every reaper has ended."""
        become_subreaper()
        poll = select.poll()
        poll.register(self._server, select.POLLIN)
        poll.register(self._children.descriptor, select.POLLIN)
        closing = False
        while not (closing and not self._folders and not self._has_strays):
            patience = KILL_INTERVAL_SECONDS * 1000 if self._has_strays else None
            ready = {descriptor for descriptor, _ in poll.poll(patience)}
            if self._server.fileno() in ready:
                closing = not self._serve()
                if closing:
                    poll.unregister(self._server)
            self._children.clear()
            self._reap()
            if self._has_strays:
                self._kill_strays()
        self._clean_up()

    def _serve(self) -> bool:
        messages = self._reader.receive()
        for order in messages or ():
            connection = socket.socket(fileno=self._reader.descriptors.popleft())
            with connection, contextlib.suppress(BlockingIOError):
                # If forking fails, the server sees the end of this stream instead.
                self._fork(order["folder"], Reaper(connection, order).run)
        return messages is not None

    def _fork(self, folder: str, work: Callable[[], None]) -> None:
        pid = os.fork()
        if pid:
            self._folders[pid] = folder
            return

        def alone() -> None:
            self._server.close()
            self._children.close()
            work()

        run_and_exit(alone)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            for pid, status in reap():
                folder = self._folders.pop(pid, None)
                if folder is None or status != 0:
                    self._has_strays = True
                if folder is not None and status != 0:
                    self._abandoned.append(folder)

    def _kill_strays(self) -> None:
        """Kill the children that are not reapers; once none is left, delete their directories."""
        table = process_table()
        me = os.getpid()
        strays = [pid for pid, (parent, _) in table.items() if parent == me]
        strays = [pid for pid in strays if pid not in self._folders]
        if strays:
            kill([*strays, *descendants(strays, table)])
            return
        self._has_strays = False
        for folder in self._abandoned:
            # In a process of its own, because deleting can be slow and must not delay requests.
            self._fork(folder, functools.partial(remove_tree, folder))
        self._abandoned.clear()


def run_and_exit(work: Callable[[], None]) -> NoReturn:
    """Run the work of a forked process and end it: it must not return into its parent's code."""
    code = 1
    try:
        work()
        code = 0
    except BaseException as error:  # noqa: BLE001 - this process ends here in any case
        from fleeting._bugs import describe_bug  # This process seldom needs them.
        from fleeting._text import say

        say(f"error: {describe_bug(error, where=True)}", err=True)
    os._exit(code)


def main() -> None:
    """Run as the supervisor of the tree whose root and descriptors are in the arguments."""
    root, temporary, server, lock = sys.argv[1:]
    # This process and its reapers hold the lock; commands inherit neither descriptor.
    for descriptor in (int(server), int(lock)):
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - it has no name

    def clean_up() -> None:
        if temporary == "temporary":
            remove_tree(root)
        else:
            remove_instances(root)

    Supervisor(socket.socket(fileno=int(server)), clean_up).run()


if __name__ == "__main__":
    main()
