"""Instances that outlive their manager, and the root through which they are found again."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from fleeting.errors import ConfigError
from fleeting.types import State

if TYPE_CHECKING:
    from tests.integration.local.conftest import Local

    from fleeting.abc import InstanceGroup

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not Path("/proc/self").exists(), reason="the tests look into /proc"),
]


async def test_instances_are_found_again(local: Local, tmp_path: Path) -> None:
    """A second manager sees the same instances with the same ids, ports, keys and files."""
    async with local.open(root=tmp_path, persistent=True) as group:
        ids = await local.grow(group, 2)
        infos = [await group.connect_info(id) for id in ids]
        async with local.connect(group, ids[0]) as connection:
            await connection.run("echo kept >file; sleep 1000 >/dev/null 2>&1 &", check=True)
    async with local.open(root=tmp_path, persistent=True) as group:
        assert await local.states(group) == dict.fromkeys(ids, State.RUNNING)
        assert [await group.connect_info(id) for id in ids] == infos
        async with local.connect(group, ids[0]) as connection:
            assert (await connection.run("cat file", check=True)).stdout == "kept\n"
        await group.decrease(ids)
    await local.wait(lambda: not local.processes(tmp_path))


async def test_an_operation_is_remembered_across_managers(local: Local, tmp_path: Path) -> None:
    """An increase that is repeated after a restart of the manager adds nothing."""
    async with local.open(root=tmp_path, persistent=True) as group:
        first = await group.increase(1, "once")
    async with local.open(root=tmp_path, persistent=True) as group:
        assert await group.increase(1, "once") == first
        await group.decrease(first.ids)


async def test_without_instances_the_server_ends(local: Local, tmp_path: Path) -> None:
    """A persistent server that has nothing to keep does not stay, and the next one works."""
    for _ in range(5):
        async with local.open(root=tmp_path, persistent=True) as group:
            ids = await local.grow(group)
            await group.decrease(ids)
    await local.wait(lambda: not local.processes(tmp_path))
    assert not (tmp_path / "instances").exists()
    assert not (tmp_path / "server.json").exists()


@pytest.mark.parametrize("first", [True, False])
async def test_a_second_manager_is_refused(local: Local, tmp_path: Path, *, first: bool) -> None:
    """A group that ends with its manager is nobody else's, and takes over nobody's root."""
    async with local.open(root=tmp_path, persistent=first) as group:
        with pytest.raises(ConfigError, match="another manager"):
            async with local.open(root=tmp_path, persistent=False):
                pass
        assert await local.states(group) == {}


async def test_several_managers_share_what_is_persistent(local: Local, tmp_path: Path) -> None:
    """A second manager that comes at the same time sees the same group, with settings of its own.

    Whoever of them changes its size is for `fleeting._lock` to say.
    """
    groups: list[InstanceGroup] = []
    done = anyio.Event()

    async def manage(max_size: int) -> None:
        async with local.open(root=tmp_path, persistent=True, max_size=max_size) as group:
            groups.append(group)
            await done.wait()

    async with anyio.create_task_group() as managers:
        managers.start_soon(manage, 1)
        managers.start_soon(manage, 1)
        await local.wait(lambda: len(groups) == 2)
        async with local.open(root=tmp_path, persistent=True, max_size=3) as third:
            ids = await local.grow(third, 2)
        assert (await groups[0].increase(1, "full")).count == 0
        assert await local.states(groups[1]) == dict.fromkeys(ids, State.RUNNING)
        await groups[1].decrease(ids)
        done.set()
    await local.wait(lambda: not local.processes(tmp_path))


async def test_a_persistent_root_is_not_opened_otherwise(local: Local, tmp_path: Path) -> None:
    """Instances that are to be kept are not put at risk by a forgotten setting."""
    async with local.open(root=tmp_path, persistent=True) as group:
        ids = await local.grow(group)
    with pytest.raises(ConfigError, match="persistent = true"):
        async with local.open(root=tmp_path):
            pass
    async with local.open(root=tmp_path, persistent=True) as group:
        assert list(await local.states(group)) == ids
        await group.decrease(ids)


async def test_after_a_crash_a_new_server_starts_clean(local: Local, tmp_path: Path) -> None:
    """If the recorded server is dead, its leftovers go and the root can be used."""
    async with local.open(root=tmp_path, persistent=True) as group:
        await local.grow(group, 2)
    os.kill(local.server(tmp_path), signal.SIGKILL)
    assert (tmp_path / "server.json").exists()
    async with local.open(root=tmp_path, persistent=True) as group:
        assert await local.states(group) == {}
        [id] = await local.grow(group)
        assert [one.name for one in (tmp_path / "instances").iterdir()] == [id]
        await group.decrease([id])


async def test_after_a_power_failure_leftovers_are_deleted(local: Local, tmp_path: Path) -> None:
    """Directories of instances whose processes all died unseen are deleted, and nothing else."""
    async with local.open(root=tmp_path, persistent=True) as group:
        await local.grow(group, 2)
    processes = local.processes(tmp_path)
    for pid in [local.server(tmp_path), *processes]:
        os.kill(pid, signal.SIGSTOP)
    for pid in [*processes, local.server(tmp_path)]:
        os.kill(pid, signal.SIGKILL)
    await local.wait(lambda: not local.processes(tmp_path))
    assert len(list((tmp_path / "instances").iterdir())) == 2
    foreign = tmp_path / "instances" / "mine"
    foreign.mkdir()
    async with local.open(root=tmp_path) as group:
        assert await local.states(group) == {}
        assert list((tmp_path / "instances").iterdir()) == [foreign]


async def test_a_long_root_works_too(local: Local, tmp_path: Path) -> None:
    """A root whose path is longer than a Unix socket's may be is no obstacle."""
    root = tmp_path / ("long" * 40)
    async with local.open(root=root, persistent=True) as group:
        ids = await local.grow(group)
    async with local.open(root=root, persistent=True) as group:
        assert list(await local.states(group)) == ids
        await group.decrease(ids)
        socket = Path(json.loads((root / "server.json").read_text())["socket"])
        assert socket.parent.stat().st_mode & 0o777 == 0o700
    await local.wait(lambda: not local.processes(root))
    assert not socket.parent.exists()


async def test_no_secret_is_on_disk(local: Local, tmp_path: Path) -> None:
    """Keys stay in memory: no file of the root contains one."""
    async with local.open(root=tmp_path, persistent=True) as group:
        ids = await local.grow(group)
        for path in tmp_path.rglob("*"):  # noqa: ASYNC240 - a test may block
            if path.is_file():
                assert b"PRIVATE KEY" not in path.read_bytes()
                assert path.stat().st_mode & 0o077 == 0
        await group.decrease(ids)
