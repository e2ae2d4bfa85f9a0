"""A list of hosts as an instance group: an increase takes hosts, a decrease returns them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from fleeting.abc import InstanceGroup
from fleeting.errors import InstanceGone, OutOfCapacity
from fleeting.types import Accepted, GroupInfo, Instance, Listing, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fleeting.types import ConnectInfo


class FixedHosts(InstanceGroup):
    """Hosts that always run.

    Args:
        hosts: how to reach each; their ids are those of the instances.
    """

    def __init__(self, hosts: Sequence[ConnectInfo]) -> None:
        self.info = GroupInfo(id="fixed", max_size=len(hosts))
        self._hosts = {host.id: host for host in hosts}
        # Each use of a host counts as another instance with the same id.
        self._used: dict[str, str] = {}

    @override
    async def update(self) -> Listing:
        return Listing(tuple(Instance(id, State.RUNNING, use) for id, use in self._used.items()))

    @override
    async def increase(self, count: int, operation: str) -> Accepted:
        taken = [id for id in self._hosts if id not in self._used][:count]
        self._used |= {id: f"{operation}/{id}" for id in taken}
        error = OutOfCapacity("all hosts of the list are in use") if len(taken) < count else None
        if error and not taken:
            raise error
        return Accepted(len(taken), tuple(taken), error)

    @override
    async def decrease(self, ids: Sequence[str]) -> Accepted:
        for id in ids:
            self._used.pop(id, None)
        return Accepted(len(ids), tuple(ids))

    @override
    async def connect_info(self, id: str) -> ConnectInfo:
        await self.heartbeat(id)
        return self._hosts[id]

    @override
    async def heartbeat(self, id: str) -> None:
        if id not in self._used:
            raise InstanceGone(id, f"host {id} is not in use")
