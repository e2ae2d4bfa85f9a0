"""What a task gets: a slot on a ready instance, and the way to it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

from fleeting.errors import ConnectionLost, ConnectorError, InstanceError, NotSupported
from taskscaler._errors import AcquisitionLost, IllegalEvent
from taskscaler.core import events

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from fleeting.abc import Connection, InstanceGroup
    from taskscaler.core import Grant
    from taskscaler.runtime.claims import Claim
    from taskscaler.runtime.connections import Connections
    from taskscaler.runtime.driver import Driver

__all__ = ("Acquisition",)


class Acquisition:
    """A slot on a ready instance, held by one task.

    `Taskscaler.acquire` hands it out; it is of no use outside of that block.

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
        driver: Driver,
        group: InstanceGroup,
        connections: Connections,
    ) -> None:
        self.key = claim.key
        self.instance = grant.id
        self.group = grant.group
        self.slot = grant.slot
        self._claim = claim
        self._driver = driver
        self._instance_group = group
        self._connections = connections

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[Connection]:
        """Return a context manager with the instance's connection, shared by all its slots.

        It is made anew if it broke before, and is not closed on leaving: never close
        it, other tasks may be using it. An instance that cannot be reached on
        entering, or whose connection is found broken on leaving, gets no further
        task and is replaced when its last task has ended.

        Raises:
            FleetingError: on entering, the instance cannot be reached.
            AcquisitionLost: on entering, the slot is lost already.
            IllegalEvent: on entering, the slot was given back already.
        """
        self._check()
        try:
            connection = await self._connections.get(
                self._instance_group,
                self.instance,
                self._driver.state.settings.operation_timeout.total_seconds(),
            )
        except (ConnectorError, InstanceError) as error:
            if not isinstance(error, NotSupported):
                self._tell(str(error))
            raise
        reason = f"the connection to instance {self.instance} broke"
        try:
            yield connection
        except BaseException as error:
            reason = _told(error) or reason
            raise
        finally:
            if not connection.is_open:
                self._tell(reason)

    def _check(self) -> None:
        if self._claim.lost is None and self._driver.holds(self._claim):
            return
        if self._driver.claims.get(self.key) is self._claim:
            raise AcquisitionLost(self.instance, self._claim.lost or "it is being removed")
        raise IllegalEvent(f"task {self.key!r} connects without holding a slot")

    def _tell(self, reason: str) -> None:
        """Report the instance as broken, unless it is lost: then another may have its id."""
        if self._driver.holds(self._claim):
            self._driver.post(events.InstanceBroke(self.group, self.instance, reason))


def _told(error: BaseException) -> str | None:
    """Return what an exception says about a lost connection, if it does."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return next((text for one in group.exceptions if (text := _told(one))), None)
    return str(error) if isinstance(error, ConnectionLost) else None
