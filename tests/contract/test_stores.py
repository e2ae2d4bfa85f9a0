"""The contract of `taskscaler.storage.Store`, which every store must keep."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest

from fleeting.types import ConnectInfo, Duration
from taskscaler import Fenced, StoreError
from taskscaler.core import (
    ConnectRecord,
    Decision,
    Demand,
    GroupRecord,
    InstanceRecord,
    JobRecord,
    OperationRecord,
    QueueRecord,
    Rule,
    Standing,
    ThrottleRecord,
    TombstoneRecord,
)
from taskscaler.storage import MemoryStore, Picture, SqliteStore, Store, TaskEntry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from taskscaler.core import Record

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 7, 14, 12, 30, 15, 123456, tzinfo=UTC)


@asynccontextmanager
async def memory(_: Path) -> AsyncGenerator[Store]:
    """Open a store in memory."""
    yield MemoryStore()


@asynccontextmanager
async def sqlite(directory: Path) -> AsyncGenerator[Store]:
    """Open a store in a file."""
    async with SqliteStore.open(directory / "state") as store:
        yield store


# How each store is opened. All tests below run with each store that is listed here.
STORES: dict[str, Callable[[Path], AbstractAsyncContextManager[Store]]] = {
    "memory": memory,
    "sqlite": sqlite,
}


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Return the event loops."""
    return str(request.param)


@pytest.fixture(params=STORES)
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, anyio_backend: str
) -> AsyncGenerator[Store]:
    """Return an empty store."""
    del anyio_backend  # Requested so that the store is opened on that loop.
    async with STORES[request.param](tmp_path) as opened:
        yield opened


def instance(
    id: str, *, group: str = "cloud/group", used: int = 0, tasks: tuple[str, ...] = ()
) -> InstanceRecord:
    """Return a record of an instance."""
    return InstanceRecord(group, id, f"incarnation of {id}", NOW, used, tasks)


def operation(id: str, count: int = 1, *, group: str = "cloud/group") -> OperationRecord:
    """Return a record of an operation."""
    return OperationRecord(group, id, count, NOW)


def task(key: str) -> TaskEntry:
    """Return the entry of a task."""
    return TaskEntry(key, NOW, NOW, NOW + timedelta(minutes=1), "cloud/group", "i-1", "lost", "why")


def decision(number: int) -> Decision:
    """Return a decision that differs from others in its number."""
    demand = Demand(number, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8)
    return Decision(NOW, "cloud/group", Rule.TASKS_WAIT, number, 0, "max_instances", demand, "ü")


def picture(waiting: int) -> Picture:
    """Return a picture in which so many tasks wait."""
    standing = Standing(decision(waiting).demand, {"ready": 1}, (decision(1),), {"g": "down"})
    return Picture(NOW, standing, (("a", NOW),), (("b", "cloud/group", "i-1"),))


# One record of each kind, with every field set.
EVERY_KIND: tuple[Record, ...] = (
    InstanceRecord("g", "i", "n", NOW, 3, ("a", "ü b"), Rule.AGE, "too old", NOW, (("s", 1, NOW),)),
    operation("op", 7),
    TombstoneRecord("g", "t", None, NOW),
    GroupRecord("g", 3, NOW, NOW + timedelta(seconds=1), "no quota", quota=True, doubted_until=NOW),
    ThrottleRecord(NOW),
    ConnectRecord(
        "g",
        "i",
        "n",
        ConnectInfo(
            *("i", "ssh", "10.0.0.1", "host", 2222, "linux", "amd64", "user", "key", "password"),
            host_keys=("ssh-ed25519 AAAA",),
            expires=NOW,
            keepalive=Duration(seconds=30),
            timeout=timedelta(days=1, microseconds=1),
            use_external_address=True,
        ),
    ),
    JobRecord(
        *("build", "sha", "failed", 2, 1, "KILL", "lost", "g", "i", 3),
        started_at=NOW,
        finished_at=NOW,
        warnings=("slow",),
    ),
    QueueRecord((("build", 3, "sha"),), 2, 1, "concurrent = 1"),
)


async def test_a_new_store_is_empty(store: Store) -> None:
    """The first holder finds nothing."""
    loaded = await store.load()
    assert loaded.records == ()


async def test_committed_records_are_loaded(store: Store) -> None:
    """Records of every kind are loaded unchanged, to the microsecond."""
    records = (instance("i-1", used=3, tasks=("a", "ü b")), operation("op", 7))
    await store.commit((await store.load()).epoch, records, ())
    assert set((await store.load()).records) == set(records)


@pytest.mark.parametrize("record", EVERY_KIND, ids=lambda record: record.key[0])
async def test_every_kind_of_record_is_kept(store: Store, record: Record) -> None:
    """Each field of each kind of record is loaded unchanged."""
    await store.commit((await store.load()).epoch, [record], ())
    assert (await store.load()).records == (record,)


async def test_records_are_dropped_whatever_their_kind(store: Store) -> None:
    """A key deletes a record of any kind."""
    epoch = (await store.load()).epoch
    await store.commit(epoch, EVERY_KIND, ())
    await store.commit(epoch, (), [record.key for record in EVERY_KIND])
    assert (await store.load()).records == ()


async def test_an_instance_without_incarnation_stays_without(store: Store) -> None:
    """None differs from an empty text."""
    record = InstanceRecord("cloud/group", "i-1", None, NOW, 0, ())
    await store.commit((await store.load()).epoch, [record], ())
    assert (await store.load()).records == (record,)


async def test_a_record_replaces_the_one_with_its_key(store: Store) -> None:
    """Only the newest record with a key is kept."""
    epoch = (await store.load()).epoch
    await store.commit(epoch, [instance("i-1", used=1)], ())
    await store.commit(epoch, [instance("i-1", used=2)], ())
    assert (await store.load()).records == (instance("i-1", used=2),)


async def test_keys_differ_by_kind_and_group(store: Store) -> None:
    """Equal ids of other kinds or other groups are different keys."""
    records = (
        instance("x"),
        operation("x"),
        instance("x", group="other"),
        operation("x", group="other"),
    )
    await store.commit((await store.load()).epoch, records, ())
    assert set((await store.load()).records) == set(records)


async def test_dropping_deletes(store: Store) -> None:
    """The record with a dropped key is deleted, and the others stay."""
    epoch = (await store.load()).epoch
    await store.commit(epoch, [instance("i-1"), instance("i-2")], ())
    await store.commit(epoch, (), [instance("i-1").key])
    assert (await store.load()).records == (instance("i-2"),)


async def test_dropping_an_unknown_key_is_legal(store: Store) -> None:
    """Unknown keys are ignored, and a commit can be repeated."""
    epoch = (await store.load()).epoch
    for _ in range(2):
        await store.commit(epoch, [instance("i-1")], [operation("never").key])
    assert (await store.load()).records == (instance("i-1"),)


async def test_an_empty_commit_is_legal(store: Store) -> None:
    """A commit without records and keys changes nothing."""
    epoch = (await store.load()).epoch
    await store.commit(epoch, (), ())
    assert (await store.load()).records == ()


async def test_each_load_has_a_larger_epoch(store: Store) -> None:
    """Epochs grow even if nothing is committed in between."""
    epochs = [(await store.load()).epoch for _ in range(3)]
    assert epochs == sorted(set(epochs))


async def test_the_previous_holder_is_fenced(store: Store) -> None:
    """After another load, every commit under the old epoch raises and writes nothing."""
    old = (await store.load()).epoch
    await store.commit(old, [instance("i-1")], ())
    new = (await store.load()).epoch
    for _ in range(2):
        with pytest.raises(Fenced) as caught:
            await store.commit(old, [instance("i-2")], [instance("i-1").key])
        assert isinstance(caught.value, StoreError)
    await store.commit(new, [instance("i-3")], ())
    assert set((await store.load()).records) == {instance("i-1"), instance("i-3")}


async def test_a_larger_epoch_is_refused_too(store: Store) -> None:
    """Only the newest epoch may commit, not any larger number."""
    epoch = (await store.load()).epoch
    with pytest.raises(Fenced):
        await store.commit(epoch + 1, [instance("i-1")], ())


async def test_many_records_are_one_commit(store: Store) -> None:
    """Ten thousand records are committed at once and loaded completely."""
    records = [instance(f"i-{number}") for number in range(10_000)]
    epoch = (await store.load()).epoch
    await store.commit(epoch, records, ())
    await store.commit(epoch, (), [record.key for record in records[:5_000]])
    assert set((await store.load()).records) == set(records[5_000:])


async def test_loaded_records_do_not_change(store: Store) -> None:
    """A loaded value is not affected by later commits."""
    epoch = (await store.load()).epoch
    await store.commit(epoch, [instance("i-1")], ())
    loaded = await store.load()
    await store.commit(loaded.epoch, [instance("i-2")], [instance("i-1").key])
    assert loaded.records == (instance("i-1"),)


async def test_concurrent_commits_are_all_written(store: Store) -> None:
    """Many tasks may commit at once; when a commit returns, its records are written."""
    epoch = (await store.load()).epoch
    async with anyio.create_task_group() as group:
        for number in range(200):
            group.start_soon(store.commit, epoch, [instance(f"i-{number}")], ())
    assert set((await store.load()).records) == {instance(f"i-{number}") for number in range(200)}


async def test_one_task_sees_its_commits_in_order(store: Store) -> None:
    """The last of several commits to one key wins, even among those of other tasks."""
    epoch = (await store.load()).epoch

    async def count(id: str) -> None:
        for used in range(20):
            await store.commit(epoch, [instance(id, used=used)], ())

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(count, f"i-{number}")
    assert set((await store.load()).records) == {instance(f"i-{n}", used=19) for n in range(5)}


async def test_a_fenced_commit_does_not_affect_others(store: Store) -> None:
    """The commit of a previous holder fails alone, also among others at the same time."""
    old = (await store.load()).epoch
    new = (await store.load()).epoch

    async def late(number: int) -> None:
        with pytest.raises(Fenced):
            await store.commit(old, [instance(f"old-{number}")], ())

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(store.commit, new, [instance(f"new-{number}")], ())
            group.start_soon(late, number)
    assert {record.key[2] for record in (await store.load()).records} == {
        f"new-{number}" for number in range(20)
    }


async def test_a_cancelled_commit_is_atomic(store: Store) -> None:
    """A commit that is cancelled while it waits has written all of its records or none."""
    epoch = (await store.load()).epoch
    async with anyio.create_task_group() as group:
        for number in range(50):
            pair = [instance(f"{number}-a"), instance(f"{number}-b")]
            group.start_soon(store.commit, epoch, pair, ())
        await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    ids = [record.key[2] for record in (await store.load()).records]
    halves = [{id for id in ids if id.startswith(f"{number}-")} for number in range(50)]
    assert {len(half) for half in halves} <= {0, 2}
    await store.commit(epoch + 1, [instance("after")], ())


async def test_a_new_store_has_no_history(store: Store) -> None:
    """Before the first note there is neither a picture nor a history."""
    await store.load()
    remembered = await store.recall()
    assert (remembered.picture, remembered.decisions, remembered.tasks) == (None, (), ())


async def test_notes_are_recalled_in_order(store: Store) -> None:
    """Decisions and tasks are returned unchanged, the oldest of each kind first."""
    epoch = (await store.load()).epoch
    await store.note(epoch, [decision(1), task("a"), decision(2)])
    await store.note(epoch, [task("b")])
    remembered = await store.recall()
    assert remembered.decisions == (decision(1), decision(2))
    assert remembered.tasks == (task("a"), task("b"))


async def test_the_picture_is_replaced(store: Store) -> None:
    """Only the newest picture is kept; a note without a picture keeps it."""
    epoch = (await store.load()).epoch
    await store.note(epoch, (), picture(1))
    await store.note(epoch, (), picture(2))
    await store.note(epoch, [task("a")])
    assert (await store.recall()).picture == picture(2)


async def test_history_survives_its_holder(store: Store) -> None:
    """The notes of the previous holder stay, and the next one adds to them."""
    await store.note((await store.load()).epoch, [task("a")], picture(1))
    await store.note((await store.load()).epoch, [task("b")])
    remembered = await store.recall()
    assert (remembered.picture, remembered.tasks) == (picture(1), (task("a"), task("b")))


async def test_notes_are_not_records(store: Store) -> None:
    """Entries of the history are not loaded as records."""
    epoch = (await store.load()).epoch
    await store.commit(epoch, [instance("i-1")], ())
    await store.note(epoch, [task("a"), decision(1)], picture(1))
    assert (await store.load()).records == (instance("i-1"),)


async def test_notes_of_the_previous_holder_are_refused(store: Store) -> None:
    """After another load, a note under the old epoch raises and writes nothing."""
    old = (await store.load()).epoch
    await store.load()
    with pytest.raises(Fenced):
        await store.note(old, [task("a")], picture(1))
    remembered = await store.recall()
    assert (remembered.picture, remembered.tasks) == (None, ())


async def test_the_newest_history_is_kept(store: Store) -> None:
    """A history that is too long loses its oldest entries and nothing else."""
    epoch = (await store.load()).epoch
    for start in range(0, 12_000, 3_000):
        await store.note(epoch, [decision(start + number) for number in range(3_000)])
    decisions = (await store.recall()).decisions
    assert 0 < len(decisions) < 12_000
    assert decisions == tuple(decision(n) for n in range(12_000 - len(decisions), 12_000))
