"""What a state file may be and where, who may read it, and what is said otherwise."""

from __future__ import annotations

import os
import re
import resource
import sqlite3
import stat
import tempfile
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fleeting.types import ConnectInfo
from taskscaler import StoreError
from taskscaler.core import ConnectRecord, InstanceRecord
from taskscaler.storage import SqliteStore, _database, read_records, recall

if TYPE_CHECKING:
    from collections.abc import Generator

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 7, 14, 12, 30, tzinfo=UTC)
NOBODY = 65534


def instance(id: str, *, reason: str = "") -> InstanceRecord:
    """Return a record."""
    return InstanceRecord("g", id, None, NOW, 0, (), reason=reason)


def connect(id: str) -> ConnectRecord:
    """Return a record with a secret."""
    return ConnectRecord("g", id, None, ConnectInfo(id, "ssh", password="secret"))  # noqa: S106 - of a test


def modes(directory: Path) -> dict[str, int]:
    """Return the mode of each file."""
    return {one.name: stat.S_IMODE(one.stat().st_mode) for one in directory.iterdir()}


async def refusal(path: Path) -> str:
    """Return why a file cannot be opened, in one sentence that names it."""
    with pytest.raises(StoreError) as caught:
        async with SqliteStore.open(path):
            pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def reading_refusal(path: Path) -> str:
    """Return why a file cannot be read, which both ways of reading say alike."""
    with pytest.raises(StoreError) as caught:
        recall(path)
    with pytest.raises(StoreError, match=re.escape(str(caught.value))):
        read_records(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@contextmanager
def unprivileged() -> Generator[Path]:
    """Yield an empty directory, as a user to whom modes of files mean something."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        user = os.geteuid()
        if user == 0:
            os.chown(name, NOBODY, -1)
            os.seteuid(NOBODY)
        try:
            yield directory
        finally:
            os.seteuid(user)


@pytest.fixture
def open_umask() -> Generator[None]:
    """Have the system take nothing away from the modes that are asked for."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
async def test_every_file_is_private(tmp_path: Path) -> None:
    """With no umask at all, each file has mode 0600, and each new directory 0700."""
    directory = tmp_path / "new" / "newer"
    async with SqliteStore.open(directory / "state") as store:
        await store.commit((await store.load()).epoch, [connect("i")], ())
        assert modes(directory) == dict.fromkeys(
            ("state", "state-wal", "state-shm", "state.lock", "state.key"), 0o600
        )
    assert modes(tmp_path) == {"new": 0o700}
    assert modes(tmp_path / "new") == {"newer": 0o700}


async def test_a_closed_store_leaves_one_file_and_its_lock(tmp_path: Path) -> None:
    """After an orderly end the log is gone, so that a copy of one file is a backup."""
    async with SqliteStore.open(tmp_path / "state") as store:
        await store.load()
    assert set(modes(tmp_path)) == {"state", "state.lock"}
    assert (tmp_path / "state.lock").read_bytes() == b""


async def test_a_directory_is_refused(tmp_path: Path) -> None:
    """The name of a directory is answered with what to name instead."""
    (tmp_path / "state").mkdir()
    assert "is no file" in await refusal(tmp_path / "state")
    assert not (tmp_path / "state.lock").exists()
    assert "there is no state file" in reading_refusal(tmp_path / "state")


async def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """Below a file there can be no directory, and the message says which one was tried."""
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in await refusal(tmp_path / "file" / "state")


async def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    """A file of something else is left as it is."""
    path = tmp_path / "state"
    path.write_text("concurrent = 4\n" * 100)
    assert "no SQLite database" in await refusal(path)
    assert "no SQLite database" in reading_refusal(path)
    assert path.read_text() == "concurrent = 4\n" * 100


async def test_the_database_of_another_program_is_refused(tmp_path: Path) -> None:
    """A database that this program did not begin gets no table of ours."""
    path = tmp_path / "state"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE songs (title)")
    other.close()
    before = path.read_bytes()
    assert "another program" in await refusal(path)
    assert "another program" in reading_refusal(path)
    assert path.read_bytes() == before


async def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    """Pages that were overwritten are noticed, and the message says how to go on."""
    path = tmp_path / "state"
    async with SqliteStore.open(path) as store:
        epoch = (await store.load()).epoch
        await store.commit(epoch, [instance(f"i-{n}", reason="x" * 500) for n in range(500)], ())
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    with pytest.raises(StoreError, match=r"damaged.*move it away"):
        async with SqliteStore.open(path) as store:
            await store.load()
    assert "damaged" in reading_refusal(path)


async def test_an_empty_file_is_a_new_one(tmp_path: Path) -> None:
    """A file of no bytes holds nothing for readers, and becomes a state file when opened."""
    path = tmp_path / "state"
    path.touch()
    assert read_records(path) == ()
    assert recall(path).tasks == ()
    async with SqliteStore.open(path) as store:
        assert (await store.load()).records == ()


async def test_a_missing_file_is_not_made_by_reading(tmp_path: Path) -> None:
    """Whoever reads a file that is not there is told so, and nothing is made."""
    assert "there is no state file" in reading_refusal(tmp_path / "state")
    assert modes(tmp_path) == {}


async def test_a_file_that_may_not_be_written_is_refused() -> None:
    """A read-only file is refused on opening and not at the first commit."""
    with unprivileged() as directory:
        path = directory / "state"
        async with SqliteStore.open(path) as store:
            await store.load()
        path.chmod(0o400)
        assert "read-only" in await refusal(path)


async def test_a_directory_that_may_not_be_written_is_refused() -> None:
    """Where no lock can be made, the message names it and asks for another place."""
    with unprivileged() as directory:
        directory.chmod(0o500)
        assert "state.lock" in await refusal(directory / "state")
        directory.chmod(0o700)


async def test_who_may_only_read_can_read() -> None:
    """A reader needs the right to read and no other, beside a writer and after its end."""
    with unprivileged() as directory:
        path = directory / "state"
        async with SqliteStore.open(path) as store:
            await store.commit((await store.load()).epoch, [instance("i")], ())
            directory.chmod(0o500)
            for one in directory.iterdir():
                one.chmod(0o400)
            assert read_records(path) == (instance("i"),)
            directory.chmod(0o700)
        assert modes(directory)["state"] == 0o400
        directory.chmod(0o500)
        assert read_records(path) == (instance("i"),)
        assert recall(path).picture is None
        directory.chmod(0o700)


async def test_who_may_not_read_is_told() -> None:
    """A file or a directory that is closed to the reader is named in the message."""
    with unprivileged() as directory:
        path = directory / "state"
        async with SqliteStore.open(path) as store:
            await store.load()
        path.chmod(0)
        assert str(path) in reading_refusal(path)
        directory.chmod(0)
        assert str(path) in reading_refusal(path)
        directory.chmod(0o700)


async def test_a_full_database_is_said(tmp_path: Path) -> None:
    """Without space a commit fails whole, and once there is space again the next one works."""
    async with SqliteStore.open(tmp_path / "state") as store:
        epoch = (await store.load()).epoch
        await store.commit(epoch, [instance("before")], ())
        await limit_pages(store, 20)
        many = [instance(f"i-{n}", reason="x" * 1000) for n in range(1000)]
        with pytest.raises(StoreError, match="the disk is full"):
            await store.commit(epoch, many, [instance("before").key])
        assert (await store.load()).records == (instance("before"),)
        await limit_pages(store, 1 << 30)
        await store.commit(epoch + 1, many, ())
        assert len((await store.load()).records) == 1001


async def limit_pages(store: SqliteStore, pages: int) -> None:
    """Have the database grow to this size at most."""
    await store._writer.run(
        lambda database: database.connection.execute(f"PRAGMA max_page_count = {pages}").fetchall(),
        durable=True,
    )


async def test_a_write_that_the_system_refuses_is_said(tmp_path: Path) -> None:
    """When the system takes no more bytes, the commit fails whole, and the next one may work."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with SqliteStore.open(tmp_path / "state") as store:
        epoch = (await store.load()).epoch
        await store.commit(epoch, [instance("before")], ())
        many = [instance(f"i-{n}", reason="x" * 1000) for n in range(3000)]
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
        try:
            with pytest.raises(StoreError, match=r"state cannot be written: the disk"):
                await store.commit(epoch, many, ())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert (await store.load()).records == (instance("before"),)
        await store.commit(epoch + 1, many, ())


async def test_another_program_in_the_file_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction of another program is waited for a while, and then the commit fails."""
    monkeypatch.setattr(_database, "BUSY_SECONDS", 0.0)
    path = tmp_path / "state"
    async with SqliteStore.open(path) as store:
        epoch = (await store.load()).epoch
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="another program"):
            await store.commit(epoch, [instance("i")], ())
        other.close()
        await store.commit(epoch, [instance("i")], ())


async def test_a_place_without_write_ahead_log_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where SQLite has no shared memory, as on some network file systems, nothing is begun."""
    connect = sqlite3.connect

    def without_shared_memory(address: str, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(f"{address}&vfs=unix-none", **options)
        return connection

    monkeypatch.setattr(sqlite3, "connect", without_shared_memory)
    assert "local disk" in await refusal(tmp_path / "state")


async def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """Nobody can have another file overwritten by laying a link where the lock will be."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "state.lock").symlink_to(victim)
    assert "state.lock" in await refusal(tmp_path / "state")
    assert victim.read_text() == "precious"
