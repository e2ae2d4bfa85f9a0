"""Health checks: what they ask, and what follows from the answers."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.lowlevel import checkpoint
from typing_extensions import override

from fleeting.errors import InstanceUnhealthy, NotSupported, ProviderError, Unreachable
from fleeting.testing import Command, FakeConnection, FakeConnector, FakeInstanceGroup, Gate, Reply
from fleeting.types import ConnectorSettings
from taskscaler import Policy, Settings, Taskscaler
from taskscaler.core import effects, events
from taskscaler.runtime.connections import Connections
from taskscaler.runtime.instance_checks import check_health

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from fleeting.abc import Connection, Process
    from fleeting.types import ConnectInfo

pytestmark = pytest.mark.anyio

LAZY = Policy(idle_time=timedelta(hours=10))
KEEP_ONE = Policy(idle_count=1, idle_time=timedelta(hours=10))
PASSED = events.HealthPassed("fake/group", "i-1")


class Hosts:
    """Runs every command, or hangs on some instances, and records them."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, str]] = []
        self.hanging: set[str] = set()
        self.status = 0

    async def __call__(self, command: Command, /) -> int:
        """Run one command."""
        self.ran.append((command.instance, command.line))
        if command.instance in self.hanging:
            await anyio.sleep_forever()
        return self.status


async def check(
    group: FakeInstanceGroup, connections: Connections | None = None, *, cloud: bool = True
) -> events.Event:
    """Check the only instance of a group."""
    connections = connections or Connections(group.connect, {group.info.id: ConnectorSettings()})
    effect = effects.CheckHealth(group.info.id, "i-1", 10.0, cloud)
    event = await check_health(group, connections, effect)
    await connections.aclose()
    return event


def failed(event: events.Event) -> str:
    """Return why a check failed."""
    assert isinstance(event, events.HealthFailed)
    return event.reason


async def test_an_instance_that_was_idle_is_probed_before_a_grant() -> None:
    """Before the second task, a trivial command runs there; the provider is not asked."""
    hosts = Hosts()
    group = FakeInstanceGroup(connector=FakeConnector(hosts))
    async with Taskscaler([group], Settings(policy=LAZY), connect=group.connect) as scaler:
        async with scaler.acquire("a"):
            assert hosts.ran == []
        await anyio.sleep(11)
        async with scaler.acquire("b"):
            assert hosts.ran == [("i-1", "exit 0")]
    assert group.calls_of("heartbeat") == []
    assert len(group.calls_of("connect_info")) == 1
    assert len(group.calls_of("connect")) == 1


async def test_a_task_that_ran_a_command_has_proved_its_instance() -> None:
    """The next task gets the slot at once, whatever else the connection was used for before."""
    hosts = Hosts()
    group = FakeInstanceGroup(connector=FakeConnector(hosts))
    async with Taskscaler([group], Settings(policy=LAZY), connect=group.connect) as scaler:
        async with scaler.acquire("a") as acquisition, acquisition.connect() as connection:
            async with connection.start("first") as process:
                await process.wait()
            await anyio.sleep(11)
            assert (await connection.run("second")).succeeded
        async with scaler.acquire("b"):
            pass
    assert hosts.ran == [("i-1", "first"), ("i-1", "second")]


@pytest.mark.parametrize("how", ["timeout of the task", "timeout of the command", "unused"])
async def test_a_task_that_hung_proves_nothing(how: str) -> None:
    """The next task waits for a check, which the instance fails, and gets another instance."""
    hosts = Hosts()
    group = FakeInstanceGroup(connector=FakeConnector(hosts))
    async with Taskscaler([group], Settings(policy=LAZY), connect=group.connect) as scaler:
        async with scaler.acquire("a") as acquisition, acquisition.connect() as connection:
            await connection.run("works")
            hosts.hanging.add("i-1")
            if how == "timeout of the task":
                with anyio.move_on_after(240):
                    await connection.run("hangs")
            elif how == "timeout of the command":
                await connection.run("hangs", timeout=timedelta(seconds=240))
            else:
                connection.start("hangs")
                await anyio.sleep(240)
        async with scaler.acquire("b") as acquisition:
            assert acquisition.instance == "i-2"


async def test_an_idle_instance_is_checked_periodically() -> None:
    """Every `heartbeat_interval`, the instance and the provider are asked."""
    hosts = Hosts()
    group = FakeInstanceGroup(connector=FakeConnector(hosts))
    async with Taskscaler([group], Settings(policy=KEEP_ONE), connect=group.connect):
        await group.until(lambda: len(group.calls_of("heartbeat")) == 2)
    assert hosts.ran == [("i-1", "exit 0")] * 2


async def test_an_instance_that_hangs_gets_no_task_and_is_replaced() -> None:
    """The task gets another instance; after three failures the first is removed."""
    hosts = Hosts()
    group = FakeInstanceGroup(connector=FakeConnector(hosts))
    async with Taskscaler([group], Settings(policy=LAZY), connect=group.connect) as scaler:
        async with scaler.acquire("a"):
            pass
        hosts.hanging.add("i-1")
        await anyio.sleep(11)
        async with scaler.acquire("b") as acquisition:
            assert acquisition.instance == "i-2"
        await group.until(lambda: bool(group.calls_of("decrease")))
        await group.until(lambda: group.size == 1)
        (gone,) = [one for one in scaler.instances() if one.id == "i-1"]
        assert "failed 3 checks in a row" in str(gone.removal_reason)
        assert "did not answer within 10s" in str(gone.removal_reason)


async def test_cancelling_a_task_while_its_instance_is_probed_leaves_nothing() -> None:
    """Its slot is free again, and the next task gets it after the probe has passed."""
    gate = Gate()

    async def play(command: Command, /) -> int:
        assert command.line == "exit 0"
        await gate.pass_through()
        return 0

    group = FakeInstanceGroup(connector=FakeConnector(play))
    settings = Settings(policy=LAZY, max_instances=1, probe_timeout=timedelta(hours=1))
    async with Taskscaler([group], settings, connect=group.connect) as scaler:
        async with scaler.acquire("a"):
            pass
        await anyio.sleep(11)

        async def run(key: str) -> None:
            async with scaler.acquire(key):
                served.append(key)

        served: list[str] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, "b")
            await gate.reached()
            assert "has answered" in scaler.explain("b")
            tasks.cancel_scope.cancel()
        assert scaler.capacity().slots_used == 0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, "b")
            while not scaler.capacity().slots_used:
                await checkpoint()
            gate.open()
    assert served == ["b"]


async def test_a_check_of_the_predecessor_does_not_affect_the_successor() -> None:
    """An instance that is recreated during a check is judged by its own answers."""
    gate = Gate()
    group = FakeInstanceGroup()
    group.script("heartbeat", Reply(before=gate, error=InstanceUnhealthy("i-1", "it is sick")))
    settings = Settings(policy=KEEP_ONE, probe_timeout=timedelta(hours=1), failure_threshold=1)
    async with Taskscaler([group], settings, connect=group.connect) as scaler:
        await gate.reached()
        group.recreate("i-1")
        await group.until(lambda: len(group.calls_of("connect")) == 2)
        while not scaler.capacity().instances["ready"]:
            await anyio.sleep(1)
        gate.open()
        await anyio.sleep(30)
        assert group.calls_of("decrease") == []
        assert scaler.capacity().slots_total == 1
        assert scaler._runner._effect_tasks._checks == {}


async def test_a_check_that_hangs_does_not_delay_a_shutdown() -> None:
    """Leaving cancels it, and nothing of it is left."""
    hosts = Hosts()
    group = FakeInstanceGroup(connector=FakeConnector(hosts))
    settings = Settings(policy=KEEP_ONE, probe_timeout=timedelta(hours=1))
    async with Taskscaler([group], settings, connect=group.connect):
        hosts.hanging.add("i-1")
        while not hosts.ran:
            await anyio.sleep(1)
    assert group.connector.connections == []


# A single check.


async def test_a_check_replaces_a_broken_connection() -> None:
    """A broken connection is not a failure, whether it was known to be broken or not."""
    group = FakeInstanceGroup()
    group.add()
    connections = Connections(group.connect, {group.info.id: ConnectorSettings()})
    await connections.get(group, "i-1", 10)
    group.connector.break_("i-1")

    async def play(command: Command, /) -> int:
        if len(group.calls_of("connect")) == 2:
            group.connector.break_(command.instance)
        return 0

    group.connector.handler = play
    assert await check(group, connections) == PASSED
    assert len(group.calls_of("connect")) == 3


async def test_a_check_that_cannot_connect_fails() -> None:
    """The reason is the connector's error."""
    group = FakeInstanceGroup()
    group.add()
    group.script("connect", Reply(error=Unreachable("no answer")))
    assert failed(await check(group)) == "no answer"


async def test_a_command_that_fails_is_a_failure() -> None:
    """A shell in which a trivial command fails does not work."""
    hosts = Hosts()
    hosts.status = 5
    group = FakeInstanceGroup(connector=FakeConnector(hosts))
    group.add()
    assert failed(await check(group)) == "`exit 0` ended with 5 there"
    assert group.calls_of("heartbeat") == []


async def test_an_unhealthy_heartbeat_is_a_failure() -> None:
    """Even if the instance itself answers."""
    group = FakeInstanceGroup()
    group.unhealthy.add(group.add())
    assert "is not working" in failed(await check(group))
    assert await check(group, cloud=False) == PASSED


@pytest.mark.parametrize(
    "reply", [Reply(error=ProviderError("no")), Reply(before=timedelta(hours=1))]
)
async def test_a_provider_that_does_not_answer_is_not_a_failure(reply: Reply) -> None:
    """An error or a timeout of the provider says nothing about the instance."""
    group = FakeInstanceGroup()
    group.add()
    group.script("heartbeat", reply)
    before = anyio.current_time()
    assert await check(group) == PASSED
    assert anyio.current_time() - before <= 10


async def test_a_bug_in_a_plugin_is_a_failure_with_its_name() -> None:
    """Every exception becomes an event."""
    group = FakeInstanceGroup()
    group.add()

    async def heartbeat(id: str) -> None:
        await checkpoint()
        raise RuntimeError(f"oops, {id}")

    group.heartbeat = heartbeat  # type: ignore[method-assign] # a plugin with a bug
    assert failed(await check(group)) == "a bug in a plugin: RuntimeError: oops, i-1"


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_cancellation_inside_a_plugin_is_a_failure() -> None:
    """A cancellation that we did not request does not end the check without an event."""
    group = FakeInstanceGroup()
    group.add()

    async def heartbeat(id: str) -> None:
        await checkpoint()
        raise asyncio.CancelledError(id)

    group.heartbeat = heartbeat  # type: ignore[method-assign] # a plugin with a bug
    assert "cancelled inside a plugin" in failed(await check(group))


class Mute(FakeConnection):
    """A connection that cannot run commands."""

    @override
    @asynccontextmanager
    async def start(self, command: str, **options: object) -> AsyncGenerator[Process]:
        await checkpoint()
        if command:
            raise NotSupported(f"no commands here, not even {command}")
        async with super().start(command) as process:
            yield process


@pytest.mark.parametrize("broken", [False, True])
async def test_a_connection_without_commands_passes_if_it_is_open(broken: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """If a protocol cannot run commands, an open connection is enough."""
    group = FakeInstanceGroup()
    group.add()

    async def connect(info: ConnectInfo) -> Connection:
        await checkpoint()
        connection = Mute(group.connector, info)
        group.connector.connections.append(connection)
        if broken:
            connection.break_()
        return connection

    event = await check(group, Connections(connect, {group.info.id: ConnectorSettings()}))
    assert isinstance(event, events.HealthFailed if broken else events.HealthPassed)
