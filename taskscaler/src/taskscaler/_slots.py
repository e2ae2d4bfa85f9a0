"""Slots for tasks: ask for one, wait for it, hold it, and give it back.

However a task ends, its claim ends in `Slots._end`, which does not await: a
cancellation at any point leaves nothing behind. It looks at what the core knows about
the task at that moment, and gives back just that.

A task that is to be suspended is suspended when its body has ended, clean-up included,
because its instance must not be stopped before.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
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
from taskscaler.core import TaskStatus, events
from taskscaler.runtime.claims import Claim
from taskscaler.runtime.explanations import why_not_yet

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from datetime import timedelta

    from fleeting.abc import InstanceGroup
    from taskscaler.core import Grant
    from taskscaler.runtime.connections import Connections
    from taskscaler.runtime.driver import CoreRunner

__all__ = ("Slots",)


class Slots:
    """Gets slots from the core for tasks, and gives them back.

    Args:
        runner: that of the core.
        groups: opened groups, by id.
        connections: those to the instances.
    """

    def __init__(
        self,
        runner: CoreRunner,
        groups: Mapping[str, InstanceGroup],
        connections: Connections,
    ) -> None:
        self._runner = runner
        self._groups = groups
        self._connections = connections

    @asynccontextmanager
    async def hold(
        self, key: str, timeout: timedelta | None, *, resumed: bool = False
    ) -> AsyncGenerator[Acquisition]:
        """Return a context manager in which a task holds its slot.

        See `Taskscaler.acquire` and, if it is resumed, `Taskscaler.resume`.
        """
        # There may be tens of thousands of waiting tasks, and each further coroutine or generator
        # between them and the claim costs more than a kilobyte.
        claim = Claim(key, resumed=resumed)
        grant = await self._wait(claim, timeout)
        scope = claim.scope = anyio.CancelScope()
        acquisition = Acquisition(
            claim,
            grant,
            runner=self._runner,
            group=self._groups[grant.group],
            connections=self._connections,
        )
        try:
            with scope:
                yield acquisition
        except Exception as error:
            # If the body failed because its slot was lost, raise that error instead. The body
            # may have noticed that before the scaler.
            end = self._end(claim)
            if end is None and (why := acquisition.why_lost(error)) is not None:
                end = AcquisitionLost(grant.id, why)
            if end is None:
                raise
            raise end from error
        finally:
            self._end(claim)
        # Nothing was lost if the body ended before the cancellation reached it.
        if claim.suspended or scope.cancelled_caught:
            raise _why_ended(claim) or AcquisitionLost(grant.id, "it was given up")

    async def suspend(self, key: str) -> None:
        """Cancel the body of a task that holds a slot, and keep the slot.

        See `Taskscaler.suspend`.
        """
        claim = self._runner.claims.get(key)
        if claim is None or claim.grant is None:
            raise IllegalEvent(f"task {key!r} cannot be suspended: it holds no slot")
        if Capability.SUSPEND not in self._groups[claim.grant.group].info.capabilities:
            raise NotSuspendable(
                f"task {key!r} cannot be suspended: its group {claim.grant.group} cannot suspend "
                "instances"
            )
        claim.suspend()
        claim.ended = claim.ended or anyio.Event()
        await claim.ended.wait()
        if claim.lost is not None:
            raise AcquisitionLost(claim.grant.id, claim.lost)
        # Without records of its own: it only waits for what was decided until now.
        await self._runner.commit((), ())

    # From asking to the answer.

    async def _wait(self, claim: Claim, timeout: timedelta | None) -> Grant:
        self._ask(claim)
        seconds = float("inf") if timeout is None else timeout.total_seconds()
        try:
            if timeout is None:
                await claim.answered.wait()  # A cancel scope would cost memory, too.
            else:
                with anyio.move_on_after(seconds):
                    await claim.answered.wait()
        except BaseException:
            self._withdraw(claim, "cancelled")
            raise
        grant = claim.grant
        if grant is None:
            raise self._why_refused(claim, seconds)
        if claim.lost is not None or claim.suspended:
            self._end(claim)
            raise _why_ended(claim) or AcquisitionLost(grant.id, "it was given up")
        return grant

    def _ask(self, claim: Claim) -> None:
        runner, key = self._runner, claim.key
        if runner.ended.is_set():
            # No effect is carried out any more, so no answer would come.
            raise ScalerClosed(f"task {key!r} got no slot: the scaler has ended")
        task = runner.state.task(key)
        if task is not None and task.since is not None:
            claim.instance = task.instance
        elif (lost := runner.claims.take_loss(key)) is not None and claim.resumed:
            raise AcquisitionLost(lost.id, lost.cause)
        previous = runner.claims.replace(key, claim)
        try:
            runner.post(events.TaskResumed(key) if claim.resumed else events.TaskAsked(key))
        except BaseException:
            # The key belongs to another task.
            runner.claims.replace(key, previous)
            raise

    def _why_refused(self, claim: Claim, seconds: float) -> Exception:
        """Withdraw a claim that got no slot; return why."""
        runner = self._runner
        if claim.refusal is not None:
            self._withdraw(claim, "refused")
            if claim.resumed and not runner.state.refusing and not runner.failed:
                if runner.state.task(claim.key) is not None:
                    return AcquireTimeout(f"{claim.refusal}; task {claim.key!r} stays suspended")
                return AcquisitionLost(claim.instance, claim.refusal)
            return ScalerClosed(f"task {claim.key!r} got no slot: {claim.refusal}")
        why = why_not_yet(runner.state, runner.claims, claim, holds=runner.holds(claim))
        self._withdraw(claim, "timed out", why)
        return AcquireTimeout(f"no slot came free within {seconds:g}s: {why}")

    # Giving back.

    def _withdraw(self, claim: Claim, outcome: str, reason: str = "") -> None:
        """End a claim whose body did not begin; a resumed task is suspended again."""
        claim.suspended = claim.suspended or claim.resumed
        self._end(claim, outcome, reason)

    def _end(
        self, claim: Claim, outcome: str | None = None, reason: str = ""
    ) -> AcquisitionLost | AcquisitionSuspended | None:
        """End a claim and give back what the core has for its task. Idempotent.

        Returns:
            Why the slot is not the task's any more; None if the task ended by itself.
        """
        runner, key = self._runner, claim.key
        if runner.claims.get(key) is not claim:
            return _why_ended(claim)
        holds = runner.holds(claim)
        runner.claims.replace(key, None)
        if claim.suspended and claim.grant is not None and not holds and claim.lost is None:
            claim.lost = "it is being removed"
        runner.history.add(claim.entry(outcome, reason))
        if claim.ended is not None:
            claim.ended.set()
        task = runner.state.task(key)
        status = None if task is None else task.status
        if claim.suspended and holds:
            runner.post(events.TaskSuspended(key))
        elif status in (TaskStatus.HOLDING, TaskStatus.UNCONFIRMED, TaskStatus.LOST):
            runner.post(events.TaskReleased(key, proved=claim.proved))
        elif status in (TaskStatus.WAITING, TaskStatus.RESUMING):
            runner.post(events.TaskCancelled(key))
        return _why_ended(claim)


def _why_ended(claim: Claim) -> AcquisitionLost | AcquisitionSuspended | None:
    if claim.grant is not None and claim.lost is not None:
        return AcquisitionLost(claim.grant.id, claim.lost)
    return AcquisitionSuspended(claim.key) if claim.suspended else None
