"""The manager's side: starts or finds the server, and asks it.

Nothing here depends on an event loop of a certain kind. One request is under
way at a time; the server answers each at once. Should it not, the reply that
comes late is skipped by its serial number.
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

    from fleeting.local import LocalConfig

__all__ = ("LocalGroup", "open_group")

REPLY_LIMIT = 2**26
START_SECONDS = 30.0
REPLY_SECONDS = 10.0
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class Server:
    """Sends requests to the server and returns its replies."""

    def __init__(self, send: AnyByteSendStream, receive: AnyByteReceiveStream) -> None:
        self._send = send
        self._receive = BufferedByteReceiveStream(receive)
        self._lock = anyio.Lock()
        self._serial = 0

    async def greet(self) -> dict[str, Any]:
        """Wait until the server has started, and hear what it is.

        After a cancellation this object is of no use any more.

        Raises:
            GroupGone: the server has ended.
        """
        return await self._exchange("greet", {})

    async def ask(self, request: str, **arguments: Any) -> dict[str, Any]:
        """Return the reply to a request.

        Raises:
            GroupGone: the server has ended, and all instances with it.
            ProviderError: it does not answer.
        """
        async with self._lock:
            answer: dict[str, Any] | None = None
            # Half a request would make the next one unreadable, and a reply takes a millisecond.
            with anyio.move_on_after(REPLY_SECONDS, shield=True):
                answer = await self._exchange(request, arguments)
        await anyio.lowlevel.checkpoint_if_cancelled()
        if answer is None:
            raise ProviderError(
                f"the server of the local group has not answered for {REPLY_SECONDS:.0f} s; "
                "look whether it is stopped"
            )
        return answer

    async def _exchange(self, request: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self._serial += 1
        line = json.dumps({"serial": self._serial, "request": request, **arguments})
        try:
            await self._send.send(line.encode() + b"\n")
            while True:
                reply = await self._receive.receive_until(b"\n", REPLY_LIMIT)
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
                "the server of the local group has ended, and all its instances with it; "
                "open the group again"
            ) from None


class LocalGroup(InstanceGroup):
    """The instances of one server."""

    def __init__(self, server: Server, root: str, config: LocalConfig) -> None:
        self.info = GroupInfo(id=f"local{root}", max_size=config.max_size, version=__version__)
        self._server = server
        self._max_size = config.max_size
        # Each manager says his own, since there may be several.
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
            error = QuotaExceeded(
                f"group {self.info.id} may have {self._max_size} instances and has no room for "
                f"{count - len(ids)} of {count} more; raise max_size in plugin_config"
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
    """Start the server, or find the one that is persistent, and hold it while the group is open.

    Raises:
        ConfigError: the root cannot be used, or it is used by another manager and one of the
            two is not persistent.
        ProviderError: the server did not start.
    """
    async with contextlib.AsyncExitStack() as stack:
        root = None
        if config.root is not None:
            root = await anyio.to_thread.run_sync(prepare_root, config.root)
            # Of a persistent group there may be several, as of one in a cloud.
            stack.enter_context(holding(root, shared=config.persistent))
        try:
            with anyio.fail_after(START_SECONDS):
                async with starting(root):
                    server, answer = await _reach_server(stack, root, config)
        except TimeoutError:
            raise ProviderError(
                f"the server of the local group did not start within {START_SECONDS:.0f} s; "
                "processes of a former one may still be ending; try again"
            ) from None
        except GroupGone:
            raise ProviderError(
                "the server of the local group ended while it started; its standard error, or "
                "server.log in the root, says why"
            ) from None
        if answer["version"] != __version__:
            raise ConfigError(
                f"plugin_config.root: {root} belongs to a running server of version "
                f"{answer['version']}, and this is {__version__}; remove its instances with that "
                "version, or choose another root"
            )
        yield LocalGroup(server, answer["root"], config)


async def _reach_server(
    stack: contextlib.AsyncExitStack, root: Path | None, config: LocalConfig
) -> tuple[Server, dict[str, Any]]:
    """Return a server and its answer to this manager's settings."""
    found = await find_server(root) if root is not None else None
    if found is not None:
        stack.push_async_callback(anyio.aclose_forcefully, found)
        # One that has just lost its last instance may be on its way out.
        with contextlib.suppress(GroupGone):
            server = Server(found, found)
            answer = await server.greet()
            if not config.persistent:
                raise ConfigError(
                    f"plugin_config.root: {root} holds instances that were started with "
                    "persistent = true; set it again, or choose another root"
                )
            return server, answer
    if root is not None and config.persistent:
        stream = await start_detached(root)
        stack.push_async_callback(anyio.aclose_forcefully, stream)
        server = Server(stream, stream)
    else:
        server = Server(*await stack.enter_async_context(start_server(root)))
    return server, await server.greet()
