"""Taskscaler: what a user sees, around the driver of the core.

A task that asks for a slot is a claim (`_claims.py`). Its answer comes from the
driver, in its own time; the claim is given back in whatever way the task ends,
and that does not await, so a cancellation at any point leaves nothing behind.

The body of the `async with` and the driver are tasks of one group, so that a
failing driver cancels the body. On leaving, the core is asked to shut down and
the driver goes on until nothing is left, with a deadline; then, in this order,
the driver ends, those who still claim a slot from elsewhere are told, what has
happened is noted, and all connections are closed.
"""

from __future__ import annotations

import logging
import uuid
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio

import fleeting
from fleeting.types import ConnectorSettings
from taskscaler import _summaries
from taskscaler._errors import (
    AcquisitionLost,
    DrainTimeout,
    IllegalEvent,
    InstancesLeft,
    NoCapacity,
    ScalerClosed,
    StoreError,
)
from taskscaler.core import ScalerState, Settings, TaskStatus, effects, events, records
from taskscaler.runtime.claims import Claim, Claims
from taskscaler.runtime.connections import Connections
from taskscaler.runtime.driver import Driver, only
from taskscaler.storage import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType
    from typing import Self

    from fleeting.abc import Connection, InstanceGroup
    from fleeting.types import ConnectInfo
    from taskscaler._acquisition import Acquisition
    from taskscaler._summaries import Capacity, InstanceSummary, SuspendedTask
    from taskscaler.core import Decision, Record
    from taskscaler.storage import Store

__all__ = ("Taskscaler",)

logger = logging.getLogger("taskscaler")

DEFAULT_ACQUIRE_TIMEOUT = timedelta(minutes=15)

# Kinds of records that are the core's own, and those that are the shell's.
CORES = (
    records.InstanceRecord,
    records.OperationRecord,
    records.TombstoneRecord,
    records.GroupRecord,
)
SHELLS = (records.ConnectRecord,)


class Taskscaler:
    """Keeps as many instances as the tasks need, and gives each task a slot on one.

    Use it as an async context manager, once. On leaving, also after an exception or
    a cancellation, no more tasks are taken, what still holds a slot loses it, and
    the instances are removed if the settings say so; that takes the settings'
    `shutdown_timeout` at most, and is not cut short by a cancellation. An exception
    inside the machinery, which only a broken store raises, cancels the body and
    comes out of the `async with`; the instances then stay.

    Args:
        groups: opened groups, in order of preference.
        settings: the operator's.
        store: what must survive a restart; in memory by default. Stays open.
        connector: the operator's word on reaching instances.
        connect: makes a connection; for tests.

    Raises:
        IllegalEvent: two groups have one id, or there is none; on entering, it was
            entered before.
        StoreError: on entering, the store cannot be read; inside, not written.
        InstancesLeft: on leaving, instances could not be removed in time. If the body
            raised something itself, that is raised, with this as a note.
    """

    def __init__(
        self,
        groups: Sequence[InstanceGroup],
        settings: Settings | None = None,
        *,
        store: Store | None = None,
        connector: ConnectorSettings | None = None,
        connect: Callable[[ConnectInfo], Awaitable[Connection]] = fleeting.connect,
    ) -> None:
        # Unique for ever, because clouds remember the names of requests.
        name = f"taskscaler-{uuid.uuid4().hex[:12]}"
        infos = [group.info for group in groups]
        self._state = ScalerState(infos, settings or Settings(), name=name)
        self._groups = {group.info.id: group for group in groups}
        self._store = store or MemoryStore()
        self._connections = Connections(connect, connector or ConnectorSettings())
        self._driver = Driver(self._state, self._groups, self._store, self._connections)
        self._claims = Claims(self._driver, self._groups, self._connections)
        self._stack = AsyncExitStack()
        self._restored: tuple[Record, ...] = ()
        self._epoch = 0
        self._entered = False
        self._open = False

    async def __aenter__(self) -> Self:
        if self._entered:
            raise IllegalEvent("a scaler is entered only once; make another one")
        self._entered = True
        loaded = await self._store.load()
        self._epoch = loaded.epoch
        self._restored = tuple(one for one in loaded.records if not isinstance(one, CORES + SHELLS))
        self._driver.restore(loaded.records)
        tasks = await self._stack.enter_async_context(anyio.create_task_group())
        tasks.start_soon(self._driver.run, loaded.epoch)
        self._open = True
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        left = None if self._driver.failed else await self._shut_down()
        self._driver.stop()
        if left is not None:
            logger.error("%s", left)
            if exc_value is not None:
                exc_value.add_note(str(left))
        try:
            await self._stack.__aexit__(exc_type, exc_value, traceback)
        except BaseExceptionGroup as errors:
            # The body's own exception goes on as it is, and the driver's comes out alone.
            error = _cause(errors, failed=self._driver.failed)
            if error is not exc_value:
                raise error from error.__cause__
        finally:
            await self._close()
        if left is not None and exc_value is None:
            raise left

    async def _shut_down(self) -> InstancesLeft | None:
        """Let the core finish; return what could not be removed."""
        settings = self._state.settings
        begun = anyio.current_time()
        with anyio.CancelScope(shield=True):
            self._driver.post(events.ShutdownAsked(settings.delete_instances_on_shutdown))
            with anyio.move_on_after(settings.shutdown_timeout.total_seconds()):
                await self._driver.ended.wait()
        if self._driver.failed or not settings.delete_instances_on_shutdown:
            return None
        ids = [f"{one.group}/{one.id}" for one in _summaries.removable(self._state)]
        expected = self._state.expected
        if not ids and not expected:
            return None
        return InstancesLeft(ids, expected, timedelta(seconds=anyio.current_time() - begun))

    async def _close(self) -> None:
        self._open = False
        self._claims.abandon("the scaler was closed")
        with anyio.CancelScope(shield=True):
            if not self._driver.failed:
                try:
                    await self._driver.history.write(self._epoch)
                except StoreError as error:
                    logger.warning("the last of the history is missing: %s", error)
            await self._connections.aclose()

    # What a user can do.

    def reserve(self, key: str) -> None:
        """Make sure of a slot before a task exists; `acquire` or `unreserve` ends that.

        Args:
            key: names the task that may come; unique among all tasks.

        Raises:
            NoCapacity: it is refused, and the message says why.
            ScalerClosed: the scaler is not open, or is shutting down.
            IllegalEvent: the key is in use.
        """
        self._check_open()
        for effect in self._driver.post(events.TaskReserved(key)):
            if isinstance(effect, effects.Refuse):
                raise (ScalerClosed if self._state.refusing else NoCapacity)(effect.why)

    def unreserve(self, key: str) -> None:
        """Give a reservation back that no task has used.

        Raises:
            IllegalEvent: there is none of that key.
        """
        self._driver.post(events.TaskUnreserved(key))

    def acquire(
        self, key: str, *, timeout: timedelta | None = DEFAULT_ACQUIRE_TIMEOUT
    ) -> AbstractAsyncContextManager[Acquisition]:
        """Return a context manager in which the task holds a slot on a ready instance.

        If the instance is lost, the body is cancelled. A cancellation while waiting
        leaves nothing behind.

        Args:
            key: names the task; unique among all tasks. Uses up its reservation.
            timeout: how long to wait for a slot; None waits for ever.

        Raises:
            AcquireTimeout: on entering, no slot came free in time; the message says why.
            ScalerClosed: on entering, the scaler takes no more tasks.
            AcquisitionLost: the instance was lost; the body did not end by itself.
            AcquisitionSuspended: the task was suspended; `resume` it to go on.
            IllegalEvent: on entering, the key is in use.
        """
        self._check_open()
        return self._claims.hold(Claim(key), timeout)

    async def suspend(self, key: str) -> None:
        """Let a task stop for now: its body is cancelled, its slot and its instance are kept.

        Its `acquire` raises `AcquisitionSuspended`, also if the body ended by itself
        meanwhile. The instance is stopped when no task runs on it any more. Returns
        when the body has ended and the store knows. When cancelled, the task is
        suspended all the same. Called from the body itself, it does not return.

        Args:
            key: of a task that holds a slot.

        Raises:
            NotSuspendable: its group cannot; nothing has changed.
            AcquisitionLost: its instance was lost before its body had ended.
            IllegalEvent: it holds no slot.
            ScalerClosed: the scaler is not open.
        """
        self._check_open()
        await self._claims.suspend(key)

    def resume(
        self, key: str, *, timeout: timedelta | None = DEFAULT_ACQUIRE_TIMEOUT
    ) -> AbstractAsyncContextManager[Acquisition]:
        """Return a context manager in which a suspended task holds its slot again.

        Entering waits until the instance runs and is ready. A cancellation or a
        timeout then leaves the task suspended, to be resumed another time.

        Args:
            key: of a suspended task; also of an earlier life of the scaler.
            timeout: how long to wait; None waits for ever.

        Raises:
            AcquireTimeout: on entering, it was not ready in time; the message says why.
            ScalerClosed: on entering, the scaler takes no more tasks; it stays suspended.
            AcquisitionLost: the instance, and with it what was suspended there, is gone.
            AcquisitionSuspended: the task was suspended again.
            IllegalEvent: on entering, no task of that key is suspended.
        """
        self._check_open()
        return self._claims.hold(Claim(key, resumed=True), timeout)

    def release(self, key: str) -> None:
        """Give up a suspended task for good, and its slot.

        Raises:
            IllegalEvent: no task of that key is suspended, or it is being resumed.
            ScalerClosed: the scaler is not open.
        """
        self._check_open()
        self._driver.post(events.SuspendedTaskDropped(key))

    def suspended(self) -> tuple[SuspendedTask, ...]:
        """Return the tasks that are suspended, the longest suspended first."""
        return _summaries.suspended(self._state)

    async def drain(self, timeout: timedelta | None = None) -> None:
        """Take no new tasks, and wait until none is left; suspended ones stay suspended.

        Tasks that wait, have a reservation or run go on. That no new ones are taken
        cannot be undone, and is not by a cancellation. Idempotent.

        Args:
            timeout: how long to wait; None waits for ever.

        Raises:
            DrainTimeout: tasks are left; they go on until the `async with` is left.
            ScalerClosed: the scaler is not open, or ended with tasks left.
        """
        self._check_open()
        self._driver.post(events.DrainAsked())
        seconds = float("inf") if timeout is None else timeout.total_seconds()
        with anyio.move_on_after(seconds):
            await self._driver.rest()
            return
        demand, kept = self._state.demand(), self._state.suspended()
        waiting = demand.waiting + sum(one.status is TaskStatus.RESUMING for one in kept)
        held = sum(1 for _ in self._state.held())
        raise DrainTimeout(
            f"after {seconds:g}s of draining, {held} tasks hold a slot, "
            f"{waiting} wait for one and {demand.reserved} reservations are not "
            "given back; they go on"
        )

    async def commit(
        self, put: Sequence[Record], drop: Sequence[tuple[str, str, str]] = ()
    ) -> None:
        """Commit records that are not the scaler's own, such as those of jobs.

        They are written together with the scaler's. Returns when they are durable.
        When cancelled, they may or may not have been written, but not by half.

        Args:
            put: records, each replacing the one of its key.
            drop: keys to forget.

        Raises:
            IllegalEvent: a record is the scaler's own.
            ScalerClosed: the scaler is not open, or ended before they were written.
        """
        self._check_open()
        if any(isinstance(one, CORES + SHELLS) for one in put):
            raise IllegalEvent("instances and groups are recorded by the scaler itself")
        await self._driver.commit(put, drop)

    @property
    def restored(self) -> tuple[Record, ...]:
        """Return what the store held on entering that is not the scaler's own."""
        return self._restored

    def capacity(self) -> Capacity:
        """Return how much there is of everything now."""
        return _summaries.capacity(self._state)

    def instances(self) -> tuple[InstanceSummary, ...]:
        """Return all instances of this scaler, the bygone ones first."""
        return (*self._driver.history.instances, *_summaries.instances(self._state))

    def decisions(self) -> tuple[Decision, ...]:
        """Return the newest scaling decisions, the oldest of them first."""
        return tuple(self._driver.history.decisions)

    def explain(self, key: str | None = None) -> str:
        """Return in one sentence, with numbers, why tasks are waiting now.

        Args:
            key: of a task, to be told what it has or why it waits; None asks for all.
        """
        return self._claims.explain(key)

    def reconfigure(self, settings: Settings) -> None:
        """Put other settings in force, at once and without touching any task.

        Raises:
            IllegalEvent: something differs that cannot change while the scaler runs;
                the old settings stay in force.
            ScalerClosed: the scaler is not open.
        """
        self._check_open()
        self._driver.post(events.SettingsChanged(settings))

    def _check_open(self) -> None:
        if not self._open:
            raise ScalerClosed("the scaler is not open; use it inside its `async with`")


def _cause(errors: BaseExceptionGroup[BaseException], *, failed: bool) -> BaseException:
    """Return what is to come out of the block.

    When the machinery has failed, that its tasks were told so is a consequence, and so is
    what they raised because of that.
    """
    if failed:
        _, others = errors.split(_follows)
        return errors if others is None else only(others)
    return errors.exceptions[0] if len(errors.exceptions) == 1 else errors


def _follows(error: BaseException) -> bool:
    told = (AcquisitionLost, ScalerClosed)
    return isinstance(error, told) or isinstance(error.__cause__, told)
