"""What is left of a state file whose holder was killed, and who may have it next."""

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
    """Start a process that commits to a file for ever; it has it open, and is killed in the end."""
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
    """Return which generations the records of the process are of."""
    instances = [record for record in records if isinstance(record, InstanceRecord)]
    assert len(instances) == len(records) in {0, store_child.RECORDS}
    return {instance.used for instance in instances}


def contents(directory: Path) -> dict[str, bytes]:
    """Return what is in each file."""
    return {one.name: one.read_bytes() for one in directory.iterdir()}


async def test_what_was_acknowledged_survives_kill(tmp_path: Path) -> None:
    """Killed at any moment, a holder leaves each acknowledged commit, and none by half."""
    chance = random.Random(4)  # noqa: S311 - the moments of a test
    path = tmp_path / "state"
    for _ in range(6):
        acknowledged = 0
        with holder(path) as process:
            assert process.stdout is not None
            for _ in range(chance.randrange(60)):
                acknowledged = int(process.stdout.readline())
            process.kill()
            for line in process.stdout:  # it may have said more before it died
                acknowledged = int(line) if line.endswith("\n") else acknowledged
        async with SqliteStore.open(path) as store:
            found = generations((await store.load()).records)
        # One more may have been written without the time to say so.
        assert found <= {acknowledged, acknowledged + 1} or not acknowledged
        assert len(found) <= 1
        assert found or not acknowledged


async def test_a_living_holder_is_named(tmp_path: Path) -> None:
    """A second process is refused while the first lives, and told which one that is."""
    path = tmp_path / "state"
    with holder(path) as process:
        with pytest.raises(StoreLocked) as caught:
            async with SqliteStore.open(path):
                pass
        assert f"process {process.pid} on {socket.gethostname()}" in str(caught.value)
        assert str(path) in str(caught.value)


async def test_the_lock_goes_with_its_process(tmp_path: Path) -> None:
    """Once the holder was killed, the next one has the file at once, under a newer epoch."""
    path = tmp_path / "state"
    with holder(path) as process:
        process.kill()
        process.wait()
        async with SqliteStore.open(path) as store:
            assert (await store.load()).epoch == 2


async def test_anybody_may_read_beside_a_writer(tmp_path: Path) -> None:
    """While another process commits, each reading sees one whole commit, and time goes on."""
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
    """The log that a killed holder left behind is read, and every file stays as it is."""
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


async def test_two_in_one_process_are_refused(tmp_path: Path) -> None:
    """The lock keeps out the same process too, by whatever name it calls the file."""
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


async def test_what_stands_in_the_lock_is_not_trusted(tmp_path: Path) -> None:
    """A lock file that another program filled gives a message without a holder."""
    async with SqliteStore.open(tmp_path / "state"):
        (tmp_path / "state.lock").write_bytes(b"12 \x1b[31mred\n")
        with pytest.raises(StoreLocked) as caught:
            async with SqliteStore.open(tmp_path / "state"):
                pass
    assert "process" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
