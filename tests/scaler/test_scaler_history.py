"""The history in the store, the log of decisions, and explanations."""

from __future__ import annotations

import itertools
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.lowlevel import checkpoint
from typing_extensions import override

from fleeting.testing import FakeInstanceGroup, Gate, Reply
from fleeting.types import State
from taskscaler import (
    AcquireTimeout,
    AcquisitionLost,
    Fenced,
    Policy,
    Settings,
    StoreError,
    Taskscaler,
)
from taskscaler.core import Decision, Grant, InstanceRecord, Rule
from taskscaler.runtime import explanations, history
from taskscaler.runtime.claims import Claim
from taskscaler.runtime.history import log_line
from taskscaler.storage import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import tzinfo
    from typing import Self

    from taskscaler.storage import Entry, Picture

pytestmark = pytest.mark.anyio

LAZY = Policy(idle_time=timedelta(hours=10))
ONE = Settings(policy=LAZY, max_instances=1)


class NotedStore(MemoryStore):
    """A store that counts notes, and can fail or hang."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[tuple[float, Sequence[Entry], Picture | None]] = []
        self.error: Exception | None = None
        self.hangs = False

    @override
    async def note(
        self, epoch: int, entries: Sequence[Entry], picture: Picture | None = None
    ) -> None:
        await checkpoint()
        if self.error is not None:
            raise self.error
        if self.hangs:
            await anyio.sleep_forever()
        self.notes.append((anyio.current_time(), entries, picture))
        await super().note(epoch, entries, picture)


async def outcomes(store: MemoryStore) -> dict[str, tuple[str, str, str]]:
    """Return the outcome of each task, with its instance and the reason."""
    remembered = await store.recall()
    return {one.key: (one.outcome, one.instance, one.reason) for one in remembered.tasks}


async def test_the_outcome_of_each_task_is_noted() -> None:
    """Released, lost, timed out, cancelled, refused: with instance and reason, in order."""
    group, store = FakeInstanceGroup(), MemoryStore()
    async with Taskscaler([group], ONE, store=store, connect=group.connect) as scaler:
        async with scaler.acquire("good"):
            with pytest.raises(AcquireTimeout):
                async with scaler.acquire("late", timeout=timedelta(seconds=5)):
                    pytest.fail("the body must not run")
            with anyio.move_on_after(5):
                async with scaler.acquire("cancelled"):
                    pytest.fail("the body must not run")
        with pytest.raises(AcquisitionLost):
            async with scaler.acquire("lost") as acquisition:
                group.set_state(acquisition.instance, State.FAILED, "its disk died")
                await anyio.sleep_forever()
        await scaler.drain()
        with pytest.raises(Exception, match="drained"):
            async with scaler.acquire("refused"):
                pytest.fail("the body must not run")
    told = await outcomes(store)
    assert told["good"] == ("released", "i-1", "")
    assert told["lost"] == ("lost", "i-1", "its disk died")
    assert told["cancelled"] == ("cancelled", "", "")
    assert told["late"][0] == "timed out"
    assert "1 slot in use" in told["late"][2]
    assert told["refused"][0] == "refused"
    remembered = await store.recall()
    good = next(one for one in remembered.tasks if one.key == "good")
    assert good.group == "fake/group"
    assert good.granted_at is not None
    assert good.asked_at is not None
    assert good.asked_at <= good.granted_at <= good.ended_at


async def test_a_task_that_ran_when_its_process_was_killed_is_noted_as_lost() -> None:
    """The next scaler on the store notes it, once: no time of it is known."""
    group, store = FakeInstanceGroup(), MemoryStore()
    held = InstanceRecord("fake/group", "i-9", None, datetime.now(UTC), 1, ("killed",))
    store.records[held.key] = held
    for _ in range(2):
        async with Taskscaler([group], ONE, store=store, connect=group.connect):
            await anyio.sleep(5)
    (found,) = (await store.recall()).tasks
    assert (found.key, found.outcome, found.instance) == ("killed", "lost", "i-9")
    assert "the scaler stopped unexpectedly" in found.reason
    assert found.asked_at is None


async def test_a_slot_that_is_held_at_the_end_is_noted_as_lost() -> None:
    """It is in the last note, whose picture shows no task any more."""
    group, store = FakeInstanceGroup(), MemoryStore()
    scaler = Taskscaler([group], ONE, store=store, connect=group.connect)

    async def hold() -> None:
        with pytest.raises(AcquisitionLost):
            async with scaler.acquire("a"):
                await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks, scaler:
        tasks.start_soon(hold)
        while not scaler.capacity().slots_used:
            await anyio.sleep(1)
    assert (await outcomes(store))["a"] == ("lost", "i-1", "the scaler was closed")


async def test_decisions_are_noted_and_logged_with_all_inputs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The store has all that `decisions()` returns; a line of the log has the inputs."""
    group, store = FakeInstanceGroup(), MemoryStore()
    with caplog.at_level(logging.INFO, "taskscaler"):
        async with Taskscaler([group], Settings(), store=store, connect=group.connect) as scaler:
            async with scaler.acquire("a"):
                pass
            await group.until(lambda: group.size == 0)
    remembered = await store.recall()
    assert remembered.decisions == scaler.decisions()
    assert [one.decided for one in remembered.decisions if one.decided] == [1, -1]
    lines = [one.getMessage() for one in caplog.records if "scaling decision" in one.getMessage()]
    assert len(lines) == len(remembered.decisions)
    (line,) = [one for one in lines if "decided=1" in one]
    for word in ("group=fake/group", 'rule="tasks wait for slots"', "pending=1"):
        assert word in line
    (decision,) = [one for one in remembered.decisions if one.decided == 1]
    for name, value in decision.demand.inputs.items():
        assert f" {name}={value}" in line


def test_programs_can_parse_a_line_of_the_log() -> None:
    """Values that are not one word are quoted, with quotes and line ends escaped."""
    group = FakeInstanceGroup()
    demand = Taskscaler([group], connect=group.connect)._state.demand()
    now = datetime(2026, 3, 1, tzinfo=UTC)
    decision = Decision(now, "a=b", Rule.IDLE, 0, 0, 'the "cloud"\nsays no', demand)
    line = log_line(decision)
    assert line.startswith('group="a=b" rule="idle for longer than the policy allows" wanted=0')
    assert 'clamped_by="the \\"cloud\\"\\nsays no"' in line
    assert line.endswith('detail=""')
    assert "\n" not in line


async def test_notes_are_written_at_most_once_a_second() -> None:
    """Two hundred tasks in eight seconds cause a few notes, an idle scaler none."""
    group, store = FakeInstanceGroup(), NotedStore()
    async with Taskscaler([group], ONE, store=store, connect=group.connect) as scaler:
        for number in range(200):
            async with scaler.acquire(str(number)):
                await anyio.sleep(0.04)
        await anyio.sleep(10)
        before = len(store.notes)
        await anyio.sleep(3600)
        assert len(store.notes) == before
    times = [time for time, _, _ in store.notes]
    pauses = [later - one for one, later in itertools.pairwise(times)]
    # The last one is written on leaving.
    assert min(pauses[:-1]) > 0.999
    assert len(times) < 20
    assert len(await outcomes(store)) == 200


async def test_the_picture_shows_waiting_tasks_and_slots_in_use() -> None:
    """In the order of the queue, with the times; at the end it is empty."""
    group, store = FakeInstanceGroup(), MemoryStore()
    before = datetime.max.replace(tzinfo=UTC)
    async with Taskscaler([group], ONE, store=store, connect=group.connect) as scaler:
        async with scaler.acquire("holder"), anyio.create_task_group() as tasks:

            async def wait(key: str) -> None:
                with anyio.move_on_after(60):
                    async with scaler.acquire(key):
                        pytest.fail("the body must not run")

            for key in ("first", "second"):
                tasks.start_soon(wait, key)
                while "not known" in scaler.explain(key):
                    await checkpoint()
            await anyio.sleep(2)
            picture = (await store.recall()).picture
            assert picture is not None
            assert picture.held == (("holder", "fake/group", "i-1"),)
            assert [key for key, _ in picture.waiting] == ["first", "second"]
            assert all(since <= picture.at for _, since in picture.waiting)
            assert picture.standing.demand.waiting == 2
            before = picture.at
    last = (await store.recall()).picture
    assert last is not None
    assert (last.held, last.waiting) == ((), ())
    assert last.at > before


async def test_a_picture_of_too_many_tasks_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """It lists only the first tasks; the numbers count all of them."""
    monkeypatch.setattr(history, "KEYS", 3)
    group, store, gate = FakeInstanceGroup(), MemoryStore(), Gate()
    group.script("increase", Reply(before=gate))
    async with (
        Taskscaler([group], ONE, store=store, connect=group.connect) as scaler,
        anyio.create_task_group() as tasks,
    ):

        async def run(key: str) -> None:
            async with scaler.acquire(key):
                pass

        for number in range(5):
            tasks.start_soon(run, str(number))
        await gate.reached()
        await anyio.sleep(2)
        picture = (await store.recall()).picture
        assert picture is not None
        assert len(picture.waiting) == 3
        assert picture.standing.demand.waiting == 5
        gate.open()


async def test_a_store_that_fails_to_take_notes_does_not_stop_the_scaler(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An hour of failures is logged once; afterwards notes are written again."""
    group, store = FakeInstanceGroup(), NotedStore()
    store.error = StoreError("the disk is full")
    async with Taskscaler([group], ONE, store=store, connect=group.connect) as scaler:
        for key in "abc":
            async with scaler.acquire(key):
                await anyio.sleep(5)
        store.error = None
        async with scaler.acquire("d"):
            pass
        await anyio.sleep(2)
        store.error = StoreError("the disk is full")
        async with scaler.acquire("e"):
            pass
    gaps = [one for one in caplog.messages if "history has a gap" in one]
    assert gaps == ["the history has a gap from here: the disk is full"] * 2
    assert "d" in await outcomes(store)


async def test_a_store_that_hangs_with_a_note_does_not_stop_tasks() -> None:
    """Tasks get slots meanwhile, and leaving takes only a little longer."""
    group, store = FakeInstanceGroup(), NotedStore()
    store.hangs = True
    async with Taskscaler([group], ONE, store=store, connect=group.connect) as scaler:
        before = anyio.current_time()
        for key in "abc":
            async with scaler.acquire(key):
                pass
        assert anyio.current_time() - before < history.WRITE_SECONDS
        before = anyio.current_time()
    assert anyio.current_time() - before <= 2 * history.WRITE_SECONDS


async def test_a_fenced_note_ends_the_scaler() -> None:
    """A scaler that learns from a note that it was replaced stops too."""
    group, store = FakeInstanceGroup(), NotedStore()
    with pytest.raises(Fenced, match="took over"):
        async with Taskscaler([group], ONE, store=store, connect=group.connect) as scaler:
            async with scaler.acquire("a"):
                store.error = Fenced("another one took over")
                await anyio.sleep_forever()
    assert group.connector.connections == []


# Explanations of one task.


async def test_explain_describes_one_task() -> None:
    """Unknown, reserved, waiting, holding, lost: one sentence for each."""
    group, store = FakeInstanceGroup(), MemoryStore()
    async with Taskscaler([group], ONE, store=store, connect=group.connect) as scaler:
        assert "is not known here" in scaler.explain("a")
        scaler.reserve("a")
        assert "has a reservation" in scaler.explain("a")
        with pytest.raises(AcquisitionLost):
            async with scaler.acquire("a"), anyio.create_task_group() as tasks:
                assert "holds slot 0 of instance i-1 of fake/group since 20" in scaler.explain("a")

                async def wait(key: str) -> None:
                    with anyio.move_on_after(30):
                        async with scaler.acquire(key):
                            pytest.fail("the body must not run")

                tasks.start_soon(wait, "first")
                await anyio.sleep(10)
                tasks.start_soon(wait, "second")
                await anyio.sleep(10)
                assert "is number 1 of 2" in scaler.explain("first")
                assert "is number 2 of 2" in scaler.explain("second")
                assert "1 of at most 1 instance" in scaler.explain("second")
                group.vanish("i-1")
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(600)
                    assert "and lost it: it is no longer listed" in scaler.explain("a")
                await checkpoint()
        assert "is not known here" in scaler.explain("a")


async def test_tasks_that_time_out_in_a_long_queue_do_not_search_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Searching the queue for each of them would take quadratic time."""
    monkeypatch.setattr(explanations, "LONG_QUEUE", 1)
    group = FakeInstanceGroup(max_size=0)
    told: list[str] = []

    async def wait(key: str) -> None:
        with pytest.raises(AcquireTimeout) as caught:
            async with scaler.acquire(key, timeout=timedelta(minutes=1)):
                pytest.fail("the body must not run")
        told.append(str(caught.value))

    async with Taskscaler([group], connect=group.connect) as scaler:
        async with anyio.create_task_group() as tasks:
            for key in "ab":
                tasks.start_soon(wait, key)
    assert "s: 2 tasks wait for a slot: 0 slots in use" in told[0]
    assert "is number 1 of 1 in the queue" in told[1]


async def test_lengths_do_not_follow_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the clock is set back by an hour, the history still has how long a task took."""

    class Set(datetime):
        back = timedelta()

        @classmethod
        @override
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls.fromtimestamp((datetime.now(tz) - cls.back).timestamp(), tz)

    monkeypatch.setattr("taskscaler.runtime.claims.datetime", Set)
    monkeypatch.setattr("taskscaler.runtime.history.datetime", Set)
    monkeypatch.setattr(Set, "back", timedelta())
    claim = Claim("a")
    before = claim.asked_when(Set.now(UTC))
    assert before == claim.asked_at
    Set.back = timedelta(hours=1)
    await anyio.sleep(2)
    assert abs(claim.asked_when(Set.now(UTC)) - (before - Set.back)) < timedelta(seconds=5)
    claim.deliver(Grant("a", "g", "i", 0))
    await anyio.sleep(3)
    entry = claim.entry()
    assert entry.granted_at is not None
    assert entry.asked_at is not None
    assert timedelta(0) < entry.granted_at - entry.asked_at < timedelta(minutes=1)
    assert timedelta(0) < entry.ended_at - entry.granted_at < timedelta(minutes=1)
