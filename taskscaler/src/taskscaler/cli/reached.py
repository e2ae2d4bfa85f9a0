"""A group whose instances are reached in a way of its own.

A scaler knows one word of the operator on reaching instances. Where several groups
have words that differ, each group says its own itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from fleeting.abc import InstanceGroup

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from fleeting.types import Accepted, ConnectInfo, ConnectorSettings, Listing, Notice

__all__ = ("ReachedGroup",)


class ReachedGroup(InstanceGroup):
    """A group with the operator's word on reaching its instances.

    Args:
        group: opened; does everything else.
        connector: the operator's word.
    """

    def __init__(self, group: InstanceGroup, connector: ConnectorSettings) -> None:
        self.info = group.info
        self._group = group
        self._connector = connector

    @override
    async def connect_info(self, id: str) -> ConnectInfo:
        info = await self._group.connect_info(id)
        return info.with_settings(self._connector)

    @override
    async def update(self) -> Listing:
        return await self._group.update()

    @override
    async def increase(self, count: int, operation: str) -> Accepted:
        return await self._group.increase(count, operation)

    @override
    async def decrease(self, ids: Sequence[str]) -> Accepted:
        return await self._group.decrease(ids)

    @override
    async def heartbeat(self, id: str) -> None:
        await self._group.heartbeat(id)

    @override
    async def suspend(self, ids: Sequence[str]) -> Accepted:
        return await self._group.suspend(ids)

    @override
    async def resume(self, ids: Sequence[str]) -> Accepted:
        return await self._group.resume(ids)

    @override
    def watch(self) -> AsyncIterator[Notice]:
        return self._group.watch()
