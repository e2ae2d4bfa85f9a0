"""A group that a test has prepared, as the commands select it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from typing_extensions import override

from fleeting.cli._selection import GroupSelection
from fleeting.testing import FakeInstanceGroup, FakeProvider
from fleeting.types import GroupSettings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class PreparedProvider(FakeProvider):
    """Opens a group that a test has prepared."""

    def __init__(self, group: FakeInstanceGroup) -> None:
        super().__init__()
        self.group = group

    @override
    @asynccontextmanager
    async def open(self, config: object, settings: object) -> AsyncGenerator[FakeInstanceGroup]:
        # A real provider may have tasks of its own while a group is open.
        async with anyio.create_task_group():
            yield self.group


def selected(provider: FakeProvider) -> GroupSelection:
    """Return the selection of the group of a provider."""
    config = provider.config_type()
    return GroupSelection("plugin fake", provider, config, GroupSettings(), "--plugin fake")


def selection(group: FakeInstanceGroup) -> GroupSelection:
    """Return the selection of a prepared group."""
    return selected(PreparedProvider(group))
