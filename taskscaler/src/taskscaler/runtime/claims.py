"""A task's claim to a slot, from asking for it to giving it back.

Whatever becomes of a task, `Claims._end` is where its claim ends, and it does not
await: it looks at what the core knows of the task at that moment, and gives back
just that. A task that is to be suspended is so from the moment in which its body
has ended, clean-up included, because only then may its instance be stopped.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import anyio

from fleeting.types import Capability
from taskscaler._acquisition import Acquisition
from taskscaler._errors import (
    AcquireTimeout,
    AcquisitionLost,
    AcquisitionSuspended,
    IllegalEvent,
    NotSuspendable,
    ScalerClosed,
)
from taskscaler.core import TaskStatus, effects, events, explain
from taskscaler.storage._abc import TaskEntry

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from datetime import timedelta

    from fleeting.abc import InstanceGroup
    from taskscaler.core import Refuse, Revoke, TaskView
    from taskscaler.runtime.connections import Connections
    from taskscaler.runtime.driver import Driver

__all__ = ("Claim", "Claims")

# How many tasks may wait so that one which waits no longer is still told its place.
SOUGHT = 1000


class Claim:
    """A task that asks for a slot or holds one.

    Attributes:
        key: the task's.
        resumed: whether it asks for the slot in which it was suspended.
        instance: the id of the instance of that slot; empty if it is not resumed.
        asked_at: when it asked.
        granted_at: when it got its slot; None if it has not.
        answered: set when the answer is there.
        ended: set when nothing is claimed any more; None as long as nobody waits for that.
        grant: the slot; None if it is not granted.
        refusal: why there will be no slot; None if that is not known.
        lost: why the slot is lost; None as long as it is not.
        suspended: whether the task is to be suspended.
        scope: what is cancelled when the slot is lost; set when the body begins.
    """

    # There may be tens of thousands that wait, and an event costs most of what a claim does.
    __slots__ = (
        "answered",
        "asked_at",
        "ended",
        "grant",
        "granted_at",
        "instance",
        "key",
        "lost",
        "refusal",
        "resumed",
        "scope",
        "suspended",
    )

    def __init__(self, key: str, *, resumed: bool = False) -> None:
        self.key = key
        self.resumed = resumed
        self.instance = ""
        self.asked_at = datetime.now(UTC)
        self.granted_at: datetime | None = None
        self.answered = anyio.Event()
        self.ended: anyio.Event | None = None
        self.grant: effects.Grant | None = None
        self.refusal: str | None = None
        self.lost: str | None = None
        self.suspended = False
        self.scope: anyio.CancelScope | None = None

    def deliver(self, effect: effects.Grant | Refuse | Revoke) -> None:
        """Take what the core says to this task."""
        if isinstance(effect, effects.Grant):
            self.grant = effect
            self.granted_at = datetime.now(UTC)
            self.answered.set()
        elif isinstance(effect, effects.Refuse):
            self.abandon(effect.why)
        else:
            self.abandon(effect.cause)

    def abandon(self, why: str) -> None:
        """Refuse the slot, or take it away if it was granted."""
        if self.grant is None:
            self.refusal = why
        elif self.lost is None:
            self.lost = why
            self._cancel()
        self.answered.set()

    def suspend(self) -> None:
        """Let the task's body end, and the slot be kept for it."""
        self.suspended = True
        self._cancel()

    def entry(self, outcome: str | None = None, reason: str = "") -> TaskEntry:
        """Return what became of it.

        Args:
            outcome: of one that got no slot, if that is not what the claim itself tells.
            reason: the same in words.
        """
        if self.grant is None:
            outcome = outcome or ("cancelled" if self.refusal is None else "refused")
            reason = reason or self.refusal or ""
        elif self.lost is not None:
            outcome, reason = "lost", self.lost
        else:
            outcome = "suspended" if self.suspended else "released"
        return TaskEntry(
            self.key,
            self.asked_at,
            self.granted_at,
            datetime.now(UTC),
            self.grant.group if self.grant else "",
            self.grant.id if self.grant else "",
            outcome,
            reason,
        )

    def _cancel(self) -> None:
        if self.scope is not None:
            self.scope.cancel()


class Claims:
    """Asks the driver for slots on behalf of tasks, and gives them back.

    Args:
        driver: that of the core.
        groups: opened groups, by id.
        connections: those to the instances.
    """

    def __init__(
        self,
        driver: Driver,
        groups: Mapping[str, InstanceGroup],
        connections: Connections,
    ) -> None:
        self._driver = driver
        self._groups = groups
        self._connections = connections

    @asynccontextmanager
    async def hold(self, claim: Claim, timeout: timedelta | None) -> AsyncGenerator[Acquisition]:
        """Return a context manager in which the task holds its slot; see `Taskscaler.acquire`."""
        acquisition = await self._wait(claim, timeout)
        scope = claim.scope = anyio.CancelScope()
        try:
            with scope:
                yield acquisition
        except Exception as error:
            # What fails because the slot is not the task's any more is told as what it is.
            end = self._end(claim)
            if end is None:
                raise
            raise end from error
        finally:
            self._end(claim)
        # A body that ended by itself has not lost anything.
        if claim.suspended or scope.cancelled_caught:
            raise _parting(claim) or AcquisitionLost(acquisition.instance, "it was given up")

    async def suspend(self, key: str) -> None:
        """Let a task end that holds a slot, and keep the slot; see `Taskscaler.suspend`."""
        claim = self._driver.claims.get(key)
        if claim is None or claim.grant is None:
            raise IllegalEvent(f"task {key!r} holds no slot in which it could be suspended")
        if Capability.SUSPEND not in self._groups[claim.grant.group].info.capabilities:
            raise NotSuspendable(
                f"task {key!r} goes on: its group {claim.grant.group} cannot suspend instances"
            )
        claim.suspend()
        claim.ended = claim.ended or anyio.Event()
        await claim.ended.wait()
        if claim.lost is not None:
            raise AcquisitionLost(claim.grant.id, claim.lost)
        # Nothing more is to be written; but what was decided until now must be.
        await self._driver.commit((), ())

    def abandon(self, why: str) -> None:
        """Tell everybody that there is nothing behind their claims any more, and note it."""
        self._driver.abandon_claims(why)
        for claim in self._driver.claims.values():
            self._driver.history.add(claim.entry())

    def explain(self, key: str | None) -> str:
        """Return why tasks wait, or what a certain task has; see `Taskscaler.explain`."""
        state, standing = self._driver.state, self._driver.state.standing()
        if key is None:
            return explain(standing)
        task = state.task(key)
        if task is None or task.status is TaskStatus.RESERVED:
            return explain(standing, key=key, reserved=task is not None)
        if task.status is TaskStatus.WAITING:
            return explain(
                standing,
                key=key,
                place=state.place(key),
                waiting_seconds=self._waiting_seconds(key),
            )
        if task.since is None or task.phase is None:
            return explain(standing, key=key, holds=self._slot(task))
        resuming = task.status is TaskStatus.RESUMING
        doing = "is to go on in" if resuming else "is suspended, and keeps"
        return (
            f"task {key!r} {doing} slot {task.slot} of instance {task.instance} of "
            f"{task.group} ({task.phase.value}), suspended since {_at(task.since)}"
        )

    def _waiting_seconds(self, key: str) -> float | None:
        claim = self._driver.claims.get(key)
        return None if claim is None else (datetime.now(UTC) - claim.asked_at).total_seconds()

    def _slot(self, task: TaskView) -> str:
        claim = self._driver.claims.get(task.key)
        if claim is None or claim.grant is None or claim.granted_at is None:
            return (
                f"a slot on instance {task.instance} of {task.group}, and is told as soon as the "
                "instance has answered and the store has confirmed it"
            )
        since = f"of {task.group} since {_at(claim.granted_at)}"
        lost = f", and lost it: {claim.lost}" if claim.lost is not None else ""
        return f"slot {claim.grant.slot} of instance {task.instance} {since}{lost}"

    # From asking to the answer.

    async def _wait(self, claim: Claim, timeout: timedelta | None) -> Acquisition:
        self._ask(claim)
        seconds = float("inf") if timeout is None else timeout.total_seconds()
        try:
            if timeout is None:
                await claim.answered.wait()
            else:
                with anyio.move_on_after(seconds):
                    await claim.answered.wait()
        except BaseException:
            self._withdraw(claim, "cancelled")
            raise
        grant = claim.grant
        if grant is None:
            raise self._refused(claim, seconds)
        if claim.lost is not None or claim.suspended:
            self._end(claim)
            raise _parting(claim) or AcquisitionLost(grant.id, "it was given up")
        return Acquisition(
            claim,
            grant,
            driver=self._driver,
            group=self._groups[grant.group],
            connections=self._connections,
        )

    def _ask(self, claim: Claim) -> None:
        claims, key = self._driver.claims, claim.key
        if self._driver.ended.is_set():
            # Nothing is carried out any more, and so nobody would ever answer.
            raise ScalerClosed(f"task {key!r} got no slot: the scaler has ended")
        task = self._driver.state.task(key)
        if task is not None and task.since is not None:
            claim.instance = task.instance
        elif (lost := self._driver.lost.pop(key, None)) is not None and claim.resumed:
            raise AcquisitionLost(lost.id, lost.cause)
        previous, claims[key] = claims.get(key), claim
        try:
            self._driver.post(events.TaskResumed(key) if claim.resumed else events.TaskAsked(key))
        except BaseException:
            # Refused: the key belongs to another task.
            del claims[key]
            if previous is not None:
                claims[key] = previous
            raise

    def _refused(self, claim: Claim, seconds: float) -> Exception:
        """Return why there is no slot, having withdrawn the claim."""
        if claim.refusal is not None:
            self._withdraw(claim, "refused")
            if claim.resumed and not self._driver.state.refusing and not self._driver.failed:
                return AcquisitionLost(claim.instance, claim.refusal)
            return ScalerClosed(f"task {claim.key!r} got no slot: {claim.refusal}")
        why = self._why_not_yet(claim)
        self._withdraw(claim, "timed out", why)
        return AcquireTimeout(f"no slot came free within {seconds:g}s: {why}")

    def _why_not_yet(self, claim: Claim) -> str:
        if not self._driver.holds(claim):
            # Of many tasks that time out together, not each can look for its place.
            many = self._driver.state.demand().waiting > SOUGHT
            return self.explain(None if many else claim.key)
        task = self._driver.state.task(claim.key)
        if task is not None and task.status is TaskStatus.UNCONFIRMED:
            return f"one was found, but its instance {task.instance} has not answered yet"
        return "one was found, but the store has not confirmed it yet"

    # Giving back.

    def _withdraw(self, claim: Claim, outcome: str, reason: str = "") -> None:
        """End a claim before its body began; what was suspended is so again."""
        claim.suspended = claim.suspended or claim.resumed
        self._end(claim, outcome, reason)

    def _end(
        self, claim: Claim, outcome: str | None = None, reason: str = ""
    ) -> AcquisitionLost | AcquisitionSuspended | None:
        """End a claim, whatever has become of it; the core knows. Idempotent.

        Returns:
            Why it ended otherwise than its body did; None if it did not.
        """
        driver, key = self._driver, claim.key
        if driver.claims.get(key) is not claim:
            return _parting(claim)
        holds = driver.holds(claim)
        del driver.claims[key]
        if claim.suspended and claim.grant is not None and not holds and claim.lost is None:
            claim.lost = "it is being removed"
        driver.history.add(claim.entry(outcome, reason))
        if claim.ended is not None:
            claim.ended.set()
        task = driver.state.task(key)
        status = None if task is None else task.status
        if claim.suspended and holds:
            driver.post(events.TaskSuspended(key))
        elif status in (TaskStatus.HOLDING, TaskStatus.UNCONFIRMED, TaskStatus.LOST):
            driver.post(events.TaskReleased(key))
        elif status in (TaskStatus.WAITING, TaskStatus.RESUMING):
            driver.post(events.TaskCancelled(key))
        return _parting(claim)


def _at(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _parting(claim: Claim) -> AcquisitionLost | AcquisitionSuspended | None:
    """Return why a slot is not its task's any more; None if that is not so."""
    if claim.grant is not None and claim.lost is not None:
        return AcquisitionLost(claim.grant.id, claim.lost)
    return AcquisitionSuspended(claim.key) if claim.suspended else None
