"""The part of the contract's tests that they all share; see `InstanceGroupContract`."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

import pytest

from fleeting.testing._contract.examination import examine
from fleeting.testing._contract.expectations import present

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import timedelta

    from fleeting.abc import Connection, InstanceGroup
    from fleeting.testing._contract.examination import Examination
    from fleeting.types import ConnectInfo, Finding

__all__ = ("CheckProvider", "ContractBase", "OpenGroup")

OpenGroup: TypeAlias = "Callable[[], AbstractAsyncContextManager[InstanceGroup]]"
CheckProvider: TypeAlias = "Callable[[], Awaitable[Sequence[Finding]]]"


class ContractBase:
    """The attributes and helpers that the tests of every subject use."""

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

    # Collects the secrets that a run comes across, so that its output can hide them.
    learned: set[str] | None = None

    @asynccontextmanager
    async def examined(
        self, open_group: OpenGroup, *, adds: int = 0
    ) -> AsyncGenerator[Examination]:
        """Open the group for a test, and finally remove the instances that the test added.

        The test is skipped if it needs more instances than are affordable or fit into the
        group.

        Args:
            open_group: the fixture.
            adds: the largest number of instances that the test has at one time.
        """
        if adds > self.affordable:
            pytest.skip(f"it needs {adds} instances, but affordable is {self.affordable}")
        async with (
            open_group() as group,
            examine(group, self.instance_timeout, self.call_timeout, self.learned) as examination,
        ):
            limit = group.info.max_size
            if limit is not None and adds:
                room = limit - len(present(await examination.listing()))
                if room < adds:
                    pytest.skip(f"it needs {adds} instances, but the group has room for {room}")
            yield examination

    def unknown_ids(self, count: int) -> list[str]:
        """Return ids that no instance has: `unknown_id` with different digits at its end."""
        return [f"{self.unknown_id[:-3]}{number:03}" for number in range(count)]
