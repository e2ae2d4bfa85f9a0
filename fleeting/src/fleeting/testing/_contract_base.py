"""What the tests of the contract share; what an author overrides is in `InstanceGroupContract`."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

import pytest

from fleeting.testing._examination import examine, present

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import timedelta

    from fleeting.abc import Connection, InstanceGroup
    from fleeting.testing._examination import Examination
    from fleeting.types import ConnectInfo, Finding

__all__ = ("CheckProvider", "ContractBase", "OpenGroup")

OpenGroup: TypeAlias = "Callable[[], AbstractAsyncContextManager[InstanceGroup]]"
CheckProvider: TypeAlias = "Callable[[], Awaitable[Sequence[Finding]]]"


class ContractBase:
    """What the tests of each subject know of the class that they become a part of."""

    if TYPE_CHECKING:
        instance_timeout: timedelta
        call_timeout: timedelta
        affordable: int
        page_size: int | None
        cancellation_points: int
        repeats_operations: bool
        keeps_instances: bool
        can_connect: bool
        command: str
        unknown_id: str
        secrets: Sequence[str]

        async def connect(self, group: InstanceGroup, info: ConnectInfo) -> Connection: ...
        async def interrupt(self, group: InstanceGroup, id: str) -> bool: ...

    # Where a run that must print no secret wants those noted that it comes across.
    learned: set[str] | None = None

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
            pytest.skip(f"affordable is {self.affordable}, and it takes {adds}")
        async with (
            open_group() as group,
            examine(group, self.instance_timeout, self.call_timeout, self.learned) as examination,
        ):
            limit = group.info.max_size
            if limit is not None and adds:
                room = limit - len(present(await examination.listing()))
                if room < adds:
                    pytest.skip(f"the group has room for {room}, and it takes {adds}")
            yield examination

    def unknown_ids(self, count: int) -> list[str]:
        """Return ids of no instance: `unknown_id` with other digits at its end."""
        return [f"{self.unknown_id[:-3]}{number:03}" for number in range(count)]
