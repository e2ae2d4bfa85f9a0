"""Persistent groups: instances outlive their manager and are found through the root."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from fleeting.errors import ConfigError
from fleeting.types import State

if TYPE_CHECKING:
    from tests.integration.local.conftest import Local, OpenShared

    from fleeting.abc import InstanceGroup

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not Path("/proc/self").exists(), reason="the tests read /proc"),
]


async def test_instances_are_found_again(local: Local, tmp_path: Path) -> None:
    """The next manager sees the same instances with the same ids, ports, keys and files."""
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


async def test_an_operation_is_remembered_across_managers(
    local: Local, open_shared: OpenShared, shared_root: Path
) -> None:
    """An increase that the next manager repeats adds nothing."""
    async with local.open(root=shared_root, persistent=True) as group:
        first = await group.increase(1, "once")
    async with open_shared() as group:
        assert await group.increase(1, "once") == first


@pytest.mark.parametrize("rounds", [2, pytest.param(8, marks=pytest.mark.long)])
async def test_without_instances_the_server_ends(local: Local, tmp_path: Path, rounds: int) -> None:
    """A persistent server ends with its last instance, and the next one starts cleanly."""
    for _ in range(rounds):
        async with local.open(root=tmp_path, persistent=True) as group:
            ids = await local.grow(group)
            await group.decrease(ids)
    await local.wait(lambda: not local.processes(tmp_path))
    assert not (tmp_path / "instances").exists()
    assert not (tmp_path / "server.json").exists()


@pytest.mark.parametrize("first", [True, False])
async def test_a_second_manager_is_refused(local: Local, tmp_path: Path, *, first: bool) -> None:
    """A root is shared only between managers of persistent groups."""
    async with local.open(root=tmp_path, persistent=first) as group:
        with pytest.raises(ConfigError, match="another manager"):
            async with local.open(root=tmp_path, persistent=False):
                pass
        assert await local.states(group) == {}


async def test_several_managers_share_what_is_persistent(local: Local, tmp_path: Path) -> None:
    """Concurrent managers see the same group, each with its own settings."""
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
    """If `persistent` is no longer set, opening is refused and the instances stay."""
    async with local.open(root=tmp_path, persistent=True) as group:
        ids = await local.grow(group)
    with pytest.raises(ConfigError, match="persistent = true"):
        async with local.open(root=tmp_path):
            pass
    async with local.open(root=tmp_path, persistent=True) as group:
        assert list(await local.states(group)) == ids
        await group.decrease(ids)


async def test_after_a_crash_a_new_server_starts_clean(local: Local, tmp_path: Path) -> None:
    """If the recorded server is dead, its leftovers are removed and the root is usable."""
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
    """After a crash, the directories of instances are deleted, and nothing else."""
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


async def test_a_server_whose_root_is_deleted_ends(local: Local, tmp_path: Path) -> None:
    """It could never be found again, and neither could its instances."""
    root = tmp_path / "root"
    async with local.open(root=root, persistent=True) as group:
        await local.grow(group)
    shutil.rmtree(root)
    await local.wait(lambda: not local.processes(root))


@pytest.mark.parametrize("name", ["server.json", "manager.lock", "start.lock", "server.log"])
async def test_a_pipe_in_the_place_of_a_file_does_not_block(
    local: Local, tmp_path: Path, name: str
) -> None:
    """It is refused, or has no effect."""
    os.mkfifo(tmp_path / name)
    with anyio.fail_after(30):
        try:
            async with local.open(root=tmp_path, persistent=True) as group:
                assert await local.states(group) == {}
        except ConfigError as error:
            assert "not a regular file" in str(error)  # noqa: PT017 -- it may work as well
    await local.wait(lambda: not local.processes(tmp_path))


async def test_a_long_root_works_too(local: Local, tmp_path: Path) -> None:
    """A root whose path is too long for a Unix socket works."""
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


async def test_no_secret_is_on_disk(local: Local, group: InstanceGroup, shared_root: Path) -> None:
    """Keys stay in memory: no file of the root contains one."""
    await local.grow(group)
    for path in shared_root.rglob("*"):  # noqa: ASYNC240 - a test may block
        if path.is_file():
            assert b"PRIVATE KEY" not in path.read_bytes()
            assert path.stat().st_mode & 0o077 == 0
