"""The part of the contract's tests that they all share; see `InstanceGroupContract`."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import pytest

from fleeting.testing._contract.cancelling import cancelled_at
from fleeting.testing._contract.examination import examine
from fleeting.testing._contract.expectations import heed, present
from fleeting.testing._contract.terms import Terms

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import timedelta

    from fleeting.abc import Connection, InstanceGroup
    from fleeting.testing._contract.examination import Examination
    from fleeting.testing._contract.faults import Fault
    from fleeting.types import ConnectInfo, Finding, Listing

__all__ = ("CALLS", "REQUESTS", "CheckProvider", "ContractBase", "OpenGroup")

OpenGroup: TypeAlias = "Callable[[], AbstractAsyncContextManager[InstanceGroup]]"
CheckProvider: TypeAlias = "Callable[[], Awaitable[Sequence[Finding]]]"

# The names under which a report of pytest has the numbers of calls and requests of a test.
CALLS = "fleeting-calls"
REQUESTS = "fleeting-requests"


class ContractBase:
    """The attributes and helpers that the tests of every subject use."""

    if TYPE_CHECKING:
        instance_timeout: timedelta
        call_timeout: timedelta
        lag: timedelta
        frugal: bool
        affordable: int
        page_size: int | None
        cancellation_points: int
        repeats_operations: bool
        keeps_instances: bool
        can_connect: bool
        command: str
        unknown_id: str
        foreign_id: str
        retry_after: timedelta | None
        secrets: Sequence[str]

        async def connect(self, group: InstanceGroup, info: ConnectInfo) -> Connection: ...
        async def interrupt(self, group: InstanceGroup, id: str) -> bool: ...
        async def fault(self, group: InstanceGroup | None, kind: Fault) -> bool: ...
        async def exists(self, id: str) -> bool | None: ...
        def requests(self) -> int | None: ...

    # Collects the secrets that a run comes across, so that its output can hide them.
    learned: set[str] | None = None

    @cached_property
    def terms(self) -> Terms:
        """Return the limits of this test."""
        learned = set[str]() if self.learned is None else self.learned
        return Terms(self.instance_timeout, self.call_timeout, self.lag, self.frugal, learned)

    @pytest.fixture(autouse=True)
    def _counted(self, request: pytest.FixtureRequest) -> Generator[None]:
        """Add to the report of a test how many calls and requests it made."""
        self.__dict__.pop("terms", None)  # A subclass may have set its attributes since.
        before = self.requests()
        yield
        # `record_property` would warn, in runs with a report for JUnit.
        noted = request.node.user_properties
        noted.append((CALLS, self.terms.calls.total()))
        after = self.requests()
        if after is not None:
            noted.append((REQUESTS, after - (before or 0)))

    @asynccontextmanager
    async def opening(self, open_group: OpenGroup) -> AsyncGenerator[InstanceGroup]:
        """Open the group, later if the cloud throttles that, as a scaler does."""
        async with AsyncExitStack() as stack:
            yield await heed(lambda: stack.enter_async_context(open_group()), self.instance_timeout)

    async def listed(self, group: InstanceGroup) -> Listing:
        """Return a listing, later if the cloud throttles that."""
        self.terms.calls["update"] += 1
        return await heed(group.update, self.instance_timeout)

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
        async with self.opening(open_group) as group, examine(group, self.terms) as examination:
            limit = group.info.max_size
            if limit is not None and adds:
                room = limit - len(present(await examination.listing()))
                if room < adds:
                    pytest.skip(f"it needs {adds} instances, but the group has room for {room}")
            yield examination

    async def cancelled(
        self,
        point: int,
        call: Callable[[], Awaitable[object]],
        *,
        name: str,
        may_block: bool = False,
    ) -> bool:
        """Make a call and cancel it at an await, again if the cloud throttles it."""
        self.terms.calls[name] += 1
        return await heed(
            lambda: cancelled_at(
                point, call(), limit=self.call_timeout, name=name, may_block=may_block
            ),
            self.instance_timeout,
        )

    @property
    def points(self) -> range:
        """Return the numbers of the awaits at which calls are cancelled."""
        return range(1, self.terms.times(self.cancellation_points) + 1)

    async def cause(self, group: InstanceGroup | None, kind: Fault) -> None:
        """Cause a fault, or skip the test if that is not possible."""
        if not await self.fault(group, kind):
            pytest.skip(
                f"to show it, add `async def fault(self, group, kind)` that causes {kind} in your "
                "fake of the cloud"
            )

    def unknown_ids(self, count: int) -> list[str]:
        """Return ids that no instance has: `unknown_id` with different digits at its end."""
        return [f"{self.unknown_id[:-3]}{number:03}" for number in range(count)]
