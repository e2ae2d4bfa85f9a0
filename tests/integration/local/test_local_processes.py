"""Killed processes: the manager, the server, the supervisor, a reaper, and what ends with each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from fleeting.errors import InstanceUnhealthy, ProviderError
from fleeting.local._supervisor import remove_tree
from fleeting.types import State

if TYPE_CHECKING:
    import asyncssh
    from tests.integration.local.conftest import Local, OpenShared

    from fleeting.abc import InstanceGroup

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not Path("/proc/self").exists(), reason="only Linux has subreapers"),
]

# Detaches as far as a process can, with a variable in its environment to find it by.
DAEMON = (
    "setsid sh -c 'TOKEN={} setsid sh -c \"sleep 1000 & exec sleep 1000\" & exit' "
    ">/dev/null 2>&1 </dev/null"
)
MANAGER = """
import sys, anyio
from pathlib import Path
from fleeting.local import LocalConfig, LocalProvider
from fleeting.types import GroupSettings

async def main():
    root = Path(sys.argv[1]) if sys.argv[1] else None
    async with LocalProvider().open(LocalConfig(root=root), GroupSettings()) as group:
        await group.increase(2, "two")
        while any(one.state.value != "running" for one in (await group.update()).instances):
            pass
        print(group.info.id, flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


async def _detach(local: Local, connection: asyncssh.SSHClientConnection) -> str:
    """Start a daemon on an instance; return the text that identifies its two processes."""
    token = uuid.uuid4().hex
    await connection.run(DAEMON.format(token), check=True)
    await local.wait(lambda: len(local.processes(token)) == 2)
    return token


async def test_removal_ends_daemons_and_only_those_of_the_instance(
    local: Local, open_shared: OpenShared
) -> None:
    """A process that detached with setsid and a double fork ends with its instance only."""
    async with open_shared() as group:
        one, other = await local.grow(group, 2)
        async with local.connect(group, one) as connection:
            mine = await _detach(local, connection)
        async with local.connect(group, other) as connection:
            foreign = await _detach(local, connection)
            await group.decrease([one])
            await local.reach(group, one, None)
            assert local.processes(mine) == []
            assert len(local.processes(foreign)) == 2
            await connection.run("true", check=True)
    assert local.processes(foreign) == []


async def test_removal_breaks_connections(local: Local, group: InstanceGroup) -> None:
    """A client of a removed instance loses its connection while its command runs."""
    [id] = await local.grow(group)
    async with local.connect(group, id) as connection:
        process = await connection.create_process("sleep 1000")
        await group.decrease([id])
        with anyio.fail_after(30):
            await connection.wait_closed()
        assert process.exit_status is None


async def test_a_killed_reaper_is_a_failed_instance(
    local: Local, open_shared: OpenShared, shared_root: Path
) -> None:
    """If another process kills an instance's processes, it fails and leaves nothing behind."""
    async with open_shared() as group:
        one, other = await local.grow(group, 2)
        async with local.connect(group, one) as connection:
            token = await _detach(local, connection)
            completed = await connection.run("echo $PPID", check=True)
            os.kill(int(str(completed.stdout)), signal.SIGKILL)
            await local.reach(group, one, State.FAILED)
            with anyio.fail_after(30):
                await connection.wait_closed()
        with pytest.raises(InstanceUnhealthy, match="killed"):
            await group.heartbeat(one)
        await local.wait(lambda: not local.processes(token))
        await local.wait(lambda: not (shared_root / "instances" / one).exists())
        await group.decrease([one])
        assert await local.states(group) == {other: State.RUNNING}
        async with local.connect(group, other) as connection:
            await connection.run("true", check=True)


async def test_a_killed_server_ends_everything(local: Local, tmp_path: Path) -> None:
    """If the server is killed, requests fail, and no process or directory is left."""
    async with local.open(root=tmp_path) as group:
        [id] = await local.grow(group)
        async with local.connect(group, id) as connection:
            token = await _detach(local, connection)
        os.kill(local.server(tmp_path), signal.SIGKILL)
        with pytest.raises(ProviderError, match="open the group again"):
            await group.update()
        with pytest.raises(ProviderError, match="open the group again"):
            await group.increase(1, "more")
        await local.wait(lambda: not local.processes(tmp_path))
        assert local.processes(token) == []
        assert not (tmp_path / "instances").exists()


async def test_a_killed_supervisor_leaves_nothing(local: Local, tmp_path: Path) -> None:
    """Without the supervisor, running instances stay, new ones fail, and closing ends all."""
    async with local.open(root=tmp_path) as group:
        [id] = await local.grow(group)
        supervisor = next(
            pid
            for pid in local.processes(f"_supervisor.py\0{tmp_path}")
            if local.parent(pid) == local.server(tmp_path)
        )
        os.kill(supervisor, signal.SIGKILL)
        async with local.connect(group, id) as connection:
            await connection.run("true", check=True)
        [late] = (await group.increase(1, "late")).ids
        await local.reach(group, late, State.FAILED)
    await local.wait(lambda: not local.processes(tmp_path))
    assert not (tmp_path / "instances" / id).exists()


async def test_a_stopped_server_is_not_awaited_for_ever(
    local: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request to a stopped server fails in time; its late reply is not mistaken for another."""
    async with local.open(root=tmp_path) as group:
        [id] = await local.grow(group)
        server = local.server(tmp_path)
        os.kill(server, signal.SIGSTOP)
        with monkeypatch.context() as patch:
            patch.setattr("fleeting.local._group.REPLY_SECONDS", 0.1)
            for _ in range(2):
                with pytest.raises(ProviderError, match="did not answer"):
                    await group.connect_info(id)
        os.kill(server, signal.SIGCONT)
        assert await local.states(group) == {id: State.RUNNING}


@pytest.mark.parametrize("is_given", [True, False])
async def test_a_killed_manager_leaves_nothing(
    local: Local, tmp_path: Path, *, is_given: bool
) -> None:
    """Killing the manager ends every process and deletes every directory of its group."""
    command = [sys.executable, "-c", MANAGER, str(tmp_path) if is_given else ""]
    async with await anyio.open_process(command, stderr=None) as manager:
        assert manager.stdout is not None
        root = Path((await manager.stdout.receive()).decode().strip().removeprefix("local"))
        assert len(list((root / "instances").iterdir())) == 2
        assert local.processes(root)
        manager.kill()
        await manager.wait()
    await local.wait(lambda: not local.processes(root))
    assert not (root / "instances").exists()
    assert root.exists() is is_given  # noqa: ASYNC240 - a test may block


async def test_zombies_and_files_do_not_pile_up(local: Local, tmp_path: Path) -> None:
    """After many commands and instances, the server has as many files and children as before."""
    async with local.open(root=tmp_path) as group:
        await local.grow(group)
        server = local.server(tmp_path)
        files = Path(f"/proc/{server}/fd")
        before = len(list(files.iterdir()))  # noqa: ASYNC240 - a test may block
        for _ in range(2):
            ids = await local.grow(group, 2)
            for id in ids:
                async with local.connect(group, id) as connection:
                    for _ in range(5):
                        await connection.run("true", check=True)
            await group.decrease(ids)
            for id in ids:
                await local.reach(group, id, None)
        await local.wait(lambda: len(list(files.iterdir())) == before)
        tree = local.processes(f"_supervisor.py\0{tmp_path}")
        assert len(tree) == 2  # the supervisor and one reaper; a zombie has no command line
        table = Path("/proc").glob("[0-9]*/stat")  # noqa: ASYNC240 - a test may block
        parents = [path.read_text().rpartition(")")[2].split()[1] for path in table]
        assert sum(int(parent) in tree for parent in parents) == 1


def test_a_tree_of_any_depth_is_removed(tmp_path: Path) -> None:
    """Neither a recursion nor a path of unlimited length is needed; links are not followed."""
    kept = tmp_path / "kept"
    kept.mkdir()
    script = (
        "i=0; while [ $i -lt 1300 ]; do mkdir d && cd -P d || exit 1; i=$((i+1)); done; touch leaf"
    )
    tree = tmp_path / "tree"
    tree.mkdir()
    subprocess.run(["/bin/sh", "-c", script], cwd=tree, check=True)
    (tree / "link").symlink_to(kept)
    (tree / "closed").mkdir()
    (tree / "closed" / "file").touch()
    (tree / "closed").chmod(0o500)
    remove_tree(str(tree))
    assert list(tmp_path.iterdir()) == [kept]
