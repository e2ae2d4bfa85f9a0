"""A provider of fake groups, for tests that start from a configuration."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio.lowlevel
import msgspec
from typing_extensions import override

from fleeting.abc import Provider
from fleeting.testing._fakes.group import FakeInstanceGroup

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from fleeting.types import Finding, GroupSettings

__all__ = ("FakeConfig", "FakeProvider")


class FakeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[plugin_config]` of the fake provider; see `FakeInstanceGroup`.

    Attributes:
        id: the id of the group.
        max_size: the largest size of the group; None for no limit.
        boot_updates: in how many listings a new instance is `CREATING`.
    """

    id: str = "fake/group"
    max_size: int | None = None
    boot_updates: int | None = 0


class FakeProvider(Provider[FakeConfig]):
    """Opens fake groups, and records them.

    It has no entry point: pass an instance of it where a provider is expected, or
    register it in a module of your tests.

    Attributes:
        groups: every group that was opened, in order.
        open_groups: the groups that are open.
        findings: the result of `check`.
        errors: errors that the next calls of `open` raise, one each.
    """

    name = "fake"
    config_type = FakeConfig

    def __init__(self) -> None:
        self.groups: list[FakeInstanceGroup] = []
        self.open_groups: list[FakeInstanceGroup] = []
        self.findings: list[Finding] = []
        self.errors: list[Exception] = []

    @override
    @asynccontextmanager
    async def open(
        self, config: FakeConfig, settings: GroupSettings
    ) -> AsyncGenerator[FakeInstanceGroup]:
        await anyio.lowlevel.checkpoint()
        if self.errors:
            raise self.errors.pop(0)
        group = FakeInstanceGroup(
            id=config.id, max_size=config.max_size, boot_updates=config.boot_updates
        )
        self.groups.append(group)
        self.open_groups.append(group)
        try:
            yield group
        finally:
            self.open_groups.remove(group)

    @override
    async def check(self, config: FakeConfig, settings: GroupSettings) -> Sequence[Finding]:
        await anyio.lowlevel.checkpoint()
        return tuple(self.findings)
