"""What every store must keep: the contract of `taskscaler.storage.Store`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from taskscaler.core.records import InstanceRecord, OperationRecord
from taskscaler.errors import Fenced, StoreError
from taskscaler.storage import MemoryStore, Store

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 7, 14, 12, 30, 15, 123456, tzinfo=UTC)

# How each store is made. Add a store here, and it is held to everything below.
STORES: dict[str, Callable[[], Store]] = {"memory": MemoryStore}


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Return the event loops."""
    return str(request.param)


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Store:
    """Return an empty store."""
    return STORES[request.param]()


def instance(
    id: str, *, group: str = "cloud/group", used: int = 0, tasks: tuple[str, ...] = ()
) -> InstanceRecord:
    """Return a record of an instance."""
    return InstanceRecord(group, id, f"incarnation of {id}", NOW, used, tasks)


def operation(id: str, count: int = 1, *, group: str = "cloud/group") -> OperationRecord:
    """Return a record of an operation."""
    return OperationRecord(group, id, count, NOW)


async def test_a_new_store_is_empty(store: Store) -> None:
    """The first holder finds nothing."""
    loaded = await store.load()
    assert loaded.records == ()


async def test_what_was_committed_is_loaded(store: Store) -> None:
    """Records of every kind come back as they were, to the microsecond."""
    records = (instance("i-1", used=3, tasks=("a", "ü b")), operation("op", 7))
    await store.commit((await store.load()).epoch, records, ())
    assert set((await store.load()).records) == set(records)


async def test_an_instance_without_incarnation_is_kept_as_such(store: Store) -> None:
    """None is a value of its own, different from an empty text."""
    record = InstanceRecord("cloud/group", "i-1", None, NOW, 0, ())
    await store.commit((await store.load()).epoch, [record], ())
    assert (await store.load()).records == (record,)


async def test_a_record_replaces_the_one_of_its_key(store: Store) -> None:
    """Only the newest record of a key is kept."""
    epoch = (await store.load()).epoch
    await store.commit(epoch, [instance("i-1", used=1)], ())
    await store.commit(epoch, [instance("i-1", used=2)], ())
    assert (await store.load()).records == (instance("i-1", used=2),)


async def test_keys_differ_by_kind_and_group(store: Store) -> None:
    """An instance and an operation of one name, and instances of two groups, are four things."""
    records = (
        instance("x"),
        operation("x"),
        instance("x", group="other"),
        operation("x", group="other"),
    )
    await store.commit((await store.load()).epoch, records, ())
    assert set((await store.load()).records) == set(records)


async def test_dropping_forgets(store: Store) -> None:
    """A dropped key is gone, and the others stay."""
    epoch = (await store.load()).epoch
    await store.commit(epoch, [instance("i-1"), instance("i-2")], ())
    await store.commit(epoch, (), [instance("i-1").key])
    assert (await store.load()).records == (instance("i-2"),)


async def test_dropping_what_is_not_there_is_no_error(store: Store) -> None:
    """Unknown keys are ignored, and a commit can be repeated."""
    epoch = (await store.load()).epoch
    for _ in range(2):
        await store.commit(epoch, [instance("i-1")], [operation("never").key])
    assert (await store.load()).records == (instance("i-1"),)


async def test_an_empty_commit_is_legal(store: Store) -> None:
    """A commit of nothing does nothing."""
    epoch = (await store.load()).epoch
    await store.commit(epoch, (), ())
    assert (await store.load()).records == ()


async def test_each_load_has_a_larger_epoch(store: Store) -> None:
    """Epochs grow, also when nothing is committed between."""
    epochs = [(await store.load()).epoch for _ in range(3)]
    assert epochs == sorted(set(epochs))


async def test_the_former_holder_is_fenced(store: Store) -> None:
    """After another load, a commit under the old epoch raises and writes nothing, for ever."""
    old = (await store.load()).epoch
    await store.commit(old, [instance("i-1")], ())
    new = (await store.load()).epoch
    for _ in range(2):
        with pytest.raises(Fenced) as caught:
            await store.commit(old, [instance("i-2")], [instance("i-1").key])
        assert isinstance(caught.value, StoreError)
    await store.commit(new, [instance("i-3")], ())
    assert set((await store.load()).records) == {instance("i-1"), instance("i-3")}


async def test_an_epoch_of_the_future_is_refused_too(store: Store) -> None:
    """Only the newest epoch may commit, not every larger number."""
    epoch = (await store.load()).epoch
    with pytest.raises(Fenced):
        await store.commit(epoch + 1, [instance("i-1")], ())


async def test_many_records_are_one_commit(store: Store) -> None:
    """Ten thousand records are taken in one go and come back complete."""
    records = [instance(f"i-{number}") for number in range(10_000)]
    epoch = (await store.load()).epoch
    await store.commit(epoch, records, ())
    await store.commit(epoch, (), [record.key for record in records[:5_000]])
    assert set((await store.load()).records) == set(records[5_000:])


async def test_what_was_loaded_does_not_change(store: Store) -> None:
    """A loaded value is a picture of its moment, whatever is committed later."""
    epoch = (await store.load()).epoch
    await store.commit(epoch, [instance("i-1")], ())
    loaded = await store.load()
    await store.commit(loaded.epoch, [instance("i-2")], [instance("i-1").key])
    assert loaded.records == (instance("i-1"),)
