"""The server: all instances of one group, and the manager's requests concerning them.

A manager sends requests and gets replies, both lines of JSON, in order: over
the standard streams, whose end then is the server's end, or over a Unix socket
when the server is persistent. Every request is answered at once: what takes
time (booting, removing) happens in a task of the instance.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import resource
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleeting import __version__
from fleeting.local._instance import Instance, Settings
from fleeting.local._reaper import Outbox
from fleeting.local._supervisor import remove_instances
from fleeting.types import State

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

__all__ = ("run",)

LINE_LIMIT = 2**26
# How long a persistent server waits for the first manager.
FIRST_MANAGER_SECONDS = 5.0
# How long a Unix socket's path may be on every system.
SOCKET_PATH_LIMIT = 100
# How many past operations are remembered, so that repeating one adds nothing.
OPERATIONS_LIMIT = 10_000
INHERITED = ("PATH", "LANG", "LANGUAGE", "LC_")


class Group:
    """The instances, and what a manager may ask of them."""

    def __init__(self, root: str, nursery: Outbox, tasks: asyncio.TaskGroup) -> None:
        self.instances: dict[str, Instance] = {}
        self._root = root
        self._nursery = nursery
        self._tasks = tasks
        self._lives: dict[str, asyncio.Task[None]] = {}
        self._operations: dict[str, list[str]] = {}
        self._username = user_name()
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
        """Do what a manager asks for."""
        serial = request.pop("serial")
        return {"serial": serial, **self._requests[request.pop("request")](**request)}

    def end(self) -> None:
        """Begin to remove every instance."""
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
            wanted = Settings(**settings)
            members = sum(one.state is not State.DELETING for one in self.instances.values())
            allowed = max(0, min(count, wanted.max_size - members))
            while len(self._operations) >= OPERATIONS_LIMIT:
                del self._operations[next(iter(self._operations))]
            self._operations[operation] = [self._create(wanted) for _ in range(allowed)]
        return {"ids": self._operations[operation]}

    def _decrease(self, ids: list[str]) -> dict[str, Any]:
        for id in ids:
            instance = self.instances.get(id)
            if instance is None or instance.state is State.DELETING:
                continue
            has_failed = instance.state is State.FAILED
            instance.state = State.DELETING
            if id not in self._lives:
                del self.instances[id]
            elif not has_failed:  # The life of one that failed is coming to its end by itself.
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

    def _create(self, settings: Settings) -> str:
        id = f"local-{secrets.token_hex(6)}"
        folder = f"{self._root}/instances/{id}"
        instance = Instance(id, folder, self._username, self._environment, settings)
        self.instances[id] = instance
        life = self._tasks.create_task(instance.live(self._nursery))
        self._lives[id] = life
        life.add_done_callback(lambda _: self._ended(id))
        return id

    def _ended(self, id: str) -> None:
        instance = self.instances[id]
        del self._lives[id]
        if instance.state is State.DELETING:
            del self.instances[id]


def user_name() -> str:
    """Return the name of the user that everything here runs as."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # In a container, a user may have no name.
        return str(os.getuid())


def run(settings: dict[str, Any], nursery: socket.socket) -> None:
    """Serve until there is no reason to any more."""
    # Each instance and each command costs files. What commands get was settled when the nursery
    # was forked.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # What a former server left behind when the computer went down with it.
    remove_instances(settings["root"])
    _forget_socket(Path(settings["root"]))
    asyncio.run(_run(settings, nursery))


def _silence(*descriptors: int) -> None:
    """Connect these standard streams to nothing, so that nobody waits for their end."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(nothing, descriptor)
    os.close(nothing)


async def _run(settings: dict[str, Any], nursery: socket.socket) -> None:
    nursery.setblocking(False)  # noqa: FBT003 - it has no name
    async with asyncio.TaskGroup() as tasks:
        group = Group(settings["root"], Outbox(nursery), tasks)
        if settings["persistent"]:
            await _serve_socket(group, Path(settings["root"]))
        else:
            await _serve(group, *await _standard_streams())
        group.end()


async def _serve(group: Group, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one manager until it goes."""
    with contextlib.suppress(ConnectionError):
        while line := await reader.readline():
            writer.write(json.dumps(group.answer(json.loads(line))).encode() + b"\n")
            await writer.drain()


async def _standard_streams() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LINE_LIMIT)
    source = os.fdopen(os.dup(0), "rb", buffering=0)
    sink = os.fdopen(os.dup(1), "wb", buffering=0)
    _silence(0, 1)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), source)
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.streams.FlowControlMixin(loop), sink
    )
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def _serve_socket(group: Group, root: Path) -> None:
    """Answer all managers, until the last one goes and leaves no instance behind."""
    managers: set[asyncio.StreamWriter] = set()
    changed = asyncio.Event()
    is_leaving = False

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        managers.add(writer)
        patience.cancel()
        try:
            # A manager that is not even greeted starts another server.
            if not is_leaving:
                await _serve(group, reader, writer)
        finally:
            managers.discard(writer)
            writer.close()
            changed.set()

    # Whoever started us may have been cancelled before he connected.
    patience = asyncio.get_running_loop().call_later(FIRST_MANAGER_SECONDS, changed.set)
    path = _socket_path(root)
    note = root / "server.json"
    draft = root / "server.json.new"
    draft.touch(0o600)
    draft.write_text(json.dumps({"pid": os.getpid(), "socket": path}))
    draft.replace(note)
    try:
        async with await asyncio.start_unix_server(serve, path, limit=LINE_LIMIT):
            _silence(0, 1)  # Whoever started us sees that we are ready.
            while not is_leaving:
                await changed.wait()
                changed.clear()
                is_leaving = not managers and group.is_empty
    finally:
        _forget_socket(root)


def _socket_path(root: Path) -> str:
    """Return where to listen: in the root, unless that path is too long for a socket."""
    path = root / "control"
    if len(os.fsencode(path)) <= SOCKET_PATH_LIMIT:
        return str(path)
    return str(Path(tempfile.mkdtemp(prefix="fleeting-")) / "control")


def _forget_socket(root: Path) -> None:
    """Delete the socket of this or of a former server, and the note that tells of it."""
    note = root / "server.json"
    # There may be none, or one that was half written when the computer went down.
    with contextlib.suppress(OSError, ValueError, KeyError):
        path = Path(json.loads(note.read_text())["socket"])
        path.unlink(missing_ok=True)
        if path.parent != root:
            path.parent.rmdir()
    note.unlink(missing_ok=True)
