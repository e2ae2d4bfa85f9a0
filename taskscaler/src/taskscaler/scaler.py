"""Taskscaler: the shell around the core.

Nobody but `_post` touches the core's state, and `_post` does not await: an
event is applied the moment it is posted, so no two tasks can be in the middle
of a change, and a caller is refused at once where it asks for the impossible.
What the core answers goes into an outbox. One task, `_dispatch`, empties it:
it commits what must be stored, all that has come together in one commit, and
only then carries the other effects out, each that takes time in a task of its
own. So one slow call delays nothing else, and a slot is handed out only after
the store knows of it.

On leaving, the core is asked to shut down and the same machinery goes on until
nothing is left, shielded, with a deadline.
"""

from __future__ import annotations

import logging
import uuid
from collections import deque
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, cast

import anyio

import fleeting
from fleeting.errors import ConnectorError, InstanceError, NotSupported, TransferFailed
from fleeting.types import ConnectorSettings
from taskscaler import _calls
from taskscaler._connections import Connections
from taskscaler.core import effects, events
from taskscaler.core.explain import explain
from taskscaler.core.settings import Settings
from taskscaler.core.state import ScalerState
from taskscaler.errors import (
    AcquireTimeout,
    AcquisitionLost,
    InstancesLeft,
    NoCapacity,
    ScalerClosed,
)
from taskscaler.storage import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from fleeting.abc import Connection, InstanceGroup
    from fleeting.types import ConnectInfo
    from taskscaler.core.decisions import Decision
    from taskscaler.core.records import Record
    from taskscaler.storage import Store

__all__ = ("Acquisition", "Capacity", "InstanceSummary", "Taskscaler")

logger = logging.getLogger("taskscaler")

# How many decisions and how many bygone instances are remembered.
DECISIONS = 1000
HISTORY = 20_000

DEFAULT_ACQUIRE_TIMEOUT = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Capacity:
    """How much there is of everything at one moment.

    Attributes:
        instances: how many are in each life (`creating`, `preparing`, `ready`,
            `draining`, `removing`, `foreign`).
        slots_used: slots that tasks hold.
        slots_total: slots on instances that serve.
        waiting: tasks that wait for a slot.
        reserved: reservations that no task has used yet.
    """

    instances: Mapping[str, int]
    slots_used: int
    slots_total: int
    waiting: int
    reserved: int


@dataclass(frozen=True, slots=True)
class InstanceSummary:
    """The life of one instance so far.

    Attributes:
        id: its id in its group.
        group: the id of the group.
        created_at: when it was first seen.
        ready_at: when it could first take a task; None if it could not yet.
        removed_at: when it was found gone; None if it is there.
        removal_reason: why it went, or is to go; None as long as it is to stay.
        tasks: how many tasks were started on it.
    """

    id: str
    group: str
    created_at: datetime
    ready_at: datetime | None
    removed_at: datetime | None
    removal_reason: str | None
    tasks: int


class Acquisition:
    """A slot on a ready instance, held by one task.

    Attributes:
        key: the task's.
        instance: the id of the instance.
        group: the id of its group.
        slot: the number of the slot, from 0, unique on the instance while it is held.
    """

    def __init__(self, scaler: Taskscaler, key: str, grant: effects.Grant) -> None:
        self.key = key
        self.instance = grant.id
        self.group = grant.group
        self.slot = grant.slot
        self._scaler = scaler

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[Connection]:
        """Return a context manager with the instance's connection, shared by all its slots.

        It is made anew if it broke before, and is not closed on leaving. If it
        breaks inside, the scaler hears of it: the instance gets no further task
        and is replaced.

        Raises:
            FleetingError: on entering, the instance cannot be reached.
        """
        group = self._scaler._groups[self.group]  # noqa: SLF001 - part of the same class, in effect
        try:
            yield await self._scaler._connections.get(group, self.instance)  # noqa: SLF001 - as above
        except BaseException as error:
            broken = _what_broke(error)
            if broken is not None:
                event = events.InstanceBroke(self.group, self.instance, str(broken))
                self._scaler._post(event)  # noqa: SLF001 - as above
            raise


def _what_broke(error: BaseException) -> BaseException | None:
    """Return what in an exception says that the instance cannot be used, if anything does."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        found = [_what_broke(one) for one in group.exceptions]
        return next((one for one in found if one is not None), None)
    broken = isinstance(error, ConnectorError | InstanceError)
    return error if broken and not isinstance(error, NotSupported | TransferFailed) else None


class _Claim:
    """A task that asks for a slot, from asking to giving it back."""

    def __init__(self) -> None:
        self.answered = anyio.Event()
        self.grant: effects.Grant | None = None
        self.refusal: str | None = None
        self.lost: str | None = None
        self.scope: anyio.CancelScope | None = None

    def deliver(self, effect: effects.Grant | effects.Refuse | effects.Revoke) -> None:
        if isinstance(effect, effects.Grant):
            self.grant = effect
        elif isinstance(effect, effects.Refuse):
            self.refusal = effect.why
        else:
            self.lost = effect.cause
            if self.scope is not None:
                self.scope.cancel()
        self.answered.set()


class Taskscaler:
    """Keeps as many instances as the tasks need, and gives each task a slot on one.

    Use it as an async context manager. On leaving, no more tasks are taken, what
    still holds a slot loses it, and the instances are removed if the settings say
    so. An exception inside a background task, which only a broken store raises,
    cancels the body and comes out of the `async with`.

    Args:
        groups: opened groups, in order of preference.
        settings: the operator's.
        store: what must survive a restart; in memory by default. Stays open.
        connector: the operator's word on reaching instances.
        connect: makes a connection; for tests.

    Raises:
        IllegalEvent: on entering, two groups have one id, or there is none.
        StoreError: on entering, the store cannot be read; inside, not written.
        InstancesLeft: on leaving, instances could not be removed in time.
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
        self._groups = {group.info.id: group for group in groups}
        self._infos = [group.info for group in groups]
        self._settings = settings or Settings()
        self._store = store or MemoryStore()
        self._connections = Connections(connect, connector or ConnectorSettings())
        self._claims: dict[str, _Claim] = {}
        self._outbox: deque[tuple[effects.Effect, _Claim | None]] = deque()
        self._preparing: dict[tuple[str, str], anyio.CancelScope] = {}
        self._decisions: deque[Decision] = deque(maxlen=DECISIONS)
        self._history: deque[InstanceSummary] = deque(maxlen=HISTORY)
        self._wake_at = float("inf")
        self._epoch = 0
        self._closed = False

    async def __aenter__(self) -> Self:
        loaded = await self._store.load()
        self._epoch = loaded.epoch
        # Unique for ever, because clouds remember the names of requests.
        name = f"taskscaler-{uuid.uuid4().hex[:12]}"
        self._state = ScalerState(self._infos, self._settings, name=name)
        self._news = anyio.Event()
        self._finished = anyio.Event()
        self._stack = AsyncExitStack()
        self._tasks = await self._stack.enter_async_context(anyio.create_task_group())
        self._post(events.RecordsRestored(loaded.records))
        self._post(events.TimePassed())
        self._tasks.start_soon(self._dispatch)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        left: InstancesLeft | None = None
        if not self._tasks.cancel_scope.cancel_called:
            left = await self._shut_down()
        self._tasks.cancel_scope.cancel()
        try:
            suppressed = await self._stack.__aexit__(exc_type, exc_value, traceback)
        except BaseExceptionGroup as errors:
            if len(errors.exceptions) == 1:
                raise errors.exceptions[0] from None
            raise
        if left is not None:
            if exc_value is None:
                raise left
            exc_value.add_note(str(left))
        return suppressed

    async def _shut_down(self) -> InstancesLeft | None:
        """Let the core finish, close all connections; return what could not be removed."""
        settings = self._state.settings
        left = None
        with anyio.CancelScope(shield=True):
            self._post(events.ShutdownAsked(settings.delete_instances_on_shutdown))
            with anyio.move_on_after(settings.shutdown_timeout.total_seconds()):
                await self._finished.wait()
            if not self._state.finished:
                left = self._leftovers(settings.shutdown_timeout)
            self._closed = True
            await self._connections.aclose()
        return left

    def _leftovers(self, timeout: timedelta) -> InstancesLeft:
        ids = [f"{one.group}/{one.id}" for one in self.instances() if one.removed_at is None]
        expected = sum(group.unseen for group in self._state.groups.values())
        return InstancesLeft(ids, expected, timeout)

    # What a user can do.

    def reserve(self, key: str) -> None:
        """Make sure of a slot before a task exists; `acquire` or `unreserve` ends that.

        Args:
            key: names the task that may come; unique among all tasks.

        Raises:
            NoCapacity: it is refused, and the message says why.
            IllegalEvent: the key is in use.
        """
        for effect in self._post(events.TaskReserved(key)):
            if isinstance(effect, effects.Refuse):
                raise NoCapacity(effect.why)

    def unreserve(self, key: str) -> None:
        """Give a reservation back that no task has used.

        Raises:
            IllegalEvent: there is none of that key.
        """
        self._post(events.TaskUnreserved(key))

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
        claim = _Claim()
        acquisition = await self._wait_for_slot(key, claim, timeout)
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
            self._give_back(key)
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
        return (*self._history, *live)

    def decisions(self) -> tuple[Decision, ...]:
        """Return the newest scaling decisions, the oldest of them first."""
        return tuple(self._decisions)

    def explain(self) -> str:
        """Return in one sentence, with numbers, why tasks are waiting now."""
        return explain(self._state.standing())

    def reconfigure(self, settings: Settings) -> None:
        """Put other settings in force, at once and without touching any task.

        Raises:
            IllegalEvent: something differs that cannot change while the scaler runs;
                the old settings stay in force.
        """
        self._post(events.SettingsChanged(settings))

    # Claims.

    async def _wait_for_slot(
        self, key: str, claim: _Claim, timeout: timedelta | None
    ) -> Acquisition:
        if self._closed:
            raise ScalerClosed("the scaler is closed; open another one")
        previous, self._claims[key] = self._claims.get(key), claim
        try:
            self._post(events.TaskAsked(key))
        except BaseException:
            # Refused: the key belongs to another task.
            if previous is None:
                del self._claims[key]
            else:
                self._claims[key] = previous
            raise
        try:
            with anyio.fail_after(timeout.total_seconds() if timeout is not None else None):
                await claim.answered.wait()
        except TimeoutError:
            why = self.explain()
            self._give_back(key)
            seconds = timeout.total_seconds() if timeout else 0
            raise AcquireTimeout(f"no slot came free within {seconds:g}s: {why}") from None
        except BaseException:
            self._give_back(key)
            raise
        if claim.grant is None:
            self._claims.pop(key, None)
            raise ScalerClosed(f"task {key!r} got no slot: {claim.refusal}")
        if claim.lost is not None:
            self._give_back(key)
            raise AcquisitionLost(claim.grant.id, claim.lost)
        return Acquisition(self, key, claim.grant)

    def _give_back(self, key: str) -> None:
        """End a claim, whatever has become of it; the core knows."""
        self._claims.pop(key, None)
        if key in self._state.tasks.waiting:
            self._post(events.TaskCancelled(key))
        elif key in self._state.tasks.held:
            self._post(events.TaskReleased(key))

    # The machinery.

    def _post(self, event: events.Event) -> list[effects.Effect]:
        """Tell the core what happened, and put what it answers into the outbox."""
        now = events.Now(anyio.current_time(), datetime.now(UTC))
        answer = self._state.apply(event, now)
        for effect in answer:
            # Whose answer it is, is settled now: the same key may come back meanwhile.
            claim = None
            if isinstance(effect, effects.Grant | effects.Refuse | effects.Revoke):
                claim = self._claims.get(effect.key)
            self._outbox.append((effect, claim))
        if answer:
            self._news.set()
        return answer

    async def _dispatch(self) -> None:
        """Carry effects out and tell the core that time passes, for ever."""
        while True:
            with anyio.CancelScope(deadline=self._wake_at):
                await self._news.wait()
            self._news = anyio.Event()
            batch = list(self._outbox)
            self._outbox.clear()
            await self._commit(effect for effect, _ in batch)
            for effect, claim in batch:
                self._carry_out(effect, claim)
            if anyio.current_time() >= self._wake_at:
                self._wake_at = float("inf")
                self._post(events.TimePassed())
            if self._state.finished:
                self._finished.set()

    async def _commit(self, batch: Iterable[effects.Effect]) -> None:
        put: dict[tuple[str, str, str], Record] = {}
        drop: dict[tuple[str, str, str], None] = {}
        for effect in batch:
            if isinstance(effect, effects.Persist):
                for record in effect.put:
                    put[record.key] = record
                    drop.pop(record.key, None)
                for key in effect.drop:
                    put.pop(key, None)
                    drop[key] = None
        if put or drop:
            await self._store.commit(self._epoch, tuple(put.values()), tuple(drop))

    def _carry_out(self, effect: effects.Effect, claim: _Claim | None) -> None:
        match effect:
            case effects.Grant() | effects.Refuse() | effects.Revoke():
                if claim is not None:
                    claim.deliver(effect)
            case effects.WakeAt():
                self._wake_at = effect.monotonic
            case effects.Gone():
                self._bury(effect)
            case effects.Persist():
                pass  # Committed already.
            case _:
                self._tasks.start_soon(self._call, effect)

    async def _call(self, effect: effects.Effect) -> None:
        match effect:
            case effects.List():
                self._post(await _calls.list_group(self._groups[effect.group], effect))
            case effects.Increase():
                self._note(effect.decision)
                self._post(await _calls.increase(self._groups[effect.group], effect))
            case effects.Decrease():
                for decision in effect.decisions:
                    self._note(decision)
                async with anyio.create_task_group() as hanging_up:
                    for id in effect.ids:
                        hanging_up.start_soon(self._hang_up, effect.group, id)
                self._post(await _calls.decrease(self._groups[effect.group], effect))
            case effects.Prepare():
                await self._prepare(effect)
            case _:
                raise AssertionError(f"nobody carries out {effect!r}")

    async def _prepare(self, effect: effects.Prepare) -> None:
        key = (effect.group, effect.id)
        with anyio.CancelScope() as scope:
            self._preparing[key] = scope
            try:
                group = self._groups[effect.group]
                self._post(await _calls.prepare(group, self._connections, effect))
            finally:
                if self._preparing.get(key) is scope:
                    del self._preparing[key]

    async def _hang_up(self, group: str, id: str) -> None:
        scope = self._preparing.pop((group, id), None)
        if scope is not None:
            scope.cancel()
        await self._connections.close(group, id)

    def _bury(self, gone: effects.Gone) -> None:
        logger.info("instance %s of %s is gone: %s", gone.id, gone.group, gone.reason)
        self._history.append(
            InstanceSummary(
                gone.id,
                gone.group,
                gone.created_at,
                gone.ready_at,
                gone.removed_at,
                gone.reason,
                gone.tasks,
            )
        )
        self._tasks.start_soon(self._hang_up, gone.group, gone.id)

    def _note(self, decision: Decision) -> None:
        logger.info("scaling %s by %+d: %s", decision.group, decision.decided, decision)
        self._decisions.append(decision)
