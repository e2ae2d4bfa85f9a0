"""What the tests of the local provider share: open, grow, connect, look at processes."""

from __future__ import annotations

import os
import uuid
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import asyncssh
import pytest

from fleeting.local import LocalConfig, LocalProvider
from fleeting.types import GroupSettings, State

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager

    from fleeting.abc import InstanceGroup

DEADLINE_SECONDS = 30.0


class Local:
    """The provider under test, and what can be seen of it from outside."""

    def open(self, **config: Any) -> AbstractAsyncContextManager[InstanceGroup]:
        """Return the group of a configuration."""
        return LocalProvider().open(LocalConfig(**config), GroupSettings())

    async def grow(self, group: InstanceGroup, count: int = 1) -> list[str]:
        """Add instances, wait until they run, and return their ids."""
        accepted = await group.increase(count, uuid.uuid4().hex)
        for id in accepted.ids:
            await self.reach(group, id, State.RUNNING)
        return list(accepted.ids)

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
        """Connect to an instance with what the group says, and nothing of the user's own."""
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
        """Wait for a fact about the computer that announces itself to nobody."""
        with anyio.fail_after(DEADLINE_SECONDS):
            while not is_true():
                await anyio.sleep(0.01)

    def processes(self, text: str | Path) -> list[int]:
        """Return the processes in whose command line or environment a text occurs."""
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


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, which asyncssh needs."""
    return "asyncio"


@pytest.fixture
def local() -> Local:
    """Return the provider under test."""
    return Local()
