"""The common part of the wrong groups: the contract on a fake group, with short timeouts."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from typing_extensions import override

from fleeting.testing import FakeInstanceGroup, InstanceGroupContract
from fleeting.types import Capability, Finding, Notice, Severity

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from fleeting.abc import Connection, InstanceGroup
    from fleeting.types import ConnectInfo

__all__ = ("WARNING", "WrongContract")

WARNING = Finding(Severity.WARNING, "small", "the group is small", "make it larger")


class WrongContract(InstanceGroupContract):
    """Can show every promise, so that no test is skipped."""

    instance_timeout = timedelta(seconds=0.4)
    call_timeout = timedelta(seconds=0.4)
    repeats_operations = True
    page_size = 2
    secrets = ("correct-horse-battery",)
    Group: type[FakeInstanceGroup] = FakeInstanceGroup

    def make_group(self) -> FakeInstanceGroup:
        """Return the group that breaks a promise."""
        return self.Group(max_size=3, capabilities=list(Capability))

    @pytest.fixture
    def group(self) -> FakeInstanceGroup:
        """Return the group of a test, which every opening yields."""
        return self.make_group()

    @pytest.fixture
    @override
    def open_group(
        self, group: FakeInstanceGroup
    ) -> Callable[[], AbstractAsyncContextManager[InstanceGroup]]:
        """Return what opens the wrong group."""

        @asynccontextmanager
        async def open_group() -> AsyncGenerator[InstanceGroup]:
            async with self.opened(group):
                yield group

        return open_group

    @asynccontextmanager
    async def opened(self, group: FakeInstanceGroup) -> AsyncGenerator[None]:  # noqa: ARG002 - subclasses use it
        """Surround the use of the group; subclasses override it."""
        yield

    @pytest.fixture
    @override
    def check_provider(
        self, group: FakeInstanceGroup
    ) -> Callable[[], Awaitable[Sequence[Finding]]]:
        """Return what checks the group."""

        async def check() -> Sequence[Finding]:
            return await self.checked(group)

        return check

    async def checked(self, group: FakeInstanceGroup) -> Sequence[Finding]:  # noqa: ARG002 - as above
        """Return the findings about the group; subclasses override it."""
        return [WARNING]

    @override
    async def connect(self, group: InstanceGroup, info: ConnectInfo) -> Connection:
        assert isinstance(group, FakeInstanceGroup)
        return await group.connect(info)

    @override
    async def interrupt(self, group: InstanceGroup, id: str) -> bool:
        assert isinstance(group, FakeInstanceGroup)
        group.announce(Notice(id, "spot price"))
        return True
