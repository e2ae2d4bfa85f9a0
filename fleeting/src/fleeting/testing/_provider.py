"""A provider of fake groups, for tests that go the way from a configuration to a group."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio.lowlevel
import msgspec
from typing_extensions import override

from fleeting.abc import Provider
from fleeting.testing._group import FakeInstanceGroup

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from fleeting.types import Finding, GroupSettings

__all__ = ("FakeConfig", "FakeProvider")


class FakeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[plugin_config]` of the fake provider; see `FakeInstanceGroup` for the meaning.

    Attributes:
        id: of the group.
        max_size: beyond which nothing is accepted.
        boot_updates: in how many listings a new instance is being created.
    """

    id: str = "fake/group"
    max_size: int | None = None
    boot_updates: int | None = 0


class FakeProvider(Provider):
    """Opens fake groups, and remembers them.

    No entry point leads to it: give an instance of it to whatever takes a provider,
    or let a module of your tests register it.

    Attributes:
        groups: every group that was opened, in order.
        open_groups: those that are open now.
        findings: what `check` returns.
        errors: raised by the next calls of `open`, one each.
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
