"""The fake keeps the contract on both event loops, with all kinds of settings."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from typing_extensions import override

from fleeting.testing import (
    FakeConfig,
    FakeInstanceGroup,
    FakeProvider,
    InstanceGroupContract,
)
from fleeting.testing._contract.promises import promise_of
from fleeting.types import Capability, Finding, GroupSettings, Notice, Severity

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
    from contextlib import AbstractAsyncContextManager

    from fleeting.abc import Connection, InstanceGroup
    from fleeting.types import ConnectInfo


class _FakeContract(InstanceGroupContract):
    """The common part of the classes below, which differ in their group."""

    instance_timeout = timedelta(seconds=10)
    call_timeout = timedelta(seconds=10)
    repeats_operations = True
    page_size = 0
    secrets = ("correct-horse-battery",)

    def make_group(self) -> FakeInstanceGroup:
        """Return the group under test."""
        return FakeInstanceGroup()

    @pytest.fixture(params=["asyncio", "trio"])
    @override
    def anyio_backend(self, request: pytest.FixtureRequest) -> str:
        """Run on both event loops."""
        return str(request.param)

    @pytest.fixture
    def group(self) -> FakeInstanceGroup:
        """Return the one group of a test."""
        return self.make_group()

    @pytest.fixture
    @override
    def open_group(
        self, group: FakeInstanceGroup
    ) -> Callable[[], AbstractAsyncContextManager[InstanceGroup]]:
        """Return what opens the same group each time, as a cloud's group."""

        @asynccontextmanager
        async def open_group() -> AsyncGenerator[InstanceGroup]:
            yield group

        return open_group

    @pytest.fixture
    @override
    def check_provider(self) -> Callable[[], Awaitable[Sequence[Finding]]]:
        """Return what checks the provider of the group."""
        provider = FakeProvider()
        provider.findings += [Finding(Severity.INFO, "fake", "its instances are fakes")]
        return lambda: provider.check(FakeConfig(), GroupSettings())

    @override
    async def connect(self, group: InstanceGroup, info: ConnectInfo) -> Connection:
        """Connect through the group."""
        assert isinstance(group, FakeInstanceGroup)
        return await group.connect(info)

    @override
    async def interrupt(self, group: InstanceGroup, id: str) -> bool:
        """Announce an interruption to the watchers of the group."""
        assert isinstance(group, FakeInstanceGroup)
        group.announce(Notice(id, "spot capacity is reclaimed"))
        return True


class TestPlainGroup(_FakeContract):
    """The fake as it is made by default."""


class TestFullGroup(_FakeContract):
    """A fake with a limit."""

    @override
    def make_group(self) -> FakeInstanceGroup:
        return FakeInstanceGroup(max_size=3)


class TestSlowGroup(_FakeContract):
    """A fake whose instances take several listings to start and to be removed."""

    @override
    def make_group(self) -> FakeInstanceGroup:
        return FakeInstanceGroup(max_size=5, pending_updates=2, boot_updates=3, removal_updates=2)


class TestCapableGroup(_FakeContract):
    """A fake with all capabilities, and an instance from before the tests."""

    @override
    def make_group(self) -> FakeInstanceGroup:
        group = FakeInstanceGroup(max_size=5, capabilities=list(Capability), boot_updates=1)
        group.add()
        return group


class TestCosts(_FakeContract):
    """Each test adds at most as many instances as it declares."""

    @override
    def make_group(self) -> FakeInstanceGroup:
        return FakeInstanceGroup(max_size=3, capabilities=list(Capability))

    @pytest.fixture
    @override
    def anyio_backend(self) -> str:
        """Run on one event loop: the other costs the same."""
        return "asyncio"

    @pytest.fixture(autouse=True)
    def _cost(self, group: FakeInstanceGroup, request: pytest.FixtureRequest) -> Generator[None]:
        yield
        shown = promise_of(type(self), request.function.__name__)
        assert shown is not None
        # Ids are numbered, so the next one tells how many were created; max_size fills the group.
        made = int(group.add().removeprefix("i-")) - 1
        assert made <= shown.adds + 3 * shown.affordable + shown.each_await
