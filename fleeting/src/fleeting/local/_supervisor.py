"""The small processes below the server, which start commands and end what is left of them.

Theory of operation
-------------------

::

    manager                 the program that opened the group
    └── server              all instances' SSH
        └── nursery         this file, run as a script; forks reapers, cleans up
            ├── reaper      one for each instance; starts its commands and buries them
            │   ├── command     in a session of its own
            │   └── ...         whatever the commands left behind, however they detached
            └── reaper

The server does not fork: a process of its size would take milliseconds for
it. It hands three file descriptors to a reaper, which spawns the command. This
file imports nothing large, and nothing of its own package, which is.

Nobody here needs to be told that somebody died, because each watches a stream
to the process above it, which the kernel closes. When the manager goes, the
server goes (unless it is persistent); when the server goes, also by SIGKILL,
each reaper ends what its instance started, deletes the instance's directory
and goes; the nursery waits for them, deletes the rest and goes. A lock on the
root is inherited along the tree, so whoever gets it knows that nothing of the
former tree is left.

On Linux a reaper is a subreaper: a process that detached (setsid, double fork)
becomes the reaper's child as soon as its parent ends, so when `waitpid` says
that there is no child, there is no descendant either. The nursery is one too:
if a reaper is killed, the processes of its instance become children of the
nursery, which has no other children than reapers, and kills what is not one.
macOS has no subreapers. There, as best effort, the process groups of commands
are killed; a process that left its group survives its instance.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import select
import shutil
import signal
import socket
import sys
import time
import traceback
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import NoReturn

__all__ = ()

INSTANCE_NAME = re.compile(r"local-[0-9a-f]{12}")
# How long a group of processes has between HUP and KILL once nobody listens to it.
HANGUP_SECONDS = 2.0
# How often to look again at processes that were killed and are not dead yet.
KILL_INTERVAL_SECONDS = 0.02
PR_SET_CHILD_SUBREAPER = 36
# Python ignores SIGPIPE, and a manager may ignore others (nohup); commands must not inherit that.
DEFAULT_SIGNALS = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGPIPE,
    signal.SIGTERM,
    signal.SIGCHLD,
    signal.SIGXFSZ,
)


class Inbox:
    """Receives lines of JSON, and file descriptors in the order of the messages they belong to.

    Attributes:
        descriptors: received and not yet taken, the oldest first.
    """

    def __init__(self, source: socket.socket) -> None:
        self.descriptors: deque[int] = deque()
        self._source = source
        self._rest = b""

    def receive(self) -> list[dict[str, Any]] | None:
        """Return the messages that have come, perhaps none; None at the end of the stream."""
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
    """A file descriptor that becomes readable when a child of this process ended."""

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
    """Do nothing: the signal is to arrive, and the descriptor tells of it."""


def reap() -> Iterator[tuple[int, int]]:
    """Bury the children that have ended.

    Yields:
        Their process ids and wait statuses.

    Raises:
        ChildProcessError: there are no children at all.
    """
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        yield pid, status


def become_subreaper() -> None:
    """Become the parent of every descendant that loses its own; on Linux."""
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
            # A process that ends while it is looked at is of no interest any more.
            with contextlib.suppress(OSError, ValueError, IndexError):
                text = Path("/proc", entry.name, "stat").read_bytes()
                # The name, in parentheses, may contain anything.
                fields = text[text.rindex(b")") + 2 :].split()
                table[int(entry.name)] = (int(fields[1]), int(fields[2]))
    return table


def descendants(roots: Iterable[int], table: dict[int, tuple[int, int]]) -> list[int]:
    """Return all processes below the given ones."""
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
    """Kill processes, of which some may have ended or belong to another user."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def kill_group(group: int, number: int) -> None:
    """Send a signal to a process group that may be gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def remove_tree(folder: str) -> None:
    """Delete a folder, also if somebody took away his own permission to do so."""
    shutil.rmtree(folder, ignore_errors=True)
    if Path(folder).exists():
        for path, names, _ in os.walk(folder):
            for name in names:
                below = Path(path, name)
                with contextlib.suppress(OSError):
                    if not below.is_symlink():
                        below.chmod(0o700)
        shutil.rmtree(folder, ignore_errors=True)


def remove_instances(root: str) -> None:
    """Delete the directories of instances below a root, and nothing else."""
    folder = Path(root, "instances")
    with contextlib.suppress(OSError):
        for entry in folder.iterdir():
            if INSTANCE_NAME.fullmatch(entry.name):
                remove_tree(str(entry))
        folder.rmdir()


class Reaper:
    """Starts the commands of one instance, and ends everything that they started."""

    _children: ChildSignal

    def __init__(self, server: socket.socket, order: dict[str, Any]) -> None:
        self._server = server
        self._inbox = Inbox(server)
        self._folder: str = order["folder"]
        self._environment: dict[str, str] = order["environment"]
        self._running: dict[int, int] = {}  # process id -> the server's number for the command
        self._commands: dict[int, int] = {}  # the other way round
        self._left_groups: set[int] = set()  # outlived their command; kept where /proc is missing
        self._hangups: dict[int, float] = {}  # process group -> when to kill it

    def run(self) -> None:
        """Serve until the server closes its side, then end everything."""
        self._children = ChildSignal()
        become_subreaper()
        try:
            self._settle()
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
                messages = self._inbox.receive()
                if messages is None:
                    break
                for message in messages:
                    self._handle(message)
            if self._children.descriptor in ready:
                self._children.clear()
                self._bury()
            self._kill_hung_up()
        self._end_all(poll)
        os.chdir("/")
        remove_tree(self._folder)

    def _settle(self) -> None:
        """Make the instance's directories and go home, where its commands start."""
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
        descriptors = [self._inbox.descriptors.popleft() for _ in range(3)]
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

    def _bury(self) -> bool:
        """Report the commands that ended; return whether there are other children left."""
        try:
            for pid, status in reap():
                command = self._running.pop(pid, None)
                if command is None:
                    continue  # It had detached and was adopted.
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
        # Nobody listens any more once the server is gone, which is noticed elsewhere.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._server.sendall(json.dumps(message).encode() + b"\n")

    def _patience_milliseconds(self) -> float | None:
        if not self._hangups:
            return None
        return max(0.0, min(self._hangups.values()) - time.monotonic()) * 1000 + 1

    def _kill_hung_up(self) -> None:
        """Kill what remains of the groups that were hung up a while ago.

        The command itself may have ended long since, and its group's number may be
        in use again elsewhere: only descendants of this process are killed.
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
        """Kill until there is nothing left to wait for."""
        poll.unregister(self._server)
        while self._bury():
            kill(descendants([os.getpid()], process_table()))
            for group in self._running.keys() | self._left_groups:
                kill_group(group, signal.SIGKILL)
            poll.poll(KILL_INTERVAL_SECONDS * 1000)
            self._children.clear()


def _opening(terminal: str | None) -> list[tuple[Any, ...]]:
    """Return what makes a terminal the one of a new session: its leader opens it first."""
    return [] if terminal is None else [(os.POSIX_SPAWN_OPEN, 0, terminal, os.O_RDWR, 0)]


class Nursery:
    """Forks reapers on request, and clears up after those that were killed and at the end."""

    def __init__(self, server: socket.socket, clean_up: Callable[[], None]) -> None:
        self._server = server
        self._inbox = Inbox(server)
        self._clean_up = clean_up
        self._children = ChildSignal()
        self._folders: dict[int, str] = {}  # process id of a reaper -> what it would delete
        self._abandoned: list[str] = []  # folders of reapers that were killed
        self._suspicious = False  # whether there may be children that are not ours

    def run(self) -> None:
        """Serve until the server closes its side and every reaper has ended."""
        become_subreaper()
        poll = select.poll()
        poll.register(self._server, select.POLLIN)
        poll.register(self._children.descriptor, select.POLLIN)
        closing = False
        while not (closing and not self._folders and not self._suspicious):
            patience = KILL_INTERVAL_SECONDS * 1000 if self._suspicious else None
            ready = {descriptor for descriptor, _ in poll.poll(patience)}
            if self._server.fileno() in ready:
                closing = not self._serve()
                if closing:
                    poll.unregister(self._server)
            self._children.clear()
            self._bury()
            if self._suspicious:
                self._kill_strays()
        self._clean_up()

    def _serve(self) -> bool:
        messages = self._inbox.receive()
        for order in messages or ():
            connection = socket.socket(fileno=self._inbox.descriptors.popleft())
            with connection, contextlib.suppress(BlockingIOError):
                # When no process can be had, the server sees the end of the stream instead.
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

    def _bury(self) -> None:
        with contextlib.suppress(ChildProcessError):
            for pid, status in reap():
                folder = self._folders.pop(pid, None)
                if folder is None or status != 0:
                    self._suspicious = True
                if folder is not None and status != 0:
                    self._abandoned.append(folder)

    def _kill_strays(self) -> None:
        """Kill the children that are not reapers, and once there are none, delete their home."""
        table = process_table()
        me = os.getpid()
        strays = [pid for pid, (parent, _) in table.items() if parent == me]
        strays = [pid for pid in strays if pid not in self._folders]
        if strays:
            kill([*strays, *descendants(strays, table)])
            return
        self._suspicious = False
        for folder in self._abandoned:
            # In a process of its own: deleting may be slow, and others want to be born.
            self._fork(folder, functools.partial(remove_tree, folder))
        self._abandoned.clear()


def run_and_exit(work: Callable[[], None]) -> NoReturn:
    """Run the work of a forked process, which must never return into its parent's code."""
    code = 1
    try:
        work()
        code = 0
    except BaseException:  # noqa: BLE001 - whatever it is, this process ends here
        traceback.print_exc()
    os._exit(code)


def main() -> None:
    """Run as the nursery of the tree whose root and whose descriptors the arguments name."""
    root, temporary, server, lock = sys.argv[1:]
    # The lock is held for as long as this process and its reapers live; commands get neither.
    for descriptor in (int(server), int(lock)):
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - it has no name

    def clean_up() -> None:
        if temporary == "temporary":
            remove_tree(root)
        else:
            remove_instances(root)

    Nursery(socket.socket(fileno=int(server)), clean_up).run()


if __name__ == "__main__":
    main()
