"""The server: all instances of one group, and the requests of its managers.

A manager sends requests and receives replies in order, each a line of JSON. It uses
the standard streams, whose end also ends the server, or a Unix socket if the server
is persistent. Every request is answered at once. Booting and removing take time, and
happen in a task of the instance.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import resource
import secrets
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleeting import __version__
from fleeting._local_user import allow_nameless_user
from fleeting._regular_files import read_regular
from fleeting.local._instance import InstanceSettings, LocalInstance
from fleeting.local._reaper_client import MessageWriter
from fleeting.local._supervisor import remove_instances
from fleeting.types import State

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

__all__ = ("run",)

LINE_BYTES = 2**26
# How long a persistent server waits for the first manager.
FIRST_MANAGER_SECONDS = 5.0
# How often a persistent server checks that it can still be found.
LOOK_SECONDS = 10.0
# How many files the server opens for itself; and for an instance: to listen, to its reaper, to a
# client, and to a command.
RESERVED_FILES = 24
INSTANCE_FILES = 9
# The longest path of a Unix socket that works on every system.
SOCKET_PATH_BYTES = 100
# How many past operations are remembered, so that repeating one adds nothing.
OPERATIONS_LIMIT = 10_000
# The variables of the manager that instances get; a name that ends in "_" is a prefix.
INHERITED = ("PATH", "LANG", "LANGUAGE", "LC_")


class ServedGroup:
    """All instances of the server, and the requests of managers."""

    def __init__(self, root: str, supervisor: MessageWriter, tasks: asyncio.TaskGroup) -> None:
        self.instances: dict[str, LocalInstance] = {}
        self._root = root
        self._supervisor = supervisor
        self._tasks = tasks
        self._lives: dict[str, asyncio.Task[None]] = {}
        self._operations: dict[str, list[str]] = {}
        self._username = user_name()
        self._most = most_instances()
        self._environment = {
            name: value for name, value in os.environ.items() if name.startswith(INHERITED)
        }
        self._requests: dict[str, Callable[..., dict[str, Any]]] = {
            "greet": self._greet,
            "update": self._update,
            "increase": self._increase,
            "decrease": self._decrease,
            "connect_info": self._connect_info,
        }

    @property
    def is_empty(self) -> bool:
        """Return whether every instance is being removed."""
        return all(one.state is State.DELETING for one in self.instances.values())

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Carry out a request, and return the reply."""
        serial = request.pop("serial")
        return {"serial": serial, **self._requests[request.pop("request")](**request)}

    def end(self) -> None:
        """Start to remove every instance."""
        self._decrease(list(self.instances))

    def _greet(self) -> dict[str, Any]:
        return {"version": __version__, "root": self._root}

    def _update(self) -> dict[str, Any]:
        return {
            "instances": [
                (instance.id, instance.state.value, instance.reason)
                for instance in self.instances.values()
            ]
        }

    def _increase(self, count: int, operation: str, settings: dict[str, Any]) -> dict[str, Any]:
        if operation not in self._operations:
            wanted = InstanceSettings(**settings)
            members = sum(one.state is not State.DELETING for one in self.instances.values())
            allowed = max(0, min(count, wanted.max_size - members, self._most - members))
            while len(self._operations) >= OPERATIONS_LIMIT:
                del self._operations[next(iter(self._operations))]
            self._operations[operation] = [self._create(wanted) for _ in range(allowed)]
        return {"ids": self._operations[operation], "files_permit": self._most}

    def _decrease(self, ids: list[str]) -> dict[str, Any]:
        for id in ids:
            instance = self.instances.get(id)
            if instance is None or instance.state is State.DELETING:
                continue
            has_failed = instance.state is State.FAILED
            instance.state = State.DELETING
            if id not in self._lives:
                del self.instances[id]
            elif not has_failed:  # The task of a failed instance is already ending by itself.
                self._lives[id].cancel()
        return {}

    def _connect_info(self, id: str) -> dict[str, Any]:
        instance = self.instances.get(id)
        if instance is None or instance.state is State.DELETING:
            return {"state": None}
        return {
            "state": instance.state.value,
            "reason": instance.reason,
            "port": instance.port,
            "username": instance.username,
            "private_key": instance.private_key,
            "host_key": instance.host_key,
        }

    def _create(self, settings: InstanceSettings) -> str:
        id = f"local-{secrets.token_hex(6)}"
        folder = f"{self._root}/instances/{id}"
        instance = LocalInstance(id, folder, self._username, self._environment, settings)
        self.instances[id] = instance
        life = self._tasks.create_task(instance.live(self._supervisor))
        self._lives[id] = life
        life.add_done_callback(lambda _: self._ended(id))
        return id

    def _ended(self, id: str) -> None:
        instance = self.instances[id]
        del self._lives[id]
        if instance.state is State.DELETING:
            del self.instances[id]


def most_instances() -> int:
    """Return how many instances the limit of open files permits."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(1, (files - RESERVED_FILES) // INSTANCE_FILES)


def user_name() -> str:
    """Return the name of the user that runs this process."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # In a container, a user can be without a name.
        return str(os.getuid())


def run(settings: dict[str, Any], supervisor: socket.socket) -> None:
    """Serve until the managers and the instances are gone."""
    # Each instance and each command needs open files. Commands are not affected by this limit:
    # they inherit the supervisor's, which was started before.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # Remove what a previous server left when the computer crashed.
    allow_nameless_user()
    remove_instances(settings["root"])
    _forget_socket(Path(settings["root"]))
    asyncio.run(_run(settings, supervisor))


def _silence(*descriptors: int) -> None:
    """Connect these standard streams to /dev/null, so that their readers see the end."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(nothing, descriptor)
    os.close(nothing)


async def _run(settings: dict[str, Any], supervisor: socket.socket) -> None:
    supervisor.setblocking(False)  # noqa: FBT003 - it has no name
    async with asyncio.TaskGroup() as tasks:
        group = ServedGroup(settings["root"], MessageWriter(supervisor), tasks)
        if settings["persistent"]:
            await _serve_socket(group, Path(settings["root"]))
        else:
            await _serve(group, *await _standard_streams())
        group.end()


async def _serve(
    group: ServedGroup, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer one manager until it disconnects."""
    with contextlib.suppress(ConnectionError):
        while line := await reader.readline():
            writer.write(json.dumps(group.answer(json.loads(line))).encode() + b"\n")
            await writer.drain()


async def _standard_streams() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LINE_BYTES)
    source = os.fdopen(os.dup(0), "rb", buffering=0)
    sink = os.fdopen(os.dup(1), "wb", buffering=0)
    _silence(0, 1)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), source)
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.streams.FlowControlMixin(loop), sink
    )
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def _serve_socket(group: ServedGroup, root: Path) -> None:
    """Answer all managers, until the last one has disconnected and no instance is left.

    A server whose note is gone, because its root was deleted, cannot be found again, so it ends
    with its instances, too.
    """
    managers: set[asyncio.StreamWriter] = set()
    changed = asyncio.Event()
    is_leaving = False

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        managers.add(writer)
        patience.cancel()
        try:
            # While leaving, do not answer: a manager that gets no greeting starts another server.
            if not is_leaving:
                await _serve(group, reader, writer)
        finally:
            managers.discard(writer)
            writer.close()
            changed.set()

    # The manager that started this server may have been cancelled before it connected.
    patience = asyncio.get_running_loop().call_later(FIRST_MANAGER_SECONDS, changed.set)
    path = _socket_path(root)
    note = root / "server.json"
    draft = root / "server.json.new"
    draft.touch(0o600)
    draft.write_text(json.dumps({"pid": os.getpid(), "socket": path}))
    draft.replace(note)
    try:
        async with await asyncio.start_unix_server(serve, path, limit=LINE_BYTES):
            _silence(0, 1)  # This tells the manager that the server is ready.
            while not is_leaving:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), LOOK_SECONDS)
                changed.clear()
                if not managers:
                    lost = await asyncio.to_thread(_names_another, note)
                    # A manager may have come in the meantime.
                    is_leaving = not managers and (group.is_empty or lost)
    finally:
        _forget_socket(root)


def _names_another(note: Path) -> bool:
    """Return whether the note of this server is gone."""
    try:
        return bool(json.loads(read_regular(note))["pid"] != os.getpid())
    except FileNotFoundError:
        return True
    except (OSError, ValueError, KeyError, TypeError):
        return False  # A slow disk, or a file system that is full; look again later.


def _socket_path(root: Path) -> str:
    """Return the path to listen on: in the root, unless that is too long for a socket."""
    path = root / "control"
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
        return str(path)
    return str(Path(tempfile.mkdtemp(prefix="fleeting-")) / "control")


def _forget_socket(root: Path) -> None:
    """Delete the socket of this or a previous server, and the note with its path."""
    note = root / "server.json"
    # It may be missing, or incomplete after a crash of the computer.
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        path = Path(json.loads(read_regular(note))["socket"])
        path.unlink(missing_ok=True)
        if path.parent != root:
            path.parent.rmdir()
    note.unlink(missing_ok=True)
