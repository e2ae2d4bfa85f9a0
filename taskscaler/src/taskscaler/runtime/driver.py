"""Runs the core: applies events to it, and dispatches the effects that follow.

Only `post` changes the core's state, and it does not await. An event is applied at
the moment it is posted, so no two tasks can be in the middle of a change, and a
caller that asks for the impossible is refused at once. The effects go into an
outbox. One task, `_dispatch`, empties it: it commits the records of the effects that
have gathered in one commit, and only then carries out the others, in their order.
So a slot is handed out only after the store knows about it.

The tasks of the runner are shielded. A cancellation from outside ends the user's
tasks but not the runner, which is still needed to remove the instances. It ends
when it is stopped, or when the store fails.

If the store has another holder or cannot be written, all calls in progress are
cancelled, no further ones are made, and every task that has a claim is told.
"""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, cast

import anyio
import anyio.lowlevel

from fleeting.types import Capability
from taskscaler._errors import ScalerClosed, StoreError
from taskscaler.core import InstanceRecord, effects, events
from taskscaler.runtime.claims import Claims
from taskscaler.runtime.commits import Receipt, commit
from taskscaler.runtime.effect_tasks import BATCH, EffectTasks
from taskscaler.runtime.history import History, take_picture
from taskscaler.runtime.interruptions import watch

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from anyio.abc import TaskGroup

    from fleeting.abc import InstanceGroup
    from taskscaler.core import Decision, Effect, Event, Record, ScalerState
    from taskscaler.runtime.claims import Claim
    from taskscaler.runtime.connections import Connections
    from taskscaler.storage import Store

__all__ = ("CoreRunner", "only_error")

# How many effects share a commit. To gather the records of more would hold the event loop.
COMMIT = 1_000


class CoreRunner:
    """The core and everything that drives it.

    Args:
        state: the core.
        groups: opened groups, by id.
        store: what must survive a restart.
        connections: those to the instances.

    Attributes:
        state: the core; anyone may read it, only `post` may change it.
        claims: the tasks that wait for a slot or hold one.
        history: what happened.
        ended: set when nothing will change any more: a shutdown is complete, or
            the runner has failed.
        failed: whether the runner has failed.
    """

    def __init__(
        self,
        state: ScalerState,
        groups: Mapping[str, InstanceGroup],
        store: Store,
        connections: Connections,
    ) -> None:
        self.state = state
        self.claims = Claims()
        self.history = History(store, lambda: take_picture(state, self.claims))
        self.ended = anyio.Event()
        self.failed = False
        self._groups = groups
        self._store = store
        self._cache = connections.cache
        self._effect_tasks = EffectTasks(groups, connections, self._report)
        # Each effect with the call that tells its addressee when it is carried out, if it has one.
        self._outbox: deque[tuple[Effect, Callable[[], None] | None]] = deque()
        self._receipts: set[Receipt] = set()
        self._outbox_filled = anyio.Event()
        self._drained = anyio.Event()
        self._wake_at = float("inf")
        self._scope: anyio.CancelScope | None = None
        self._stopped = False

    # Called by the scaler and its tasks.

    def post(self, event: Event) -> list[Effect]:
        """Apply an event to the core and queue the resulting effects.

        Raises:
            IllegalEvent: the event is impossible; nothing has changed.
        """
        answer = self.state.apply(event, events.Now(anyio.current_time(), datetime.now(UTC)))
        for effect in answer:
            tell = None
            match effect:
                case effects.Grant() | effects.Refuse() | effects.Revoke():
                    # Decided now: when the effect is carried out, another task may have its key.
                    if (claim := self.claims.addressee(effect)) is not None:
                        tell = partial(claim.deliver, effect)
                case effects.Gone():
                    self._effect_tasks.cancel(effect.group, effect.id)
                    if (stored := self._cache.take_stored(effect.group, effect.id)) is not None:
                        self._queue(effects.Persist(drop=(stored.key,)))
                case _:
                    pass
            self._outbox.append((effect, tell))
        if answer or self.state.finished:
            self._outbox_filled.set()
        if self.state.drained:
            self._drained.set()
        self.history.mark_changed()
        return answer

    def holds(self, claim: Claim) -> bool:
        """Return whether a claim still has its slot: it neither gave it back nor lost it."""
        if self.claims.get(claim.key) is not claim:
            return False
        return self.state.holds(claim.key)

    async def commit(self, put: Sequence[Record], drop: Sequence[tuple[str, str, str]]) -> None:
        """Commit records together with those of the core, and wait until that is done.

        Raises:
            ScalerClosed: the runner ended first; they may or may not be committed.
        """
        receipt = Receipt()
        if not self._stopped and not self.failed:
            self._receipts.add(receipt)
            self._queue(effects.Persist(tuple(put), tuple(drop)), receipt.confirm)
            try:
                await receipt.done.wait()
            finally:
                self._receipts.discard(receipt)
        if not receipt.committed:
            raise ScalerClosed("the scaler ended before the store confirmed the records")

    async def wait_until_drained(self) -> None:
        """Wait until no task is left.

        Raises:
            ScalerClosed: the runner ended first.
        """
        while not self.state.drained:
            if self._stopped or self.failed:
                raise ScalerClosed("the scaler ended before all of its tasks did")
            if self._drained.is_set():
                self._drained = anyio.Event()
            await self._drained.wait()

    # From the start to the end.

    def restore(self, records: Sequence[Record]) -> None:
        """Restore the state of a previous process. Must be called first."""
        stale = self._cache.restore(records)
        if stale:
            self._queue(effects.Persist(drop=tuple(one.key for one in stale)))
        for one in records:
            if isinstance(one, InstanceRecord):
                self.history.add_lost(one)
        self.post(events.RecordsRestored(tuple(records)))
        self.post(events.TimePassed())

    async def run(self, epoch: int) -> None:
        """Dispatch effects until `stop`, regardless of cancellations from outside.

        Raises:
            StoreError: the store failed, and nothing more can be done.
            RuntimeError: a bug of the store or of a plugin cancelled the runner.
        """
        try:
            with anyio.CancelScope(shield=True) as self._scope:
                if not self._stopped:
                    await self._run_tasks(epoch)
                    self._check_stopped()
        except BaseExceptionGroup as errors:
            self.failed = True
            error = only_error(errors)
            raise error from error.__cause__
        except anyio.get_cancelled_exc_class():
            # Nothing outside can cancel a shielded task, so this is a bug. Passed on, it would
            # end the user's body without a reason.
            self._check_stopped()
            raise
        finally:
            for receipt in self._receipts:
                receipt.done.set()
            self._stopped = True
            self._drained.set()
            self.ended.set()

    def stop(self) -> None:
        """Make `run` return, and cancel the calls in progress. Idempotent."""
        self._stopped = True
        if self._scope is not None:
            self._scope.cancel()

    async def _run_tasks(self, epoch: int) -> None:
        async with anyio.create_task_group() as tasks:
            for group in self._groups.values():
                if Capability.WATCH in group.info.capabilities:
                    tasks.start_soon(watch, group, self.post)
            tasks.start_soon(self._keep_history, epoch)
            with self._failing_on_store_errors():
                await self._dispatch(epoch, tasks)

    async def _keep_history(self, epoch: int) -> None:
        with self._failing_on_store_errors():
            await self.history.run(epoch)

    @contextmanager
    def _failing_on_store_errors(self) -> Generator[None]:
        """Fail the runner if the store fails: the tasks do not own their slots any more."""
        try:
            yield
        except StoreError as error:
            self.failed = True
            self.claims.abandon(str(error))
            raise

    def _check_stopped(self) -> None:
        """Raise if the runner was cancelled without having been stopped."""
        if not self._stopped:
            self.failed = True
            raise RuntimeError(
                "the scaler was cancelled from inside because of a bug in its store or a plugin"
            )

    # From the outbox to what is carried out.

    async def _dispatch(self, epoch: int, tasks: TaskGroup) -> None:
        """Carry effects out, and tell the core that time passes, until cancelled."""
        while True:
            with anyio.CancelScope(deadline=self._wake_at):
                await self._outbox_filled.wait()
            self._outbox_filled = anyio.Event()
            batch = [self._outbox.popleft() for _ in range(min(COMMIT, len(self._outbox)))]
            if self._outbox:
                self._outbox_filled.set()
            await commit(self._store, epoch, (effect for effect, _ in batch))
            for number, (effect, tell) in enumerate(batch, 1):
                if tell is not None:
                    tell()
                self._carry_out(effect, tasks)
                if not number % BATCH:
                    # The tasks that were started run as far as they get, before more are started.
                    await anyio.lowlevel.checkpoint()
            if anyio.current_time() >= self._wake_at:
                self._wake_at = float("inf")
                self.post(events.TimePassed())
            # Effects that came during the commit, such as the release of a slot, must be
            # stored before the end.
            if self.state.finished and not self._outbox:
                self.ended.set()

    def _carry_out(self, effect: Effect, tasks: TaskGroup) -> None:
        match effect:
            case effects.Persist() | effects.Grant() | effects.Refuse() | effects.Revoke():
                pass  # It is committed, or its addressee was told.
            case effects.WakeAt():
                self._wake_at = effect.monotonic
            case effects.Decided():
                self.history.add_decision(effect.decision)
            case effects.Gone():
                self.history.add_bygone(effect)
                self._effect_tasks.forget(effect.group, effect.id, tasks)
            case _:
                for decision in _decisions_of(effect):
                    self.history.add_decision(decision)
                self._effect_tasks.start(effect, tasks)

    def _report(self, event: Event) -> None:
        """Post what came of an effect; of a prepared instance, store how it is reached."""
        if isinstance(event, events.InstancePrepared):
            instance = self.state.instance(event.group, event.id)
            if instance is not None:
                record = self._cache.new_record(event.group, event.id, instance.incarnation)
                if record is not None:
                    self._queue(effects.Persist((record,)))
        self.post(event)

    def _queue(self, effect: effects.Persist, tell: Callable[[], None] | None = None) -> None:
        self._outbox.append((effect, tell))
        self._outbox_filled.set()


def _decisions_of(effect: Effect) -> Sequence[Decision]:
    """Return the decisions that an effect carries out."""
    match effect:
        case effects.Increase():
            return (effect.decision,)
        case effects.Decrease():
            return effect.decisions
        case _:
            return ()


def only_error(error: BaseException) -> BaseException:
    """Return the one error that is in a group of errors; if there are more, the group."""
    while isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        error, *others = group.exceptions
        if others:
            return group
    return error
