"""A state file after its holder was killed, and the next holder."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

import store_child
from taskscaler import StoreLocked
from taskscaler.core import InstanceRecord
from taskscaler.storage import SqliteStore, read_records, recall

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from taskscaler.core import Record

pytestmark = pytest.mark.anyio


@contextmanager
def holder(path: Path) -> Generator[subprocess.Popen[str]]:
    """Start a process that opens a file and commits to it for ever; kill it at the end."""
    with subprocess.Popen(
        [sys.executable, store_child.__file__, path], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            yield process
        finally:
            process.kill()


def generations(records: Sequence[Record]) -> set[int]:
    """Return the generations of the records of the process."""
    instances = [record for record in records if isinstance(record, InstanceRecord)]
    assert len(instances) == len(records) in {0, store_child.RECORDS}
    return {instance.used for instance in instances}


def contents(directory: Path) -> dict[str, bytes]:
    """Return the content of each file."""
    return {one.name: one.read_bytes() for one in directory.iterdir()}


async def test_acknowledged_commits_survive_a_kill(tmp_path: Path) -> None:
    """A holder that is killed leaves every acknowledged commit, and no partial one."""
    chance = random.Random(4)  # noqa: S311 - the moments of a test
    path = tmp_path / "state"
    for _ in range(6):
        acknowledged = 0
        with holder(path) as process:
            assert process.stdout is not None
            for _ in range(chance.randrange(60)):
                acknowledged = int(process.stdout.readline())
            process.kill()
            for line in process.stdout:  # it may have printed more before it died
                acknowledged = int(line) if line.endswith("\n") else acknowledged
        async with SqliteStore.open(path) as store:
            found = generations((await store.load()).records)
        # One more may have been committed and not acknowledged.
        assert found <= {acknowledged, acknowledged + 1} or not acknowledged
        assert len(found) <= 1
        assert found or not acknowledged


async def test_the_message_names_a_living_holder(tmp_path: Path) -> None:
    """A second process is refused while the first lives; the message names the first."""
    path = tmp_path / "state"
    with holder(path) as process:
        with pytest.raises(StoreLocked) as caught:
            async with SqliteStore.open(path):
                pass
        assert f"process {process.pid} on {socket.gethostname()}" in str(caught.value)
        assert str(path) in str(caught.value)


async def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    """After the holder was killed, the next one opens the file at once, with a newer epoch."""
    path = tmp_path / "state"
    with holder(path) as process:
        process.kill()
        process.wait()
        async with SqliteStore.open(path) as store:
            assert (await store.load()).epoch == 2


async def test_readers_see_complete_commits_of_a_writer(tmp_path: Path) -> None:
    """While another process commits, each read sees a complete commit, and newer ones later."""
    path = tmp_path / "state"
    with holder(path) as process:
        assert process.stdout is not None
        seen: list[int] = []
        for _ in range(20):
            process.stdout.readline()
            seen += generations(read_records(path))
            assert recall(path).picture is None
    assert seen == sorted(seen)
    assert seen[0] < seen[-1]


async def test_reading_after_a_kill_changes_nothing(tmp_path: Path) -> None:
    """The log that a killed holder left is read, and every file stays unchanged."""
    path = tmp_path / "state"
    with holder(path) as process:
        assert process.stdout is not None
        acknowledged = int(process.stdout.readline())
        process.kill()
        process.wait()
    before = contents(tmp_path)
    assert "state-wal" in before
    assert max(generations(read_records(path))) >= acknowledged
    assert contents(tmp_path) == before
    (tmp_path / "state-shm").unlink()
    assert max(generations(read_records(path))) >= acknowledged


async def test_a_second_store_in_one_process_is_refused(tmp_path: Path) -> None:
    """The lock also holds within a process, and for another name of the file."""
    path = tmp_path / "state"
    link = tmp_path / "link"
    link.symlink_to(path)
    around = tmp_path / ".." / tmp_path.name / "state"
    async with SqliteStore.open(path) as store:
        for name in (path, link, around):
            with pytest.raises(StoreLocked, match=f"process {os.getpid()}"):
                async with SqliteStore.open(name):
                    pass
        await store.load()
    async with SqliteStore.open(link) as store:
        assert (await store.load()).epoch == 2


async def test_the_content_of_a_lock_file_is_not_trusted(tmp_path: Path) -> None:
    """If another program wrote to the lock file, the message names no holder."""
    async with SqliteStore.open(tmp_path / "state"):
        (tmp_path / "state.lock").write_bytes(b"12 \x1b[31mred\n")
        with pytest.raises(StoreLocked) as caught:
            async with SqliteStore.open(tmp_path / "state"):
                pass
    assert "process" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
