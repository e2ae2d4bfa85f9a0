"""Instances whose time to get ready is up."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
import pytest

from fleeting.errors import Unreachable
from fleeting.testing import Command, FakeConnector, FakeInstanceGroup, Gate, Reply
from fleeting.types import Exit
from taskscaler import Policy, Settings, Taskscaler
from taskscaler.core import Stage

if TYPE_CHECKING:
    from fleeting.abc import Connection
    from fleeting.types import ConnectInfo

pytestmark = pytest.mark.anyio

LAZY = Policy(idle_time=timedelta(hours=10))
COMMAND = Settings(instance_ready_command="is-it-ready", max_instances=1, policy=LAZY)
SETTLED = Settings(max_instances=1, instance_ready_timeout=timedelta(minutes=2), policy=LAZY)


async def test_a_ready_command_that_never_ends_is_the_reason() -> None:
    """Not the refused connections before it: the instance can be reached."""
    asked = 0

    async def never_ends(_: Command) -> Exit:
        nonlocal asked
        asked += 1
        if asked == 1:
            await anyio.sleep_forever()
        return Exit(0)

    group = FakeInstanceGroup(connector=FakeConnector(never_ends))
    refused = [Unreachable("refused")]

    async def connect(info: ConnectInfo) -> Connection:
        if refused:
            raise refused.pop()
        return await group.connect(info)

    settings = replace(COMMAND, instance_ready_timeout=timedelta(minutes=2))
    stages: list[Stage] = []
    async with Taskscaler([group], settings, connect=connect) as scaler:
        async with anyio.create_task_group() as tasks:

            async def run() -> None:
                async with scaler.acquire("a", timeout=timedelta(hours=1)) as acquisition:
                    assert acquisition.instance == "i-2"

            tasks.start_soon(run)
            await group.until(lambda: asked == 1)
            await group.until(lambda: bool(group.calls_of("decrease")))
            stages += [one.stage for one in scaler.standing().obstacles]
        bygone = scaler.instances()[0]
    assert stages == [Stage.CONNECT, Stage.READY_COMMAND]
    assert bygone.removal_reason == (
        "it was not ready within 120s: the instance_ready_command did not end"
    )


@pytest.mark.parametrize("seconds", [60, 600])
async def test_a_provider_that_hangs_costs_no_instance(seconds: int) -> None:
    """If it does not say in time how to connect, the instance stays, and it is asked again."""
    group = FakeInstanceGroup()
    group.script("connect_info", Reply(before=Gate()))
    settings = replace(SETTLED, max_instances=3, operation_timeout=timedelta(seconds=seconds))
    async with Taskscaler([group], settings, connect=group.connect) as scaler:
        async with scaler.acquire("a", timeout=timedelta(hours=1)) as acquisition:
            assert acquisition.instance == "i-1"
    assert group.largest == 1
