"""The fake keeps the contract, on both event loops and in all its moods."""

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
    """What all fakes have in common; each of the classes below has a group of its own kind."""

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
        """Open the same group again and again, as if it lived in a cloud."""

        @asynccontextmanager
        async def open_group() -> AsyncGenerator[InstanceGroup]:
            yield group

        return open_group

    @pytest.fixture
    @override
    def check_provider(self) -> Callable[[], Awaitable[Sequence[Finding]]]:
        """Check the provider of such groups."""
        provider = FakeProvider()
        provider.findings += [Finding(Severity.INFO, "fake", "no machine is behind it")]
        return lambda: provider.check(FakeConfig(), GroupSettings())

    @override
    async def connect(self, group: InstanceGroup, info: ConnectInfo) -> Connection:
        """Connect through the group."""
        assert isinstance(group, FakeInstanceGroup)
        return await group.connect(info)

    @override
    async def interrupt(self, group: InstanceGroup, id: str) -> bool:
        """Let the group tell its watchers."""
        assert isinstance(group, FakeInstanceGroup)
        group.announce(Notice(id, "it is taken away"))
        return True


class TestPlainGroup(_FakeContract):
    """The fake as it is made by default."""


class TestFullGroup(_FakeContract):
    """A fake with a limit."""

    @override
    def make_group(self) -> FakeInstanceGroup:
        return FakeInstanceGroup(max_size=3)


class TestSlowGroup(_FakeContract):
    """A fake whose instances are pending, then boot, and linger when they are removed."""

    @override
    def make_group(self) -> FakeInstanceGroup:
        return FakeInstanceGroup(max_size=5, pending_updates=2, boot_updates=3, removal_updates=2)


class TestCapableGroup(_FakeContract):
    """A fake that can do everything, in a group that had instances before."""

    @override
    def make_group(self) -> FakeInstanceGroup:
        group = FakeInstanceGroup(max_size=5, capabilities=list(Capability), boot_updates=1)
        group.add()
        return group


class TestCosts(_FakeContract):
    """Each test adds no more instances than it says, for somebody pays for them."""

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
        # All that was made has got a number; what fills the group is the group's size.
        made = int(group.add().removeprefix("i-")) - 1
        assert made <= shown.adds + 3 * shown.affordable + shown.each_await
