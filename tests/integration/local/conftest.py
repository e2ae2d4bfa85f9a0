"""Helpers for the tests of the local provider: open, grow, connect, inspect processes."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import asyncssh
import pytest

from fleeting.local import LocalConfig, LocalProvider
from fleeting.types import GroupSettings, State
from left_servers import watch_root

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from fleeting.abc import InstanceGroup

DEADLINE_SECONDS = 30.0


class Local:
    """The provider under test, and its processes as seen from outside."""

    def open(self, **config: Any) -> AbstractAsyncContextManager[InstanceGroup]:
        """Return the group of a configuration."""
        if config.get("persistent") and config.get("root"):
            watch_root(Path(config["root"]))
        return LocalProvider().open(LocalConfig(**config), GroupSettings())

    async def grow(self, group: InstanceGroup, count: int = 1) -> list[str]:
        """Add instances, wait until they run, and return their ids."""
        accepted = await group.increase(count, uuid.uuid4().hex)
        for id in accepted.ids:
            await self.reach(group, id, State.RUNNING)
        return list(accepted.ids)

    async def empty(self, group: InstanceGroup) -> None:
        """Remove all instances, and wait until they are gone."""
        ids = list(await self.states(group))
        await group.decrease(ids)
        for id in ids:
            await self.reach(group, id, None)

    async def reach(self, group: InstanceGroup, id: str, state: State | None) -> None:
        """Wait until an instance is in a state, or with None until it is gone."""
        with anyio.fail_after(DEADLINE_SECONDS):
            while (await self.states(group)).get(id) is not state:
                await anyio.sleep(0.01)

    async def states(self, group: InstanceGroup) -> dict[str, State]:
        """Return the state of every instance in the listing."""
        return {one.id: one.state for one in (await group.update()).instances}

    @asynccontextmanager
    async def connect(
        self, group: InstanceGroup, id: str
    ) -> AsyncGenerator[asyncssh.SSHClientConnection]:
        """Connect to an instance with the group's credentials, and nothing of the user's own."""
        info = await group.connect_info(id)
        assert info.private_key is not None
        host_keys = [asyncssh.import_public_key(key) for key in info.host_keys]
        async with asyncssh.connect(
            info.address,
            info.port or 0,
            username=info.username,
            client_keys=[asyncssh.import_private_key(info.private_key)],
            known_hosts=(host_keys, [], []),
            agent_path=None,
            config=None,
        ) as connection:
            yield connection

    async def wait(self, is_true: Callable[[], bool]) -> None:
        """Wait for a condition by polling, because no event reports it."""
        with anyio.fail_after(DEADLINE_SECONDS):
            while not is_true():
                await anyio.sleep(0.01)

    def processes(self, text: str | Path) -> list[int]:
        """Return the processes that have a text in their command line or environment."""
        wanted = os.fsencode(text)
        found: list[int] = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                facts = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
            except OSError:
                continue
            if wanted in facts:
                found.append(int(folder.name))
        return found

    def parent(self, pid: int) -> int:
        """Return the parent of a process."""
        text = Path(f"/proc/{pid}/stat").read_text()
        return int(text.rpartition(")")[2].split()[1])

    def server(self, root: Path) -> int:
        """Return the process id of the server that uses a root."""
        supervisor = min(self.processes(f"_supervisor.py\0{root}"))
        return self.parent(supervisor)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Run on asyncio, which asyncssh needs."""
    return "asyncio"


@pytest.fixture(scope="module")
def local() -> Local:
    """Return the provider under test."""
    return Local()


@pytest.fixture(scope="module")
async def shared_root(
    local: Local, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Path]:
    """Keep a persistent server running for the tests of a file; return its root.

    Starting a server takes longer than most tests, and most tests need only instances of
    their own.
    """
    root = tmp_path_factory.mktemp("shared")
    async with local.open(root=root, persistent=True):
        yield root


OpenShared = Callable[..., AbstractAsyncContextManager["InstanceGroup"]]


@pytest.fixture
def open_shared(local: Local, shared_root: Path) -> OpenShared:
    """Return a function that opens a group on the shared server, and empties it afterwards."""

    @asynccontextmanager
    async def opening(**config: Any) -> AsyncGenerator[InstanceGroup]:
        async with local.open(root=shared_root, persistent=True, **config) as group:
            yield group
            await local.empty(group)

    return opening


@pytest.fixture
async def group(open_shared: OpenShared) -> AsyncGenerator[InstanceGroup]:
    """Open a group without instances on the shared server."""
    async with open_shared() as opened:
        yield opened
