"""Acquisition: what a task gets from `Taskscaler.acquire`."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

from fleeting.errors import ConnectionLost, ConnectorError, InstanceError, NotSupported
from taskscaler._errors import AcquisitionLost, IllegalEvent
from taskscaler.core import events
from taskscaler.runtime.witness import WitnessedConnection

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from fleeting.abc import Connection, InstanceGroup
    from taskscaler.core import Grant
    from taskscaler.runtime.claims import Claim
    from taskscaler.runtime.connections import Connections
    from taskscaler.runtime.driver import CoreRunner

__all__ = ("Acquisition",)


class Acquisition:
    """A slot on a ready instance, held by one task.

    `Taskscaler.acquire` returns it. It can only be used inside that block.

    Attributes:
        key: the task's.
        instance: the id of the instance.
        group: the id of its group.
        slot: the number of the slot, from 0, unique on the instance while it is held.
    """

    def __init__(
        self,
        claim: Claim,
        grant: Grant,
        *,
        runner: CoreRunner,
        group: InstanceGroup,
        connections: Connections,
    ) -> None:
        self.key = claim.key
        self.instance = grant.id
        self.group = grant.group
        self.slot = grant.slot
        self._claim = claim
        self._runner = runner
        self._instance_group = group
        self._connections = connections
        # The exception that left `connect` when its connection was broken, and why.
        self._failure: tuple[BaseException, str] | None = None

    def why_lost(self, error: BaseException) -> str | None:
        """Return why the connection broke, if that led to an error; None if it did not.

        Args:
            error: what the body raised. If the body handled the loss before and fails for a
                reason of its own, the instance is not to blame.
        """
        if self._failure is None or not _came_of(error, self._failure[0]):
            return None
        return self._failure[1]

    @property
    def user(self) -> str:
        """Return the user of `slot_users` that this slot has for itself; empty if there is none.

        Raises:
            NotSupported: `slot_users` names too few users.
        """
        return self._connections.slot_user(self.group, self.slot)

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[Connection]:
        """Return a context manager with the instance's connection, shared by all its slots.

        With `slot_users` of the connector's settings, each slot has its own.

        A connection that broke before is replaced. Leaving does not close the connection,
        and neither must the caller: other tasks may be using it. An instance that cannot
        be reached on entering, or whose connection is broken on leaving, gets no further
        task and is replaced when its last task has ended.

        Raises:
            FleetingError: on entering, the instance cannot be reached.
            AcquisitionLost: on entering, the slot is already lost.
            IllegalEvent: on entering, the slot was already given back.
        """
        self._check()
        try:
            connection = await self._connections.get(
                self._instance_group,
                self.instance,
                self._runner.state.settings.operation_timeout.total_seconds(),
                user=self.user,
            )
        except (ConnectorError, InstanceError) as error:
            if not isinstance(error, NotSupported):
                self.report_broken(str(error))
            raise
        reason = f"the connection to instance {self.instance} broke"
        try:
            yield WitnessedConnection(connection, self._claim)
        except BaseException as error:
            reason = _loss_reported_by(error) or reason
            if not connection.is_open and not isinstance(error, GeneratorExit):
                self._failure = (error, reason)
            raise
        finally:
            if not connection.is_open:
                self.report_broken(reason)

    def report_broken(self, reason: str) -> None:
        """Say that the instance does not work, although it can be reached: its disk is full.

        It gets no further task, and is replaced when its last task has ended. Does nothing
        after the slot was lost or given back.

        Args:
            reason: one sentence for the operator.
        """
        # Not after the slot is lost: another instance may have the same id by then.
        if self._runner.holds(self._claim):
            self._runner.post(events.InstanceBroke(self.group, self.instance, reason))

    def _check(self) -> None:
        if self._claim.lost is None and self._runner.holds(self._claim):
            return
        if self._runner.claims.get(self.key) is self._claim:
            raise AcquisitionLost(self.instance, self._claim.lost or "it is being removed")
        raise IllegalEvent(f"task {self.key!r} cannot connect: it does not hold its slot any more")


def _loss_reported_by(error: BaseException) -> str | None:
    """Return the message of a lost connection, if the error is one or contains one."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return next((text for one in group.exceptions if (text := _loss_reported_by(one))), None)
    return str(error) if isinstance(error, ConnectionLost) else None


def _came_of(error: BaseException, first: BaseException) -> bool:
    """Return whether an error is another one, contains it, or was raised because of it."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is first:
            return True
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            waiting += (one.__cause__, one.__context__)
            if isinstance(one, BaseExceptionGroup):
                waiting += cast("BaseExceptionGroup[BaseException]", one).exceptions
    return False
