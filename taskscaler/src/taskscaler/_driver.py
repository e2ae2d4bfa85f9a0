"""Drives the core: tells it what happened, and does what it answers.

Nobody but `post` changes the core's state, and `post` does not await: an event
is applied the moment it is posted, so no two tasks can be in the middle of a
change, and a caller is refused at once where it asks for the impossible. What
the core answers goes into an outbox. One task, `_dispatch`, empties it: it
commits what must be stored, all that has come together in one commit, and only
then carries the other effects out, in their order, each that takes time in a
task of its own. So one slow call delays nothing else, and a slot is handed out
only after the store knows of it.

All of these tasks run behind a shield. A cancellation that comes from outside
ends the tasks of the user, but not the machinery, which is still needed to take
the instances away; it ends when it is stopped, or when the store fails.

An instance may be recreated under its old id. What was going on with the
predecessor must not be mistaken for the successor's, so its preparation is
ended when the core says that it is gone, and its connection is taken away
before anything is begun with the successor.
"""

from __future__ import annotations

import logging
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import anyio
import anyio.abc

from taskscaler import _calls
from taskscaler.core import effects, events
from taskscaler.summaries import InstanceSummary

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fleeting.abc import InstanceGroup
    from taskscaler._claims import Claim
    from taskscaler._connections import Connections, Line
    from taskscaler.core.decisions import Decision
    from taskscaler.core.records import Record
    from taskscaler.core.state import ScalerState
    from taskscaler.storage import Store

__all__ = ("Driver",)

logger = logging.getLogger("taskscaler")

# How many decisions and how many bygone instances are remembered.
DECISIONS = 1000
HISTORY = 20_000


class Driver:
    """The core with everything that moves it.

    Args:
        state: the core.
        groups: opened groups, by id.
        store: what must survive a restart.
        connections: those to the instances.

    Attributes:
        state: the core; to be read by anyone, to be changed by `post` alone.
        claims: the tasks that ask for a slot or hold one, by key.
        decisions: the newest ones.
        history: the newest of the instances that are gone.
        ended: set when nothing will change any more: a shutdown is complete, or
            the machinery has failed.
        failed: whether the machinery has failed.
    """

    def __init__(
        self,
        state: ScalerState,
        groups: Mapping[str, InstanceGroup],
        store: Store,
        connections: Connections,
    ) -> None:
        self.state = state
        self.claims: dict[str, Claim] = {}
        self.decisions: deque[Decision] = deque(maxlen=DECISIONS)
        self.history: deque[InstanceSummary] = deque(maxlen=HISTORY)
        self.ended = anyio.Event()
        self.failed = False
        self._groups = groups
        self._store = store
        self._connections = connections
        self._outbox: deque[tuple[effects.Effect, Claim | None]] = deque()
        self._news = anyio.Event()
        self._preparing: dict[tuple[str, str], anyio.CancelScope] = {}
        self._wake_at = float("inf")
        self._scope: anyio.CancelScope | None = None
        self._stopped = False

    def post(self, event: events.Event) -> list[effects.Effect]:
        """Tell the core what happened, and put what it answers into the outbox.

        Raises:
            IllegalEvent: it cannot have happened; nothing has changed.
        """
        now = events.Now(anyio.current_time(), datetime.now(UTC))
        answer = self.state.apply(event, now)
        for effect in answer:
            claim = None
            match effect:
                case effects.Grant() | effects.Refuse() | effects.Revoke():
                    # Whose answer it is, is settled now: the key may come back meanwhile.
                    claim = self.claims.get(effect.key)
                case effects.Gone():
                    self._stop_preparing(effect.group, effect.id)
                case _:
                    pass
            self._outbox.append((effect, claim))
        if answer or self.state.finished:
            self._news.set()
        return answer

    def holds(self, claim: Claim) -> bool:
        """Return whether a claim has its slot still: neither given back nor lost."""
        if self.claims.get(claim.key) is not claim:
            return False
        held = self.state.tasks.held.get(claim.key)
        return held is not None and claim.key in held[1].tasks

    async def run(self, epoch: int) -> None:
        """Carry effects out until `stop`, and whatever is cancelled around it.

        Raises:
            StoreError: the store failed, and nothing more can be done.
        """
        try:
            with anyio.CancelScope(shield=True) as self._scope:
                if not self._stopped:
                    async with anyio.create_task_group() as tasks:
                        await self._dispatch(epoch, tasks)
        except BaseExceptionGroup as errors:
            self.failed = True
            error = _only(errors)
            raise error from error.__cause__
        finally:
            self.ended.set()

    def stop(self) -> None:
        """Let `run` return, and end the calls that are under way. Idempotent."""
        self._stopped = True
        if self._scope is not None:
            self._scope.cancel()

    def abandon_claims(self, why: str) -> None:
        """Tell those who still wait or hold a slot that there is nothing behind it any more."""
        for claim in list(self.claims.values()):
            claim.abandon(why)

    async def _dispatch(self, epoch: int, tasks: anyio.abc.TaskGroup) -> None:
        """Carry effects out and tell the core that time passes, for ever."""
        while True:
            with anyio.CancelScope(deadline=self._wake_at):
                await self._news.wait()
            self._news = anyio.Event()
            batch = list(self._outbox)
            self._outbox.clear()
            await self._commit(epoch, (effect for effect, _ in batch))
            for effect, claim in batch:
                self._carry_out(effect, claim, tasks)
            if anyio.current_time() >= self._wake_at:
                self._wake_at = float("inf")
                self.post(events.TimePassed())
            # What came during the commit, such as the release of a slot, is to be stored, too.
            if self.state.finished and not self._outbox:
                self.ended.set()

    async def _commit(self, epoch: int, batch: Iterable[effects.Effect]) -> None:
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
            await self._store.commit(epoch, tuple(put.values()), tuple(drop))

    def _carry_out(
        self, effect: effects.Effect, claim: Claim | None, tasks: anyio.abc.TaskGroup
    ) -> None:
        match effect:
            case effects.Grant() | effects.Refuse() | effects.Revoke():
                if claim is not None:
                    claim.deliver(effect)
            case effects.WakeAt():
                self._wake_at = effect.monotonic
            case effects.Gone():
                self._bury(effect)
                line = self._hang_up(effect.group, effect.id)
                if line is not None:
                    tasks.start_soon(line.aclose)
            case effects.Persist():
                pass  # Committed already.
            case effects.Prepare():
                # Known from now on, not only when its task begins: it may be stopped before.
                self._stop_preparing(effect.group, effect.id)
                scope = self._preparing[effect.group, effect.id] = anyio.CancelScope()
                tasks.start_soon(self._prepare, effect, scope)
            case _:
                tasks.start_soon(self._call, effect)

    async def _call(self, effect: effects.Effect) -> None:
        match effect:
            case effects.List():
                self.post(await _calls.list_group(self._groups[effect.group], effect))
            case effects.Increase():
                self._note(effect.decision)
                self.post(await _calls.increase(self._groups[effect.group], effect))
            case effects.Decrease():
                for decision in effect.decisions:
                    self._note(decision)
                async with anyio.create_task_group() as hanging_up:
                    for id in effect.ids:
                        line = self._hang_up(effect.group, id)
                        if line is not None:
                            hanging_up.start_soon(line.aclose)
                self.post(await _calls.decrease(self._groups[effect.group], effect))
            case _:
                raise AssertionError(f"nobody carries out {effect!r}")

    async def _prepare(self, effect: effects.Prepare, scope: anyio.CancelScope) -> None:
        with scope:
            group = self._groups[effect.group]
            event = await _calls.prepare(group, self._connections, effect)
            # It may have been stopped without noticing, and then speaks of the wrong instance.
            if not scope.cancel_called:
                self.post(event)
        if self._preparing.get((effect.group, effect.id)) is scope:
            del self._preparing[effect.group, effect.id]

    def _stop_preparing(self, group: str, id: str) -> None:
        scope = self._preparing.pop((group, id), None)
        if scope is not None:
            scope.cancel()

    def _hang_up(self, group: str, id: str) -> Line | None:
        """Let nobody reach an instance any more; return what is to be closed for that."""
        self._stop_preparing(group, id)
        return self._connections.take(group, id)

    def _bury(self, gone: effects.Gone) -> None:
        logger.info("instance %s of %s is gone: %s", gone.id, gone.group, gone.reason)
        self.history.append(
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

    def _note(self, decision: Decision) -> None:
        logger.info("scaling %s by %+d: %s", decision.group, decision.decided, decision)
        self.decisions.append(decision)


def _only(error: BaseException) -> BaseException:
    """Return the one error that is in a group of errors; if there are more, the group."""
    while isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        error, *others = group.exceptions
        if others:
            return group
    return error
