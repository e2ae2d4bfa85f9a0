"""Taskscaler: what a user sees, around the driver of the core.

A task that asks for a slot is a claim. Its answer comes from the driver, in its
own time; the claim is given back in whatever way the task ends, and that does
not await, so a cancellation at any point leaves nothing behind.

The body of the `async with` and the driver are tasks of one group, so that a
failing driver cancels the body. On leaving, the core is asked to shut down and
the driver goes on until nothing is left, with a deadline; then, in this order,
the driver ends, those who still claim a slot from elsewhere are told, and all
connections are closed.
"""

from __future__ import annotations

import logging
import uuid
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio

import fleeting
from fleeting.types import ConnectorSettings
from taskscaler._claims import Claim
from taskscaler._connections import Connections
from taskscaler._driver import Driver
from taskscaler.acquisition import Acquisition
from taskscaler.core import effects, events
from taskscaler.core.explain import explain
from taskscaler.core.settings import Settings
from taskscaler.core.state import ScalerState
from taskscaler.errors import (
    AcquireTimeout,
    AcquisitionLost,
    IllegalEvent,
    InstancesLeft,
    NoCapacity,
    ScalerClosed,
)
from taskscaler.storage import MemoryStore
from taskscaler.summaries import Capacity, InstanceSummary

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
    from types import TracebackType
    from typing import Self

    from fleeting.abc import Connection, InstanceGroup
    from fleeting.types import ConnectInfo
    from taskscaler.core.decisions import Decision
    from taskscaler.storage import Store

__all__ = ("Taskscaler",)

logger = logging.getLogger("taskscaler")

DEFAULT_ACQUIRE_TIMEOUT = timedelta(minutes=15)


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
        self._stack = AsyncExitStack()
        self._entered = False
        self._open = False

    async def __aenter__(self) -> Self:
        if self._entered:
            raise IllegalEvent("a scaler is entered only once; make another one")
        self._entered = True
        loaded = await self._store.load()
        self._driver.post(events.RecordsRestored(loaded.records))
        self._driver.post(events.TimePassed())
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
            error = errors.exceptions[0] if len(errors.exceptions) == 1 else errors
            if error is not exc_value:
                raise error from error.__cause__
        finally:
            await self._close()
        if left is not None and exc_value is None:
            raise left

    async def _shut_down(self) -> InstancesLeft | None:
        """Let the core finish; return what could not be removed."""
        settings = self._state.settings
        with anyio.CancelScope(shield=True):
            self._driver.post(events.ShutdownAsked(settings.delete_instances_on_shutdown))
            with anyio.move_on_after(settings.shutdown_timeout.total_seconds()):
                await self._driver.ended.wait()
        if self._state.finished or self._driver.failed:
            return None
        ids = [f"{one.group}/{one.id}" for one in self.instances() if one.removed_at is None]
        expected = sum(group.unseen for group in self._state.groups.values())
        return InstancesLeft(ids, expected, settings.shutdown_timeout)

    async def _close(self) -> None:
        self._open = False
        self._driver.abandon_claims("the scaler was closed")
        with anyio.CancelScope(shield=True):
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
                raise (ScalerClosed if self._state.closing else NoCapacity)(effect.why)

    def unreserve(self, key: str) -> None:
        """Give a reservation back that no task has used.

        Raises:
            IllegalEvent: there is none of that key.
        """
        self._driver.post(events.TaskUnreserved(key))

    @asynccontextmanager
    async def acquire(
        self, key: str, *, timeout: timedelta | None = DEFAULT_ACQUIRE_TIMEOUT
    ) -> AsyncGenerator[Acquisition]:
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
            IllegalEvent: on entering, the key is in use.
        """
        claim = Claim(key)
        acquisition = await self._wait_for_slot(claim, timeout)
        scope = claim.scope = anyio.CancelScope()
        try:
            with scope:
                yield acquisition
        except Exception as error:
            # What fails because the instance is lost is told as what it is.
            if claim.lost is None:
                raise
            raise AcquisitionLost(acquisition.instance, claim.lost) from error
        finally:
            self._give_back(claim)
        if scope.cancelled_caught:
            raise AcquisitionLost(acquisition.instance, claim.lost or "it was given up")

    def capacity(self) -> Capacity:
        """Return how much there is of everything now."""
        standing = self._state.standing()
        demand = standing.demand
        return Capacity(
            instances=standing.lives,
            slots_used=demand.acquired,
            slots_total=demand.acquired + demand.free + demand.unavailable,
            waiting=demand.waiting,
            reserved=demand.reserved,
        )

    def instances(self) -> tuple[InstanceSummary, ...]:
        """Return all instances of this scaler, the bygone ones first."""
        live = (
            InstanceSummary(
                one.id,
                one.group,
                one.created_at,
                one.ready_at,
                None,
                one.reason or None,
                one.used,
            )
            for group in self._state.groups.values()
            for one in group.ours()
        )
        return (*self._driver.history, *live)

    def decisions(self) -> tuple[Decision, ...]:
        """Return the newest scaling decisions, the oldest of them first."""
        return tuple(self._driver.decisions)

    def explain(self) -> str:
        """Return in one sentence, with numbers, why tasks are waiting now."""
        return explain(self._state.standing())

    def reconfigure(self, settings: Settings) -> None:
        """Put other settings in force, at once and without touching any task.

        Raises:
            IllegalEvent: something differs that cannot change while the scaler runs;
                the old settings stay in force.
            ScalerClosed: the scaler is not open.
        """
        self._check_open()
        self._driver.post(events.SettingsChanged(settings))

    # Claims.

    def _check_open(self) -> None:
        if not self._open:
            raise ScalerClosed("the scaler is not open; use it inside its `async with`")

    async def _wait_for_slot(self, claim: Claim, timeout: timedelta | None) -> Acquisition:
        self._check_open()
        self._ask(claim)
        seconds = float("inf") if timeout is None else timeout.total_seconds()
        try:
            with anyio.move_on_after(seconds):
                await claim.answered.wait()
        except BaseException:
            self._give_back(claim)
            raise
        grant = claim.grant
        if grant is None:
            why = self._why_no_slot(claim)
            self._give_back(claim)
            if claim.refusal is not None:
                raise ScalerClosed(f"task {claim.key!r} got no slot: {why}")
            raise AcquireTimeout(f"no slot came free within {seconds:g}s: {why}")
        if claim.lost is not None:
            self._give_back(claim)
            raise AcquisitionLost(grant.id, claim.lost)
        return Acquisition(
            claim,
            grant,
            driver=self._driver,
            group=self._groups[grant.group],
            connections=self._connections,
        )

    def _ask(self, claim: Claim) -> None:
        claims, key = self._driver.claims, claim.key
        previous, claims[key] = claims.get(key), claim
        try:
            self._driver.post(events.TaskAsked(key))
        except BaseException:
            # Refused: the key belongs to another task.
            del claims[key]
            if previous is not None:
                claims[key] = previous
            raise

    def _why_no_slot(self, claim: Claim) -> str:
        if claim.refusal is not None:
            return claim.refusal
        if self._driver.holds(claim):
            return "one was found, but the store has not confirmed it yet"
        return self.explain()

    def _give_back(self, claim: Claim) -> None:
        """End a claim, whatever has become of it; the core knows. Idempotent."""
        if self._driver.claims.get(claim.key) is not claim:
            return
        del self._driver.claims[claim.key]
        if claim.key in self._state.tasks.waiting:
            self._driver.post(events.TaskCancelled(claim.key))
        elif claim.key in self._state.tasks.held:
            self._driver.post(events.TaskReleased(claim.key))
