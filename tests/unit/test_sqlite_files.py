"""State files: their place, their modes, and the messages when they cannot be used."""

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
UNPRIVILEGED = 65534


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
    """Return why a file cannot be read, which both ways of reading report in the same words."""
    with pytest.raises(StoreError) as caught:
        recall(path)
    with pytest.raises(StoreError, match=re.escape(str(caught.value))):
        read_records(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@contextmanager
def unprivileged() -> Generator[Path]:
    """Yield an empty directory, and become a user to whom the modes of files apply."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        user = os.geteuid()
        if user == 0:
            os.chown(name, UNPRIVILEGED, -1)
            os.seteuid(UNPRIVILEGED)
        try:
            yield directory
        finally:
            os.seteuid(user)


@pytest.fixture
def open_umask() -> Generator[None]:
    """Set an empty umask."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
async def test_every_file_is_private(tmp_path: Path) -> None:
    """With an empty umask, each file has mode 0600, and each new directory 0700."""
    directory = tmp_path / "new" / "newer"
    async with SqliteStore.open(directory / "state") as store:
        await store.commit((await store.load()).epoch, [connect("i")], ())
        assert modes(directory) == dict.fromkeys(
            ("state", "state-wal", "state-shm", "state.lock", "state.key"), 0o600
        )
    assert modes(tmp_path) == {"new": 0o700}
    assert modes(tmp_path / "new") == {"newer": 0o700}


async def test_a_closed_store_leaves_one_file_and_its_lock(tmp_path: Path) -> None:
    """After closing there is no log, so a copy of one file is a backup."""
    async with SqliteStore.open(tmp_path / "state") as store:
        await store.load()
    assert set(modes(tmp_path)) == {"state", "state.lock"}
    assert (tmp_path / "state.lock").read_bytes() == b""


async def test_a_directory_is_refused(tmp_path: Path) -> None:
    """The message says that a directory is not a regular file."""
    (tmp_path / "state").mkdir()
    assert "is not a regular file" in await refusal(tmp_path / "state")
    assert not (tmp_path / "state.lock").exists()
    assert "there is no state file" in reading_refusal(tmp_path / "state")


async def test_a_directory_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    """A directory cannot be created below a file; the message names it."""
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in await refusal(tmp_path / "file" / "state")


async def test_other_files_are_refused(tmp_path: Path) -> None:
    """A file that is not a database stays unchanged."""
    path = tmp_path / "state"
    path.write_text("concurrent = 4\n" * 100)
    assert "not an SQLite database" in await refusal(path)
    assert "not an SQLite database" in reading_refusal(path)
    assert path.read_text() == "concurrent = 4\n" * 100


async def test_the_database_of_another_program_is_refused(tmp_path: Path) -> None:
    """The database of another program gets no table of ours."""
    path = tmp_path / "state"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE songs (title)")
    other.close()
    before = path.read_bytes()
    assert "another program" in await refusal(path)
    assert "another program" in reading_refusal(path)
    assert path.read_bytes() == before


async def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    """Overwritten pages are noticed, and the message says what to do."""
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
    """An empty file is empty for readers, and becomes a state file when opened."""
    path = tmp_path / "state"
    path.touch()
    assert read_records(path) == ()
    assert recall(path).tasks == ()
    async with SqliteStore.open(path) as store:
        assert (await store.load()).records == ()


async def test_reading_does_not_create_a_file(tmp_path: Path) -> None:
    """Reading a missing file is an error, and creates nothing."""
    assert "there is no state file" in reading_refusal(tmp_path / "state")
    assert modes(tmp_path) == {}


async def test_a_read_only_file_is_refused() -> None:
    """A read-only file is refused when it is opened, not at the first commit."""
    with unprivileged() as directory:
        path = directory / "state"
        async with SqliteStore.open(path) as store:
            await store.load()
        path.chmod(0o400)
        assert "read-only" in await refusal(path)


async def test_a_read_only_directory_is_refused() -> None:
    """If the lock file cannot be created, the message names it and asks for another place."""
    with unprivileged() as directory:
        directory.chmod(0o500)
        assert "state.lock" in await refusal(directory / "state")
        directory.chmod(0o700)


async def test_reading_needs_only_the_right_to_read() -> None:
    """The right to read is enough, both while a writer has the file open and afterwards."""
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


async def test_the_message_names_what_cannot_be_read() -> None:
    """The message names a file or a directory that the user has no right to read."""
    with unprivileged() as directory:
        path = directory / "state"
        async with SqliteStore.open(path) as store:
            await store.load()
        path.chmod(0)
        assert str(path) in reading_refusal(path)
        directory.chmod(0)
        assert str(path) in reading_refusal(path)
        directory.chmod(0o700)


async def test_a_full_disk_is_reported(tmp_path: Path) -> None:
    """Without space a whole commit fails; when there is space again, the next one works."""
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
    """Limit the size of the database."""
    await store._thread.run(
        lambda database: database.connection.execute(f"PRAGMA max_page_count = {pages}").fetchall(),
        durable=True,
    )


async def test_a_write_that_the_system_refuses_is_reported(tmp_path: Path) -> None:
    """If the system refuses a write, the whole commit fails, and the next one may work."""
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


async def test_a_transaction_of_another_program_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit waits a while for the transaction of another program, then fails."""
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
    """SQLite needs shared memory for its log, which some network file systems lack."""
    connect = sqlite3.connect

    def without_shared_memory(address: str, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(f"{address}&vfs=unix-none", **options)
        return connection

    monkeypatch.setattr(sqlite3, "connect", without_shared_memory)
    assert "local disk" in await refusal(tmp_path / "state")


async def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """A link in the place of the lock cannot make the store overwrite another file."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "state.lock").symlink_to(victim)
    assert "state.lock" in await refusal(tmp_path / "state")
    assert victim.read_text() == "precious"
