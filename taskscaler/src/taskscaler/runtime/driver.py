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
predecessor must not be mistaken for the successor's, so its preparation and its
health checks are ended when the core says that it is gone, and its connection
is taken away before anything is begun with the successor.

When the store has another holder, or cannot be written, all calls that are
under way are ended, none is begun any more, and everybody who claims a slot is
told at once.
"""

from __future__ import annotations

from collections import defaultdict, deque
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import anyio
import anyio.abc
import anyio.lowlevel

from fleeting.types import Capability
from taskscaler._errors import ScalerClosed, StoreError
from taskscaler.core import effects, events
from taskscaler.runtime import provider_calls as _calls
from taskscaler.runtime.claims import Claim
from taskscaler.runtime.history import History, take_picture
from taskscaler.runtime.interruptions import watch

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping, Sequence

    from fleeting.abc import InstanceGroup
    from taskscaler.core import ConnectRecord, Record, ScalerState
    from taskscaler.runtime.connections import Connections, Line
    from taskscaler.storage import Store

__all__ = ("Driver", "only")

# How long a store may take for a commit: a disk that takes longer will not come back.
COMMIT_SECONDS = 60.0

# How many effects are carried out before others have their turn. Each may begin a task, and
# ten thousand that begin together would hold the event loop for a long time.
TURN = 50

# How many suspended tasks that lost their slots are remembered.
LOST = 10_000


class Receipt:
    """Who waits for records of its own to be committed.

    Attributes:
        done: set when that is so, or will never be.
        committed: which of the two.
    """

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.committed = False

    def commit(self) -> None:
        """Tell that the records are committed."""
        self.committed = True
        self.done.set()


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
        lost: the newest suspended tasks that lost their slots, by key.
        history: what happened, for people.
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
        self.lost: dict[str, effects.Revoke] = {}
        self.history = History(store, lambda: take_picture(state, self.claims))
        self.ended = anyio.Event()
        self.failed = False
        self._groups = groups
        self._store = store
        self._connections = connections
        # Each effect with whom it is for: the claim that it answers, or who waits for a commit.
        self._outbox: deque[tuple[effects.Effect, Claim | Receipt | None]] = deque()
        self._receipts: set[Receipt] = set()
        self._news = anyio.Event()
        self._rested = anyio.Event()
        # What is being done to each instance, besides removing it.
        self._doing: defaultdict[tuple[str, str], set[anyio.CancelScope]] = defaultdict(set)
        # What the store knows of how to reach each instance.
        self._stored: dict[tuple[str, str], ConnectRecord] = {}
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
                    if claim is None and isinstance(effect, effects.Revoke):
                        self._lose(effect)
                case effects.Gone():
                    self._leave(effect.group, effect.id)
                    self._unstore(effect.group, effect.id)
                case _:
                    pass
            self._outbox.append((effect, claim))
        if answer or self.state.finished:
            self._news.set()
        if self.state.drained:
            self._rested.set()
        self.history.change()
        return answer

    async def rest(self) -> None:
        """Wait until no task is left.

        Raises:
            ScalerClosed: the scaler ended before.
        """
        while not self.state.drained:
            if self._stopped or self.failed:
                raise ScalerClosed("the scaler ended before all of its tasks had")
            if self._rested.is_set():
                self._rested = anyio.Event()
            await self._rested.wait()

    async def commit(self, put: Sequence[Record], drop: Sequence[tuple[str, str, str]]) -> None:
        """Commit records together with those of the core, and wait until that is done.

        Raises:
            ScalerClosed: the scaler ended before; they may or may not be committed.
        """
        receipt = Receipt()
        if not self._stopped and not self.failed:
            self._receipts.add(receipt)
            self._outbox.append((effects.Persist(tuple(put), tuple(drop)), receipt))
            self._news.set()
            try:
                await receipt.done.wait()
            finally:
                self._receipts.discard(receipt)
        if not receipt.committed:
            raise ScalerClosed("the scaler ended before the store had confirmed the records")

    def restore(self, records: Sequence[Record]) -> None:
        """Begin with what an earlier life left; before anything else."""
        used, stale = self._connections.contacts.restore(records)
        self._stored = {(one.group, one.id): one for one in used}
        if stale:
            self._store_soon(effects.Persist(drop=tuple(one.key for one in stale)))
        self.post(events.RecordsRestored(tuple(records)))
        self.post(events.TimePassed())

    def holds(self, claim: Claim) -> bool:
        """Return whether a claim has its slot still: neither given back nor lost."""
        if self.claims.get(claim.key) is not claim:
            return False
        return self.state.holds(claim.key)

    async def run(self, epoch: int) -> None:
        """Carry effects out until `stop`, and whatever is cancelled around it.

        Raises:
            StoreError: the store failed, and nothing more can be done.
            RuntimeError: a bug of the store or of a plugin cancelled it.
        """
        try:
            with anyio.CancelScope(shield=True) as self._scope:
                if not self._stopped:
                    async with anyio.create_task_group() as tasks:
                        for group in self._groups.values():
                            if Capability.WATCH in group.info.capabilities:
                                tasks.start_soon(watch, group, self.post)
                        tasks.start_soon(self._keep_history, epoch)
                        with self._acting():
                            await self._dispatch(epoch, tasks)
                    self._check_stopped()
        except BaseExceptionGroup as errors:
            self.failed = True
            error = only(errors)
            raise error from error.__cause__
        except anyio.get_cancelled_exc_class():
            # Behind the shield this is nobody's but a bug's, and would end the body in silence.
            self._check_stopped()
            raise
        finally:
            for receipt in self._receipts:
                receipt.done.set()
            self._stopped = True
            self._rested.set()
            self.ended.set()

    def stop(self) -> None:
        """Let `run` return, and end the calls that are under way. Idempotent."""
        self._stopped = True
        if self._scope is not None:
            self._scope.cancel()

    def _check_stopped(self) -> None:
        """Return if the machinery was stopped; otherwise something in it was cancelled by a bug."""
        if not self._stopped:
            self.failed = True
            raise RuntimeError(
                "the scaler was cancelled from inside, by a bug of its store or of a plugin"
            )

    def abandon_claims(self, why: str) -> None:
        """Tell those who still wait or hold a slot that there is nothing behind it any more."""
        for claim in list(self.claims.values()):
            claim.abandon(why)

    @contextmanager
    def _acting(self) -> Generator[None]:
        """Tell all tasks if the store fails: what they hold is not theirs any more."""
        try:
            yield
        except StoreError as error:
            self.failed = True
            self.abandon_claims(str(error))
            raise

    async def _keep_history(self, epoch: int) -> None:
        with self._acting():
            await self.history.run(epoch)

    async def _dispatch(self, epoch: int, tasks: anyio.abc.TaskGroup) -> None:
        """Carry effects out and tell the core that time passes, for ever."""
        while True:
            with anyio.CancelScope(deadline=self._wake_at):
                await self._news.wait()
            self._news = anyio.Event()
            batch = list(self._outbox)
            self._outbox.clear()
            await self._commit(epoch, (effect for effect, _ in batch))
            for number, (effect, whose) in enumerate(batch, 1):
                self._carry_out(effect, whose, tasks)
                if not number % TURN:
                    # What was begun runs as far as it gets, before more is begun.
                    await anyio.lowlevel.checkpoint()
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
        if not put and not drop:
            return
        with anyio.move_on_after(COMMIT_SECONDS):
            await self._store.commit(epoch, tuple(put.values()), tuple(drop))
            return
        raise StoreError(
            f"{type(self._store).__name__} did not confirm a commit within {COMMIT_SECONDS:g}s; "
            "see whether its disk or its server hangs"
        )

    def _store_soon(self, effect: effects.Persist) -> None:
        self._outbox.append((effect, None))
        self._news.set()

    def _carry_out(
        self,
        effect: effects.Effect,
        whose: Claim | Receipt | None,
        tasks: anyio.abc.TaskGroup,
    ) -> None:
        match effect:
            case effects.Grant() | effects.Refuse() | effects.Revoke():
                if isinstance(whose, Claim):
                    whose.deliver(effect)
            case effects.WakeAt():
                self._wake_at = effect.monotonic
            case effects.Gone():
                self.history.buried(effect)
                line = self._hang_up(effect.group, effect.id)
                self._connections.contacts.forget(effect.group, effect.id)
                if line is not None:
                    tasks.start_soon(line.aclose)
            case effects.Persist():
                # Committed already.
                if isinstance(whose, Receipt):
                    whose.commit()
            case effects.Decided():
                self.history.decided(effect.decision)
            case _:
                self._begin(effect, tasks)

    def _lose(self, revoked: effects.Revoke) -> None:
        """Remember what a suspended task lost: it hears of it when it is to be resumed."""
        self.lost[revoked.key] = revoked
        if len(self.lost) > LOST:
            del self.lost[next(iter(self.lost))]

    def _begin(self, effect: effects.Effect, tasks: anyio.abc.TaskGroup) -> None:
        """Begin what takes time."""
        match effect:
            case effects.Prepare():
                self._leave(effect.group, effect.id)
                tasks.start_soon(self._prepare, effect, self._approach(effect.group, effect.id))
            case effects.CheckHealth():
                tasks.start_soon(self._check, effect, self._approach(effect.group, effect.id))
            case effects.Decrease() | effects.Suspend() | effects.Resume():
                # Now, and not when its task begins: what is begun later must not be ended by it.
                lines = [self._hang_up(effect.group, id) for id in effect.ids]
                tasks.start_soon(self._call, effect, [one for one in lines if one is not None])
            case _:
                tasks.start_soon(self._call, effect)

    async def _call(self, effect: effects.Effect, lines: Sequence[Line] = ()) -> None:
        async with anyio.create_task_group() as closing:
            for number, line in enumerate(lines, 1):
                closing.start_soon(line.aclose)
                if not number % TURN:
                    await anyio.lowlevel.checkpoint()
        match effect:
            case effects.List():
                event = await _calls.list_group(self._groups[effect.group], effect)
            case effects.Increase():
                self.history.decided(effect.decision)
                event = await _calls.increase(self._groups[effect.group], effect)
            case effects.Decrease():
                for decision in effect.decisions:
                    self.history.decided(decision)
                event = await _calls.decrease(self._groups[effect.group], effect)
            case effects.Suspend():
                event = await _calls.suspend(self._groups[effect.group], effect)
            case effects.Resume():
                event = await _calls.resume(self._groups[effect.group], effect)
            case _:
                raise AssertionError(f"nobody carries out {effect!r}")
        self.post(event)

    async def _prepare(self, effect: effects.Prepare, scope: anyio.CancelScope) -> None:
        with scope:
            group = self._groups[effect.group]
            event = await _calls.prepare(group, self._connections, effect)
            # It may have been stopped without noticing, and then speaks of the wrong instance.
            if not scope.cancel_called:
                if isinstance(event, events.InstancePrepared):
                    self._store_contact(effect.group, effect.id)
                self.post(event)
        self._done(effect.group, effect.id, scope)

    async def _check(self, effect: effects.CheckHealth, scope: anyio.CancelScope) -> None:
        with scope:
            group = self._groups[effect.group]
            event = await _calls.check_health(group, self._connections, effect)
            if not scope.cancel_called:
                self.post(event)
        self._done(effect.group, effect.id, scope)

    # What is being done to an instance.

    def _approach(self, group: str, id: str) -> anyio.CancelScope:
        """Return the scope of something that is to be done to an instance.

        Known from now on, not only when its task begins: it may be ended before.
        """
        scope = anyio.CancelScope()
        self._doing[group, id].add(scope)
        return scope

    def _done(self, group: str, id: str, scope: anyio.CancelScope) -> None:
        doing = self._doing.get((group, id), set())
        doing.discard(scope)
        if not doing:
            self._doing.pop((group, id), None)

    def _leave(self, group: str, id: str) -> None:
        """End everything that is being done to an instance."""
        for scope in self._doing.pop((group, id), ()):
            scope.cancel()

    def _hang_up(self, group: str, id: str) -> Line | None:
        """Let nobody reach an instance any more; return what is to be closed for that."""
        self._leave(group, id)
        self._connections.contacts.doubt(group, id)
        return self._connections.take(group, id)

    # What the store knows of how to reach an instance.

    def _store_contact(self, group: str, id: str) -> None:
        instance = self.state.instance(group, id)
        if instance is None:
            return
        record = self._connections.contacts.record(group, id, instance.incarnation)
        if record is not None and record != self._stored.get((group, id)):
            self._stored[group, id] = record
            self._store_soon(effects.Persist((record,)))

    def _unstore(self, group: str, id: str) -> None:
        record = self._stored.pop((group, id), None)
        if record is not None:
            self._store_soon(effects.Persist(drop=(record.key,)))


def only(error: BaseException) -> BaseException:
    """Return the one error that is in a group of errors; if there are more, the group."""
    while isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        error, *others = group.exceptions
        if others:
            return group
    return error
