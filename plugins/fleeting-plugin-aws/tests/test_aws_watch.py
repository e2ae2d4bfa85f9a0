"""Interruption notices from the queue."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import anyio
import pytest

from aws_errors import AccessDenied, Unavailable
from aws_plugin import open_group, states
from fleeting.errors import NotSupported, OutcomeUnknown, PermissionDenied

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from aws_cloud import AwsCloud
    from fleeting.abc import InstanceGroup
    from fleeting.types import Notice

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def watching(group: InstanceGroup) -> AsyncGenerator[AsyncGenerator[Notice]]:
    """Watch a group, and close the watch."""
    notices = cast("AsyncGenerator[Notice]", group.watch())
    try:
        yield notices
    finally:
        await notices.aclose()


async def test_notices_come_at_once(cloud: AwsCloud) -> None:
    """A warning is yielded with its deadline, and a recommendation without one."""
    cloud.group("builders", desired=2, spot=True)
    queue = cloud.queue("interruptions")
    async with open_group(cloud, interruption_queue_url=queue.url) as group:
        first, second = states(await group.update())
        async with watching(group) as notices:
            queue.warn_of_interruption(first)
            notice = await anext(notices)
            assert notice.id == first
            assert notice.deadline is not None
            assert 100 < (notice.deadline - datetime.now(UTC)).total_seconds() <= 120
            queue.recommend_rebalance(second)
            notice = await anext(notices)
            assert (notice.id, notice.deadline) == (second, None)


async def test_messages_are_deleted_after_their_notice(cloud: AwsCloud) -> None:
    """A message is deleted after its notice was yielded, and not before."""
    cloud.group("builders", desired=1)
    queue = cloud.queue("interruptions")
    async with open_group(cloud, interruption_queue_url=queue.url) as group:
        [id] = states(await group.update())
        queue.announce_termination("builders", id)
        async with watching(group) as notices:
            assert (await anext(notices)).id == id
            assert cloud.calls("DeleteMessageBatch") == []
            queue.announce_termination("builders", id)
            assert (await anext(notices)).id == id
        assert len(cloud.calls("DeleteMessageBatch")) == 1


async def test_unreadable_messages_are_skipped(
    cloud: AwsCloud, caplog: pytest.LogCaptureFixture
) -> None:
    """Messages that are not events are deleted and logged without their text."""
    cloud.group("builders", desired=1)
    queue = cloud.queue("interruptions")
    async with open_group(cloud, interruption_queue_url=queue.url) as group:
        [id] = states(await group.update())
        queue.send("hunter2")
        queue.announce_termination("others", "i-00000000000000001")
        queue.tell_of_termination("builders", id)
        queue.warn_of_interruption(id)
        async with watching(group) as notices:
            found = await anext(notices)
            assert "interrupts the spot instance" in found.reason
    messages = [one.getMessage() for one in caplog.records]
    assert any(one.startswith("ignoring a message") for one in messages)
    assert all("hunter2" not in one for one in messages)


async def test_failing_queue_raises(cloud: AwsCloud) -> None:
    """A failing request ends the watch with an error, and the queue can be watched again."""
    cloud.group("builders", desired=1)
    queue = cloud.queue("interruptions")
    async with open_group(cloud, interruption_queue_url=queue.url) as group:
        [id] = states(await group.update())
        cloud.fail("ReceiveMessage", AccessDenied())
        async with watching(group) as notices:
            with pytest.raises(PermissionDenied, match="ReceiveMessage"):
                await anext(notices)
        queue.warn_of_interruption(id)
        cloud.fail("DeleteMessageBatch", Unavailable())
        async with watching(group) as notices:
            assert (await anext(notices)).id == id
            with pytest.raises(OutcomeUnknown):
                await anext(notices)


async def test_empty_queue_is_asked_again(cloud: AwsCloud) -> None:
    """While the queue is empty, the watch sends one waiting request after the other."""
    cloud.group("builders", desired=1)
    queue = cloud.queue("interruptions")
    async with open_group(cloud, interruption_queue_url=queue.url) as group:
        [id] = states(await group.update())
        async with watching(group) as notices, anyio.create_task_group() as tasks:

            async def announce() -> None:
                await cloud.reached("ReceiveMessage", 2)
                queue.warn_of_interruption(id)

            tasks.start_soon(announce)
            assert (await anext(notices)).id == id
        assert {call.parameters["WaitTimeSeconds"] for call in cloud.calls("ReceiveMessage")} == {1}


async def test_watching_needs_a_queue(cloud: AwsCloud) -> None:
    """The error for a group without a queue names the missing key."""
    cloud.group("builders")
    async with open_group(cloud) as group:
        with pytest.raises(NotSupported, match="interruption_queue_url"):
            group.watch()
