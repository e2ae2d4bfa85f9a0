"""The manager's side: starts or finds the server, and sends it requests.

This module works on every event loop that anyio supports. One request is in
progress at a time, and the server answers each at once. If it does not, its late
reply is recognized by the serial number and skipped.
"""

from __future__ import annotations

import contextlib
import json
import platform
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
from anyio.streams.buffered import BufferedByteReceiveStream
from typing_extensions import override

from fleeting import __version__
from fleeting.abc import InstanceGroup
from fleeting.errors import (
    ConfigError,
    GroupGone,
    InstanceGone,
    InstanceUnhealthy,
    ProviderError,
    QuotaExceeded,
)
from fleeting.local._start import (
    find_server,
    holding,
    prepare_root,
    start_detached,
    start_server,
    starting,
)
from fleeting.types import Accepted, ConnectInfo, GroupInfo, Instance, Listing, State

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from anyio.abc import AnyByteReceiveStream, AnyByteSendStream

    from fleeting.local._config import LocalConfig

__all__ = ("LocalGroup", "open_group")

REPLY_BYTES = 2**26
# How long the server may take to start, and to answer a request.
START_SECONDS = 30.0
REPLY_SECONDS = 10.0
# The names that Go uses, where they differ from Python's.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class ServerClient:
    """Sends requests to the server and returns its replies."""

    def __init__(self, send: AnyByteSendStream, receive: AnyByteReceiveStream) -> None:
        self._send = send
        self._receive = BufferedByteReceiveStream(receive)
        self._lock = anyio.Lock()
        self._serial = 0

    async def greet(self) -> dict[str, Any]:
        """Wait until the server has started; return its version and root.

        After a cancellation this object cannot be used any more.

        Raises:
            GroupGone: the server has ended.
        """
        return await self._exchange("greet", {})

    async def ask(self, request: str, **arguments: Any) -> dict[str, Any]:
        """Send a request and return the reply.

        Raises:
            GroupGone: the server has ended, and all instances with it.
            ProviderError: the server did not answer in time.
        """
        async with self._lock:
            answer: dict[str, Any] | None = None
            # Not cancellable: half a request would garble the next. A reply takes a millisecond.
            with anyio.move_on_after(REPLY_SECONDS, shield=True):
                answer = await self._exchange(request, arguments)
        await anyio.lowlevel.checkpoint_if_cancelled()
        if answer is None:
            raise ProviderError(
                f"the server of the local group did not answer within {REPLY_SECONDS:.0f} s; "
                "check whether the process is stopped"
            )
        return answer

    async def _exchange(self, request: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self._serial += 1
        line = json.dumps({"serial": self._serial, "request": request, **arguments})
        try:
            await self._send.send(line.encode() + b"\n")
            while True:
                reply = await self._receive.receive_until(b"\n", REPLY_BYTES)
                answer: dict[str, Any] = json.loads(reply)
                if answer["serial"] == self._serial:
                    return answer
        except (
            anyio.EndOfStream,
            anyio.IncompleteRead,
            anyio.BrokenResourceError,
            anyio.ClosedResourceError,
        ):
            raise GroupGone(
                "the server of the local group ended, and all its instances with it; "
                "open the group again"
            ) from None


class LocalGroup(InstanceGroup):
    """The instances of one server."""

    def __init__(self, server: ServerClient, root: str, config: LocalConfig) -> None:
        self.info = GroupInfo(
            id=f"local{root}",
            max_size=config.max_size,
            version=__version__,
            private=config.root is None and not config.persistent,
            temporary=not config.persistent,
        )
        self._server = server
        self._max_size = config.max_size
        # Sent with each request, since several managers can share the server.
        self._settings = {
            "max_size": config.max_size,
            "boot_delay_seconds": config.boot_delay.total_seconds(),
            "fail_rate": config.fail_rate,
            "shell": config.shell,
        }

    @override
    async def update(self) -> Listing:
        answer = await self._server.ask("update")
        return Listing(
            tuple(
                Instance(id, State(state), incarnation=id, reason=reason)
                for id, state, reason in answer["instances"]
            )
        )

    @override
    async def increase(self, count: int, operation: str) -> Accepted:
        answer = await self._server.ask(
            "increase", count=count, operation=operation, settings=self._settings
        )
        ids = tuple(answer["ids"])
        error = None
        if len(ids) < count:
            limit, fix = self._max_size, "max_size in plugin_config"
            if answer["files_permit"] < limit:
                limit, fix = answer["files_permit"], "the limit of open files, `ulimit -n`"
            error = QuotaExceeded(
                f"group {self.info.id} is limited to {limit} instances and cannot add "
                f"{count - len(ids)} of {count}; raise {fix}"
            )
        return Accepted(len(ids), ids, error)

    @override
    async def decrease(self, ids: Sequence[str]) -> Accepted:
        await self._server.ask("decrease", ids=list(ids))
        return Accepted(len(ids), tuple(ids))

    @override
    async def connect_info(self, id: str) -> ConnectInfo:
        answer = await self._find(id)
        if answer["state"] != State.RUNNING.value:
            raise InstanceUnhealthy(
                id, f"instance {id} cannot be reached: {answer['reason'] or 'it is still booting'}"
            )
        machine = platform.machine().lower()
        return ConnectInfo(
            id=id,
            protocol="ssh",
            internal_address="127.0.0.1",
            port=answer["port"],
            os=platform.system().lower(),
            arch=ARCHITECTURES.get(machine, machine),
            username=answer["username"],
            private_key=answer["private_key"],
            host_keys=(answer["host_key"],),
        )

    @override
    async def heartbeat(self, id: str) -> None:
        answer = await self._find(id)
        if answer["state"] == State.FAILED.value:
            raise InstanceUnhealthy(id, f"instance {id} has failed: {answer['reason']}")

    async def _find(self, id: str) -> dict[str, Any]:
        answer = await self._server.ask("connect_info", id=id)
        if answer["state"] is None:
            raise InstanceGone(id, f"there is no instance {id} in group {self.info.id}")
        return answer


@asynccontextmanager
async def open_group(config: LocalConfig) -> AsyncGenerator[LocalGroup]:
    """Start the server, or connect to a persistent one, while the group is open.

    Raises:
        ConfigError: the root cannot be used, or another manager uses it and one of the two
            groups is not persistent.
        ProviderError: the server did not start.
    """
    async with contextlib.AsyncExitStack() as stack:
        root = None
        if config.root is not None:
            root = await anyio.to_thread.run_sync(prepare_root, config.root)
            # Several managers can open a persistent group, like one in a cloud.
            stack.enter_context(holding(root, shared=config.persistent))
        try:
            with anyio.fail_after(START_SECONDS):
                async with starting(root):
                    server, answer = await _reach_server(stack, root, config)
        except TimeoutError:
            raise ProviderError(
                f"the server of the local group did not start within {START_SECONDS:.0f} s; "
                "processes of a previous one may still be ending; try again"
            ) from None
        except GroupGone:
            raise ProviderError(
                "the server of the local group ended while it started; see its standard error, or "
                "server.log in the root"
            ) from None
        if answer["version"] != __version__:
            raise ConfigError(
                f"plugin_config.root: {root} is in use by a running server of version "
                f"{answer['version']}, but this is {__version__}; remove its instances with that "
                "version, or choose another root"
            )
        yield LocalGroup(server, answer["root"], config)


async def _reach_server(
    stack: contextlib.AsyncExitStack, root: Path | None, config: LocalConfig
) -> tuple[ServerClient, dict[str, Any]]:
    """Find or start the server; return a client of it and its greeting."""
    found = await find_server(root) if root is not None else None
    if found is not None:
        stack.push_async_callback(anyio.aclose_forcefully, found)
        # A server that has just removed its last instance may be about to end.
        with contextlib.suppress(GroupGone):
            server = ServerClient(found, found)
            answer = await server.greet()
            if not config.persistent:
                raise ConfigError(
                    f"plugin_config.root: {root} has instances that were created with "
                    "persistent = true; set that again, or choose another root"
                )
            return server, answer
    if root is not None and config.persistent:
        stream = await start_detached(root)
        stack.push_async_callback(anyio.aclose_forcefully, stream)
        server = ServerClient(stream, stream)
    else:
        server = ServerClient(*await stack.enter_async_context(start_server(root)))
    return server, await server.greet()
