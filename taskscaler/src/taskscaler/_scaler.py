"""Taskscaler: the scaler as its user sees it.

The body of the `async with` and the core runner are tasks of one group, so a failure
of the runner cancels the body. On leaving, the core is asked to shut down, and the
runner goes on until nothing is left, but not longer than a deadline. Then, in this
order: the runner ends, the remaining claims are abandoned, the history is written,
and all connections are closed.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping
from contextlib import AsyncExitStack, ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio

import fleeting
from fleeting.errors import ConfigError
from fleeting.types import ConnectorSettings
from taskscaler import _summaries
from taskscaler._arguments import check_arguments, check_key, check_timeout, check_type
from taskscaler._errors import (
    AcquisitionLost,
    DrainTimeout,
    IllegalEvent,
    InstancesLeft,
    NoCapacity,
    ScalerClosed,
    StoreError,
)
from taskscaler._slots import Slots
from taskscaler.core import ScalerState, Settings, TaskStatus, counted, effects, events, records
from taskscaler.runtime.connections import Connections
from taskscaler.runtime.driver import CoreRunner, only_error
from taskscaler.runtime.explanations import explain_task
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
    from taskscaler.core import Decision, Record, Standing
    from taskscaler.storage import Store

__all__ = ("Taskscaler",)

logger = logging.getLogger("taskscaler")

DEFAULT_ACQUIRE_TIMEOUT = timedelta(minutes=15)

# How many foreign instances the message about them names.
FOREIGN_SHOWN = 10

# The records of the scaler itself; all others are its user's.
OWN_RECORDS = (
    records.InstanceRecord,
    records.OperationRecord,
    records.TombstoneRecord,
    records.GroupRecord,
    records.ThrottleRecord,
    records.ConnectRecord,
)


class Taskscaler:
    """Keeps as many instances as the tasks need, and gives each task a slot on one.

    Use it as an async context manager, once. On leaving, even after an exception or a
    cancellation, it accepts no more tasks, revokes all slots that are still held, and
    removes the instances if the settings say so. That takes at most the settings'
    `shutdown_timeout`, then up to 10 seconds to write the history and 5 to close the
    connections. A cancellation does not cut it short. Only a failing
    store raises an exception inside the scaler; it cancels the body and comes out of the
    `async with`, and the instances stay.

    Args:
        groups: opened groups, in order of preference.
        settings: the operator's.
        store: keeps what must survive a restart; in memory by default. Stays open.
        connector: the operator's settings for connections: for all groups, or by the
            id of each group. A group that is missing there has none.
        connect: makes a connection; for tests.
        purpose: names this process in the locks of the groups, for the message that refuses
            another process.

    Raises:
        TypeError: an argument has the wrong type.
        IllegalEvent: two groups have the same id, there is no group, or `connector`
            names an id that no group has; on entering, it was entered before.
        GroupHeld: on entering, another scaler or command changes the size of a group.
        ConfigError: on entering, the lock of a group cannot be created, or another event
            loop than asyncio runs and `connect` is not given.
        StoreError: on entering, the store cannot be read; inside, not written.
        InstancesLeft: on leaving, instances could not be removed in time. If the body
            raised an exception, that one is raised, with this as a note.
    """

    def __init__(
        self,
        groups: Sequence[InstanceGroup],
        settings: Settings | None = None,
        *,
        store: Store | None = None,
        connector: ConnectorSettings | Mapping[str, ConnectorSettings] | None = None,
        connect: Callable[[ConnectInfo], Awaitable[Connection]] = fleeting.connect,
        purpose: str = "taskscaler",
    ) -> None:
        check_arguments(groups, settings, store)
        # Clouds remember the names of requests, so this must never repeat.
        name = f"taskscaler-{uuid.uuid4().hex[:12]}"
        infos = [group.info for group in groups]
        self._state = ScalerState(infos, settings or Settings(), name=name)
        self._groups = {group.info.id: group for group in groups}
        self._store = store or MemoryStore()
        self._connections = Connections(connect, _settings_by_group(connector, self._groups))
        self._runner = CoreRunner(self._state, self._groups, self._store, self._connections)
        self._slots = Slots(self._runner, self._groups, self._connections)
        self._purpose = purpose
        self._connects_itself = connect is fleeting.connect
        self._locks = ExitStack()
        self._stack = AsyncExitStack()
        self._restored: tuple[Record, ...] = ()
        self._epoch = 0
        self._entered = False
        self._open = False

    async def __aenter__(self) -> Self:
        if self._entered:
            raise IllegalEvent("a scaler can be entered only once; create another one")
        self._entered = True
        if self._connects_itself:
            _require_asyncio()
        async with AsyncExitStack() as stack:
            stack.enter_context(self._locks)
            for group in self._groups.values():
                if not group.info.private:
                    self._locks.enter_context(fleeting.driving(group.info.id, self._purpose))
            loaded = await self._store.load()
            self._epoch = loaded.epoch
            self._restored = tuple(
                one for one in loaded.records if not isinstance(one, OWN_RECORDS)
            )
            self._runner.restore(loaded.records)
            tasks = await stack.enter_async_context(anyio.create_task_group())
            tasks.start_soon(self._runner.run, loaded.epoch)
            self._stack = stack.pop_all()
        self._open = True
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        left = None if self._runner.failed else await self._shut_down()
        self._runner.stop()
        if left is not None:
            logger.error("%s", left)
            if exc_value is not None:
                exc_value.add_note(str(left))
        try:
            await self._stack.__aexit__(exc_type, exc_value, traceback)
        except BaseExceptionGroup as errors:
            # The body's own exception propagates as it is, and the runner's alone.
            error = _cause(errors, failed=self._runner.failed)
            if error is not exc_value:
                raise error from error.__cause__
        finally:
            await self._close()
        if left is not None and exc_value is None:
            raise left

    async def _shut_down(self) -> InstancesLeft | None:
        """Wait until the core has shut down; return what could not be removed."""
        settings = self._state.settings
        began = anyio.current_time()
        with anyio.CancelScope(shield=True):
            self._runner.post(events.ShutdownAsked(settings.delete_instances_on_shutdown))
            with anyio.move_on_after(settings.shutdown_timeout.total_seconds()):
                await self._runner.ended.wait()
        if self._runner.failed or not settings.delete_instances_on_shutdown:
            return None
        if leaving := _summaries.leaving(self._state):
            logger.warning(
                "the cloud has begun to remove %s and has not ended it within %s; no further "
                "request is needed, but a hook of the cloud may hold it up",
                ", ".join(leaving),
                settings.shutdown_timeout,
            )
        if foreign := _summaries.foreign(self._state):
            logger.warning(
                "%s that this scaler did not create may cost money: %s%s; see unknown_instances",
                counted(len(foreign), "instance"),
                ", ".join(foreign[:FOREIGN_SHOWN]),
                ", ..." if len(foreign) > FOREIGN_SHOWN else "",
            )
        ids = [f"{one.group}/{one.id}" for one in _summaries.removable(self._state)]
        expected = self._state.expected
        if not ids and not expected:
            return None
        return InstancesLeft(ids, expected, timedelta(seconds=anyio.current_time() - began))

    async def _close(self) -> None:
        self._open = False
        self._runner.claims.abandon("the scaler was closed")
        for claim in self._runner.claims:
            self._runner.history.add(claim.entry())
        with anyio.CancelScope(shield=True):
            if not self._runner.failed:
                try:
                    await self._runner.history.write(self._epoch)
                except StoreError as error:
                    logger.warning("the last part of the history is missing: %s", error)
            await self._connections.aclose()

    # The operations of a user.

    def reserve(self, key: str) -> None:
        """Reserve a slot before a task exists, until `acquire` or `unreserve`.

        Args:
            key: names the task that may come; unique among all tasks.

        Raises:
            NoCapacity: the reservation is refused; the message says why.
            ScalerClosed: the scaler is not open, or is shutting down.
            IllegalEvent: the key is in use.
        """
        self._check_open()
        check_key(key)
        for effect in self._runner.post(events.TaskReserved(key)):
            if isinstance(effect, effects.Refuse):
                raise (ScalerClosed if self._state.refusing else NoCapacity)(effect.why)

    def unreserve(self, key: str) -> None:
        """Give back a reservation that no task has used.

        Raises:
            IllegalEvent: there is no reservation with that key.
        """
        self._runner.post(events.TaskUnreserved(key))

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
            AcquisitionLost: the instance was lost before the body ended.
            AcquisitionSuspended: the task was suspended; `resume` continues it.
            IllegalEvent: on entering, the key is in use.
        """
        self._check_open()
        check_key(key)
        check_timeout(timeout)
        return self._slots.hold(key, timeout)

    async def suspend(self, key: str) -> None:
        """Suspend a task: cancel its body, but keep its slot and its instance.

        Its `acquire` raises `AcquisitionSuspended`, even if the body ends before the
        cancellation reaches it. The instance is stopped when no other task runs on it.
        Returns when the body has ended and the store has confirmed it. When cancelled,
        the task is suspended nevertheless. Called from the body itself, it does not return.

        Args:
            key: of a task that holds a slot.

        Raises:
            NotSuspendable: its group cannot suspend instances; nothing has changed.
            AcquisitionLost: its instance was lost before its body had ended.
            IllegalEvent: it holds no slot.
            ScalerClosed: the scaler is not open.
        """
        self._check_open()
        await self._slots.suspend(key)

    def resume(
        self, key: str, *, timeout: timedelta | None = DEFAULT_ACQUIRE_TIMEOUT
    ) -> AbstractAsyncContextManager[Acquisition]:
        """Return a context manager in which a suspended task holds its slot again.

        Entering waits until the instance runs and is ready. A cancellation or a
        timeout while waiting leaves the task suspended, to be resumed another time.

        Args:
            key: of a suspended task, also one of a previous process.
            timeout: how long to wait; None waits for ever.

        Raises:
            AcquireTimeout: on entering, it was not ready in time, or its instance could not be
                reached; the message says why, and the task stays suspended.
            ScalerClosed: on entering, the scaler takes no more tasks; it stays suspended.
            AcquisitionLost: the instance is gone, and everything on it.
            AcquisitionSuspended: the task was suspended again.
            IllegalEvent: on entering, no task with that key is suspended.
        """
        self._check_open()
        check_key(key)
        check_timeout(timeout)
        return self._slots.hold(key, timeout, resumed=True)

    def release(self, key: str) -> None:
        """Give up a suspended task for good, and its slot.

        Raises:
            IllegalEvent: no task with that key is suspended, or it is being resumed.
            ScalerClosed: the scaler is not open.
        """
        self._check_open()
        self._runner.post(events.SuspendedTaskDropped(key))

    def suspended(self) -> tuple[SuspendedTask, ...]:
        """Return the suspended tasks, the longest suspended first."""
        return _summaries.suspended(self._state)

    async def drain(self, timeout: timedelta | None = None) -> None:
        """Take no new tasks, and wait until no task is left. Idempotent.

        Tasks that wait, have a reservation or run go on; suspended ones stay suspended.
        Draining cannot be undone: a cancellation or a timeout ends only the waiting.

        Args:
            timeout: how long to wait; None waits for ever.

        Raises:
            DrainTimeout: tasks are left; they go on until the `async with` is left.
            ScalerClosed: the scaler is not open, or ended with tasks left.
        """
        self._check_open()
        check_timeout(timeout)
        self._runner.post(events.DrainAsked())
        seconds = float("inf") if timeout is None else timeout.total_seconds()
        with anyio.move_on_after(seconds):
            await self._runner.wait_until_drained()
            return
        demand, kept = self._state.demand(), self._state.suspended()
        waiting = demand.waiting + sum(one.status is TaskStatus.RESUMING for one in kept)
        held = sum(1 for _ in self._state.held())
        raise DrainTimeout(
            f"after {seconds:g}s of draining, these are left and go on: "
            f"{counted(held, 'task')} with a slot, {waiting} waiting for one, "
            f"{counted(demand.reserved, 'unused reservation')}"
        )

    async def commit(
        self, put: Sequence[Record], drop: Sequence[tuple[str, str, str]] = ()
    ) -> None:
        """Commit records that are not the scaler's own, such as those of jobs.

        They are written in one transaction with the scaler's. Returns when they are
        durable. When cancelled, either all or none of them are written.

        Args:
            put: records, each replacing the one with its key.
            drop: keys of records to delete.

        Raises:
            IllegalEvent: a record is one of the scaler's own.
            ScalerClosed: the scaler is not open, or ended before they were written.
        """
        self._check_open()
        if any(isinstance(one, OWN_RECORDS) for one in put):
            raise IllegalEvent("the scaler itself keeps the records of instances and groups")
        await self._runner.commit(put, drop)

    def abandon(self) -> None:
        """Release the locks of the groups; for a program that ends its process without leaving.

        Instances stay as they are. Idempotent.
        """
        self._locks.close()

    @property
    def restored(self) -> tuple[Record, ...]:
        """Return the records in the store on entering that were not the scaler's own."""
        return self._restored

    def capacity(self) -> Capacity:
        """Return how many instances, slots and tasks there are now."""
        return _summaries.capacity(self._state)

    def instances(self) -> tuple[InstanceSummary, ...]:
        """Return all instances of this scaler; those that are gone come first."""
        return (*self._runner.history.instances, *_summaries.instances(self._state))

    def decisions(self) -> tuple[Decision, ...]:
        """Return the newest scaling decisions, in the order in which they were made."""
        return tuple(self._runner.history.decisions)

    def explain(self, key: str | None = None) -> str:
        """Return in one sentence, with numbers, why tasks are waiting now.

        Args:
            key: of one task: return what it has or why it waits. None is about all tasks.
        """
        return explain_task(self._state, self._runner.claims, key)

    def standing(self) -> Standing:
        """Return the summary of now that `explain` puts into words."""
        return self._state.standing()

    def reconfigure(self, settings: Settings) -> None:
        """Apply other settings at once, without touching any task.

        Raises:
            IllegalEvent: a setting differs that cannot change while the scaler runs;
                the old settings stay in force.
            ScalerClosed: the scaler is not open.
        """
        self._check_open()
        check_type("settings", settings, Settings)
        self._runner.post(events.SettingsChanged(settings))

    def _check_open(self) -> None:
        if not self._open:
            raise ScalerClosed(
                "the scaler is not open; use it inside `async with Taskscaler(...) as scaler:`"
            )


def _require_asyncio() -> None:
    """Refuse another event loop before an instance is bought that could not be reached.

    Raises:
        ConfigError: asyncio is not running.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigError(
            "connections to instances need an asyncio event loop, but another one is running; use "
            'anyio.run(..., backend="asyncio"), or give the scaler a `connect` of your own'
        ) from None


def _settings_by_group(
    connector: ConnectorSettings | Mapping[str, ConnectorSettings] | None,
    groups: Mapping[str, InstanceGroup],
) -> dict[str, ConnectorSettings]:
    """Return the connector settings of each group.

    Raises:
        IllegalEvent: they name a group that does not exist.
    """
    if not isinstance(connector, Mapping):
        return dict.fromkeys(groups, connector or ConnectorSettings())
    unknown = sorted(set(connector) - set(groups))
    if unknown:
        raise IllegalEvent(
            f"connector settings are given for {', '.join(unknown)}, but the groups are "
            f"{', '.join(groups)}"
        )
    return {id: connector.get(id, ConnectorSettings()) for id in groups}


def _cause(errors: BaseExceptionGroup[BaseException], *, failed: bool) -> BaseException:
    """Return the exception that comes out of the block.

    If the runner failed, its tasks were told so. Their exceptions follow from its own, and
    are left out.
    """
    if failed:
        _, others = errors.split(_follows)
        return errors if others is None else only_error(others)
    return errors.exceptions[0] if len(errors.exceptions) == 1 else errors


def _follows(error: BaseException) -> bool:
    told = (AcquisitionLost, ScalerClosed)
    return isinstance(error, told) or isinstance(error.__cause__, told)
