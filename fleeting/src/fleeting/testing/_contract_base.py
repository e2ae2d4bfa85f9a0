"""What the tests of the contract share: the fixtures and attributes that an author overrides."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, TypeAlias

import pytest

import fleeting
from fleeting.testing._examination import examine, present

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from fleeting.abc import Connection, InstanceGroup
    from fleeting.testing._examination import Examination
    from fleeting.types import ConnectInfo, Finding

__all__ = ("CheckProvider", "ContractBase", "OpenGroup")

OpenGroup: TypeAlias = "Callable[[], AbstractAsyncContextManager[InstanceGroup]]"
CheckProvider: TypeAlias = "Callable[[], Awaitable[Sequence[Finding]]]"


@pytest.mark.anyio
class ContractBase:
    """What an author overrides; described in `InstanceGroupContract`."""

    instance_timeout = timedelta(minutes=10)
    call_timeout = timedelta(minutes=1)
    affordable = 5
    page_size: int | None = None
    cancellation_points = 20
    repeats_operations = False
    keeps_instances = True
    can_connect = True
    command = "true"
    unknown_id = "no-such-instance"
    secrets: Sequence[str] = ()
    # Where a run that must print no secret wants those noted that it comes across.
    learned: set[str] | None = None

    @pytest.fixture
    def anyio_backend(self) -> str:
        """Return the event loop to run on; override it as you like."""
        return "asyncio"

    @pytest.fixture
    def open_group(self) -> OpenGroup:
        """Return what opens the group; override this.

        It is called without arguments, more than once in some tests, and returns an
        async context manager, such as `Provider.open` does.
        """
        raise NotImplementedError("override the fixture open_group in your subclass")

    @pytest.fixture
    def check_provider(self) -> CheckProvider | None:
        """Return what calls `Provider.check`; override it to have that tested, too."""
        return None

    async def connect(self, group: InstanceGroup, info: ConnectInfo) -> Connection:  # noqa: ARG002 - a fake's own way needs it
        """Connect to an instance; override it if that needs more than `fleeting.connect`."""
        return await fleeting.connect(info)

    async def interrupt(self, group: InstanceGroup, id: str) -> bool:  # noqa: ARG002 - for who overrides it
        """Make the cloud announce that it takes an instance away; return whether it can.

        Override it if your group can be watched and there is a way to do this, such as
        that of a fake.
        """
        return False

    @asynccontextmanager
    async def examined(
        self, open_group: OpenGroup, *, adds: int = 0
    ) -> AsyncGenerator[Examination]:
        """Open the group for a test, and remove in the end what the test has added.

        The test is skipped if it adds more than can be afforded, or than there is room for.

        Args:
            open_group: the fixture.
            adds: how many instances the test has at most at one time.
        """
        if adds > self.affordable:
            pytest.skip(f"it takes {adds} instances, and affordable is {self.affordable}")
        async with (
            open_group() as group,
            examine(group, self.instance_timeout, self.call_timeout, self.learned) as examination,
        ):
            limit = group.info.max_size
            if limit is not None and adds:
                room = limit - len(present(await examination.listing()))
                if room < adds:
                    pytest.skip(f"it takes {adds} instances, and the group has room for {room}")
            yield examination

    def unknown_ids(self, count: int) -> list[str]:
        """Return ids of no instance: `unknown_id` with other digits at its end."""
        return [f"{self.unknown_id[:-3]}{number:03}" for number in range(count)]
