"""The SQLite store: it flushes, works in batches off the event loop, and stays small."""

from __future__ import annotations

import logging
import sqlite3
import threading
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from taskscaler import StoreError
from taskscaler.core import InstanceRecord, TombstoneRecord
from taskscaler.storage import SqliteStore, TaskEntry, _batches, _schema, read_records, recall

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from taskscaler.storage._database import Database

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 7, 14, 12, 30, tzinfo=UTC)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Return the event loops."""
    return str(request.param)


def instance(id: str, used: int = 0) -> InstanceRecord:
    """Return a record."""
    return InstanceRecord("g", id, None, NOW, used, ())


def task(number: int) -> TaskEntry:
    """Return the entry of a task."""
    return TaskEntry(f"task-{number}", NOW, None, NOW + timedelta(seconds=number))


async def pragma(store: SqliteStore, name: str, *, durable: bool = True) -> Any:
    """Return the value of a setting during a transaction."""

    def ask(database: Database) -> Any:
        return database.connection.execute(f"PRAGMA {name}").fetchone()[0]

    return await store._thread.run(ask, durable=durable)


@asynccontextmanager
async def held_up(store: SqliteStore) -> AsyncGenerator[list[str]]:
    """Keep the thread busy, so that requests gather; yield what it executes afterwards."""
    statements: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def hold(database: Database) -> None:
        begun.set()
        go_on.wait()
        database.connection.set_trace_callback(statements.append)

    async with anyio.create_task_group() as group:
        group.start_soon(lambda: store._thread.run(hold, durable=True))
        await anyio.to_thread.run_sync(begun.wait)
        try:
            yield statements
        finally:
            go_on.set()


def edit(path: Path, statement: str, *values: str) -> None:
    """Change a file without the store."""
    with closing(sqlite3.connect(path)) as file, file:
        file.execute(statement, values)


async def test_records_are_flushed_and_notes_are_not(tmp_path: Path) -> None:
    """A transaction with a record waits for the disk; one with notes alone does not."""
    async with SqliteStore.open(tmp_path / "state") as store:
        assert await pragma(store, "journal_mode") == "wal"
        for _ in range(2):
            assert await pragma(store, "synchronous", durable=True) == 2
            assert await pragma(store, "synchronous", durable=False) == 1
        await store.note((await store.load()).epoch, [task(1)])
        assert await pragma(store, "synchronous", durable=True) == 2


async def test_a_record_makes_its_whole_batch_durable(tmp_path: Path) -> None:
    """A commit that shares a transaction with notes is flushed too."""
    async with SqliteStore.open(tmp_path / "state") as store:
        epoch = (await store.load()).epoch
        await store.note(epoch, [task(0)])
        async with anyio.create_task_group() as group, held_up(store) as statements:
            group.start_soon(store.note, epoch, [task(1)])
            group.start_soon(store.commit, epoch, [instance("i")], ())
            await anyio.wait_all_tasks_blocked()
        assert statements.count("COMMIT") == 2
        assert "PRAGMA synchronous = NORMAL" not in statements


async def test_requests_that_wait_together_are_one_transaction(tmp_path: Path) -> None:
    """Two thousand commits that gathered while the disk was busy cost one flush."""
    async with SqliteStore.open(tmp_path / "state") as store:
        epoch = (await store.load()).epoch
        async with anyio.create_task_group() as group, held_up(store) as statements:
            for number in range(2000):
                group.start_soon(store.commit, epoch, [instance(f"i-{number}")], ())
            await anyio.wait_all_tasks_blocked()
        # One of the request that kept the thread busy, and one of all others.
        assert statements.count("COMMIT") == 2
        assert len((await store.load()).records) == 2000


async def test_the_event_loop_goes_on_while_the_disk_is_busy(tmp_path: Path) -> None:
    """While the thread waits for the disk, other tasks and readers work."""
    async with SqliteStore.open(tmp_path / "state") as store, held_up(store):
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        assert (await store.recall()).tasks == ()


async def test_a_cancelled_commit_returns_at_once(tmp_path: Path) -> None:
    """A cancelled caller does not wait for a busy disk, and other commits are done."""
    async with SqliteStore.open(tmp_path / "state") as store:
        epoch = (await store.load()).epoch
        async with anyio.create_task_group() as group, held_up(store):
            group.start_soon(store.commit, epoch, [instance("patient")], ())
            with anyio.CancelScope() as scope:
                scope.cancel()
                await store.commit(epoch, [instance("cancelled"), instance("too")], ())
            assert scope.cancelled_caught
        found = {record.key[2] for record in (await store.load()).records}
        assert found in ({"patient"}, {"patient", "cancelled", "too"})


async def test_closing_writes_pending_commits(tmp_path: Path) -> None:
    """Leaving waits until every requested commit is done."""
    go_on = threading.Event()

    async def release() -> None:
        await anyio.wait_all_tasks_blocked()  # so the store is being closed
        go_on.set()

    async with anyio.create_task_group() as group:
        async with SqliteStore.open(tmp_path / "state") as store:
            epoch = (await store.load()).epoch
            group.start_soon(lambda: store._thread.run(lambda _: go_on.wait(), durable=True))
            await anyio.wait_all_tasks_blocked()
            for number in range(100):
                group.start_soon(store.commit, epoch, [instance(f"i-{number}")], ())
            await anyio.wait_all_tasks_blocked()
            group.start_soon(release)
        assert len(read_records(tmp_path / "state")) == 100


async def test_a_disk_that_hangs_does_not_block_closing_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Leaving gives up after a time and logs it, even when cancelled; requests may end later."""
    monkeypatch.setattr(_batches, "CLOSE_SECONDS", 0.01)
    begun, go_on = threading.Event(), threading.Event()

    def hang(_: Database) -> None:
        begun.set()
        go_on.wait()

    with anyio.CancelScope() as scope:
        async with (
            SqliteStore.open(tmp_path / "state") as store,
            anyio.create_task_group() as group,
        ):
            group.start_soon(lambda: store._thread.run(hang, durable=True))
            await anyio.to_thread.run_sync(begun.wait)
            scope.cancel()
    (left,) = [one for one in threading.enumerate() if one.name == "store state"]
    assert left.daemon, "it does not keep the interpreter either"
    assert [one.getMessage().partition(",")[0] for one in caplog.records] == [
        "store state did not close within 0.01s"
    ]
    go_on.set()
    await anyio.to_thread.run_sync(left.join)
    async with SqliteStore.open(tmp_path / "state"):
        pass


async def test_a_closed_store_refuses(tmp_path: Path) -> None:
    """A request after closing raises instead of waiting for ever."""
    async with SqliteStore.open(tmp_path / "state") as opened:
        store = opened
        epoch = (await store.load()).epoch
    for refused in (store.load(), store.commit(epoch, (), ()), store.note(epoch, ())):
        with pytest.raises(StoreError, match="is closed"):
            await refused


async def test_closing_writes_pending_commits_even_when_cancelled(tmp_path: Path) -> None:
    """A store that is cancelled still writes the requested commits, and releases the file."""
    with anyio.CancelScope() as scope:
        async with SqliteStore.open(tmp_path / "state") as store:
            epoch = (await store.load()).epoch
            async with anyio.create_task_group() as group:
                group.start_soon(store.commit, epoch, [instance("i")], ())
                await anyio.wait_all_tasks_blocked()
                scope.cancel()
    async with SqliteStore.open(tmp_path / "state") as store:
        assert (await store.load()).records == (instance("i"),)


async def test_no_thread_is_left(tmp_path: Path) -> None:
    """The thread of a store ends with it, even if opening failed or was cancelled."""
    (tmp_path / "directory").mkdir()
    with pytest.raises(StoreError):
        async with SqliteStore.open(tmp_path / "directory"):
            pass
    with anyio.CancelScope() as scope:
        scope.cancel()
        async with SqliteStore.open(tmp_path / "state"):
            pytest.fail("it was cancelled")  # pragma: no cover
    async with SqliteStore.open(tmp_path / "state"):
        assert "store state" in {thread.name for thread in threading.enumerate()}
    for thread in threading.enumerate():
        if thread.name.startswith("store "):
            thread.join(30)  # it has reported its end and only needs to return
            assert not thread.is_alive()


async def test_an_exception_of_the_body_is_unchanged(tmp_path: Path) -> None:
    """It is not wrapped in a group, and the file is released."""
    with pytest.raises(ZeroDivisionError):
        async with SqliteStore.open(tmp_path / "state"):
            raise ZeroDivisionError
    async with SqliteStore.open(tmp_path / "state"):
        pass


async def test_invalid_text_fails_only_its_own_request(tmp_path: Path) -> None:
    """A record, a key or an entry with a lone surrogate is refused; others are written."""
    async with SqliteStore.open(tmp_path / "state") as store:
        epoch = (await store.load()).epoch
        await store.commit(epoch, [instance("there")], ())

        async def fail(work: Any) -> None:
            with pytest.raises(StoreError, match="surrogates"):
                await work

        async with anyio.create_task_group() as group, held_up(store):
            bad = ("instance", "g", "\ud800")
            group.start_soon(fail, store.commit(epoch, [instance("x"), instance("\ud800")], ()))
            group.start_soon(fail, store.commit(epoch, [instance("x")], [bad]))
            group.start_soon(fail, store.note(epoch, [TaskEntry("\ud800", NOW, None, NOW)]))
            group.start_soon(store.commit, epoch, [instance("good")], ())
            await anyio.wait_all_tasks_blocked()
        assert set((await store.load()).records) == {instance("there"), instance("good")}


async def test_fields_of_other_versions_are_accepted(tmp_path: Path) -> None:
    """A field of a newer version is ignored, and a missing one has its default."""
    path = tmp_path / "state"
    async with SqliteStore.open(path) as store:
        await store.commit((await store.load()).epoch, [instance("i")], ())
    edit(path, "UPDATE records SET body = json_set(body, '$.color', 'red')")
    edit(path, "UPDATE records SET body = json_remove(body, '$.suspended', '$.reason')")
    assert read_records(path) == (instance("i"),)
    async with SqliteStore.open(path) as store:
        assert (await store.load()).records == (instance("i"),)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE records SET body = json_remove(body, '$.used')",
        "UPDATE records SET body = json_set(body, '$.type', 'moon')",
        "UPDATE records SET body = json_set(body, '$.rule', 'because')",
        "UPDATE records SET body = '{'",
        "UPDATE records SET id = 'it''s another'",
    ],
)
async def test_a_record_that_cannot_be_read_is_named(tmp_path: Path, change: str) -> None:
    """The message names file and record, and its statement makes the rest readable."""
    path = tmp_path / "state"
    async with SqliteStore.open(path) as store:
        await store.commit((await store.load()).epoch, [instance("i"), instance("j")], ())
    edit(path, f"{change} WHERE id = 'i'")
    with pytest.raises(StoreError) as caught:
        async with SqliteStore.open(path) as store:
            await store.load()
    assert str(path) in str(caught.value)
    with pytest.raises(StoreError, match="cannot be read"):
        read_records(path)
    edit(path, str(caught.value).split('"')[-2])
    assert read_records(path) == (instance("j"),)


async def test_history_of_another_version_is_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An entry that cannot be read causes one warning; the others are returned."""
    path = tmp_path / "state"
    async with SqliteStore.open(path) as store:
        await store.note((await store.load()).epoch, [task(1), task(2), task(3)])
    edit(path, "UPDATE tasks SET body = '{}' WHERE number = 2")
    with caplog.at_level(logging.WARNING):
        assert recall(path).tasks == (task(1), task(3))
    assert "1 entries" in caplog.text


async def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    """Writers and readers refuse a file of a newer version, and do not change it."""
    path = tmp_path / "state"
    async with SqliteStore.open(path):
        pass
    edit(path, "PRAGMA user_version = 99")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="of version 99, written by a newer taskscaler"):
        async with SqliteStore.open(path):
            pass
    with pytest.raises(StoreError, match="newer taskscaler"):
        recall(path)
    assert path.read_bytes() == before


async def test_an_older_file_is_upgraded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening runs the missing migrations once and keeps the records; readers wait for it."""

    def add(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE holder ADD COLUMN name TEXT")

    path = tmp_path / "state"
    async with SqliteStore.open(path) as store:
        await store.commit((await store.load()).epoch, [instance("i")], ())
    migrations = (*_schema.MIGRATIONS, add)
    monkeypatch.setattr(_schema, "MIGRATIONS", migrations)
    with pytest.raises(StoreError, match="older version"):
        recall(path)
    for epoch in (2, 3):
        async with SqliteStore.open(path) as store:
            loaded = await store.load()
            assert (loaded.epoch, loaded.records) == (epoch, (instance("i"),))
            assert await pragma(store, "user_version") == len(migrations)


async def test_a_failed_migration_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file keeps its older version and all of its records."""

    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("DROP TABLE records")
        connection.execute("DROP TABLE nowhere")

    path = tmp_path / "state"
    async with SqliteStore.open(path) as store:
        await store.commit((await store.load()).epoch, [instance("i")], ())
    with monkeypatch.context() as patch:
        patch.setattr(_schema, "MIGRATIONS", (*_schema.MIGRATIONS, fail))
        with pytest.raises(StoreError, match="nowhere"):
            async with SqliteStore.open(path):
                pass
    assert read_records(path) == (instance("i"),)


async def test_the_newest_tasks_are_kept(tmp_path: Path) -> None:
    """The history keeps a hundred thousand tasks, and not one more."""
    async with SqliteStore.open(tmp_path / "state") as store:
        epoch = (await store.load()).epoch
        for start in range(0, 100_010, 10_001):
            await store.note(epoch, [task(start + number) for number in range(10_001)])
        tasks = (await store.recall()).tasks
    assert tasks == tuple(task(number) for number in range(10, 100_010))


async def test_the_file_becomes_small_again(tmp_path: Path) -> None:
    """After many tombstones were dropped, their space is returned to the system."""
    path = tmp_path / "state"
    async with SqliteStore.open(path) as store:
        epoch = (await store.load()).epoch
        flood = [TombstoneRecord("g", f"i-{number:050}", None, NOW) for number in range(10_000)]
        await store.commit(epoch, flood, ())
        pages = await pragma(store, "page_count")
        await store.commit(epoch, (), [one.key for one in flood])
        for number in range(50):
            await store.commit(epoch, [instance("i", number)], ())
        assert await pragma(store, "page_count") < pages / 2
    assert path.stat().st_size < pages * 4096 / 2
