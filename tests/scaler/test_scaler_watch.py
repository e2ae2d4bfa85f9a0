"""Groups that announce interruptions."""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.lowlevel import checkpoint

from fleeting.errors import ProviderError
from fleeting.testing import FakeInstanceGroup, Reply
from fleeting.types import Capability, Notice
from taskscaler import Policy, Settings, Taskscaler

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

LAZY = Policy(idle_time=timedelta(hours=10))
TWO_SLOTS = Settings(capacity_per_instance=2, policy=LAZY)


def watched() -> FakeInstanceGroup:
    """Return a group that announces interruptions."""
    return FakeInstanceGroup(capabilities=[Capability.WATCH])


async def test_an_interrupted_instance_gets_no_further_task() -> None:
    """Its task goes on, the next one gets another instance, and the first is replaced."""
    group = watched()
    async with Taskscaler([group], TWO_SLOTS, connect=group.connect) as scaler:
        async with scaler.acquire("runs on") as first:
            group.announce(Notice(first.instance, "the price went up"))
            while not scaler.capacity().instances["draining"]:
                await checkpoint()
            async with scaler.acquire("next") as second:
                assert second.instance != first.instance
            async with first.connect() as connection:
                assert (await connection.run("true")).succeeded
            assert group.calls_of("decrease") == []
        await group.until(lambda: group.calls_of("decrease") != [])
        assert group.calls_of("decrease")[0].ids == (first.instance,)
        (reason,) = [one.removal_reason for one in scaler.instances() if one.id == first.instance]
        assert "the price went up" in str(reason)


async def test_a_group_without_the_capability_is_not_watched() -> None:
    """Its `watch` is never called."""
    group = FakeInstanceGroup()
    async with (
        Taskscaler([group], Settings(policy=LAZY), connect=group.connect) as scaler,
        scaler.acquire("a"),
    ):
        pass
    assert group.calls_of("watch") == []


async def test_a_failing_watch_is_restarted_with_longer_pauses() -> None:
    """After 1, 2, 4 ... seconds, at most a minute; later notices are received."""
    group = watched()
    group.script("watch", *[Reply(error=ProviderError("no connection"))] * 9)
    async with (
        Taskscaler([group], TWO_SLOTS, connect=group.connect) as scaler,
        scaler.acquire("a") as acquisition,
    ):
        times: list[float] = []
        for count in range(2, 11):
            await group.until(lambda count=count: len(group.calls_of("watch")) >= count)  # type: ignore[misc] # mypy knows no lambda with defaults
            times.append(anyio.current_time())
        pauses = [round(later - one) for one, later in itertools.pairwise(times)]
        assert pauses == [2, 4, 8, 16, 32, 60, 60, 60]
        group.announce(Notice(acquisition.instance, "maintenance"))
        while not scaler.capacity().instances["draining"]:
            await checkpoint()


async def test_the_pause_is_short_again_after_a_notice() -> None:
    """Earlier failures do not lengthen the pause after a success."""
    group = watched()
    error = Reply(error=ProviderError("no connection"))
    group.script("watch", error, error, error, Reply(), error)
    async with Taskscaler([group], TWO_SLOTS, connect=group.connect):
        group.announce(Notice("unknown", "maintenance"))
        await group.until(lambda: len(group.calls_of("watch")) == 4)
        before = anyio.current_time()
        await group.until(lambda: len(group.calls_of("watch")) == 5)
        assert anyio.current_time() - before == pytest.approx(1)


class Wrong(FakeInstanceGroup):
    """A group whose `watch` has a bug."""

    kind = "returns"

    def __init__(self) -> None:
        super().__init__(capabilities=[Capability.WATCH])
        self.watches = 0
        self.closers: list[tuple[int, int]] = []

    async def watch(self) -> AsyncIterator[Notice]:
        self.watches += 1
        task = anyio.get_current_task().id
        await checkpoint()
        if self.kind == "announces nonsense":
            try:
                yield "a s3cret"  # type: ignore[misc] # pyright: ignore[reportReturnType] - a plugin with a bug
            finally:
                self.closers.append((task, anyio.get_current_task().id))
        if self.kind == "raises":
            raise RuntimeError("oops")
        if self.kind == "is cancelled":
            raise asyncio.CancelledError


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
@pytest.mark.parametrize("kind", ["returns", "raises", "is cancelled", "announces nonsense"])
async def test_a_watch_with_a_bug_does_not_end_the_scaler(kind: str) -> None:
    """Tasks get slots, the watch is restarted, and leaving ends it."""
    group = Wrong()
    group.kind = kind
    async with Taskscaler([group], Settings(policy=LAZY), connect=group.connect) as scaler:
        async with scaler.acquire("a") as acquisition:
            assert acquisition.instance == "i-1"
        await anyio.sleep(60)
    assert group.watches > 3


async def test_a_watch_that_announces_a_wrong_value_is_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its clean-up runs at once, and the value is not logged."""
    group = Wrong()
    group.kind = "announces nonsense"
    async with Taskscaler([group], Settings(policy=LAZY), connect=group.connect):
        await group.until(lambda: group.watches > 1)
    assert group.closers
    assert all(began == closed for began, closed in group.closers)
    assert "it announced a str instead of a Notice" in caplog.text
    assert "s3cret" not in caplog.text
