"""Preparing instances, and the connections to them."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.lowlevel import checkpoint

from fleeting.errors import (
    AuthenticationFailed,
    ConfigError,
    ConnectionLost,
    FleetingError,
    HostKeyMismatch,
    InstanceGone,
    InstanceUnhealthy,
    NotSupported,
    PermissionDenied,
    PluginNotFound,
    ProviderError,
    Throttled,
    Unreachable,
)
from fleeting.testing import Command, FakeConnector, FakeInstanceGroup, Gate, Reply
from fleeting.types import ConnectorSettings, Exit
from taskscaler import AcquireTimeout, Policy, Settings, Taskscaler
from taskscaler.core import Stage, counted

if TYPE_CHECKING:
    from fleeting.abc import Connection
    from fleeting.types import ConnectInfo

pytestmark = pytest.mark.anyio

LAZY = Policy(idle_time=timedelta(hours=10))
COMMAND = Settings(instance_ready_command="is-it-ready", max_instances=1, policy=LAZY)


class Instances:
    """Runs the ready command: with these exits in turn, then successfully."""

    def __init__(self, *exits: Exit) -> None:
        self.exits = list(exits)
        self.lines: list[str] = []

    async def __call__(self, command: Command, /) -> Exit:
        """Run one command."""
        self.lines.append(command.line)
        ended = self.exits.pop(0) if self.exits else Exit(0)
        if not ended.succeeded:
            await command.stderr.send(b"the disk is not mounted\n")
        return ended


def group_of(instances: Instances, **options: int | None) -> FakeInstanceGroup:
    """Return a group of such instances."""
    return FakeInstanceGroup(connector=FakeConnector(instances), **options)  # type: ignore[arg-type] # passed on


@pytest.mark.parametrize("error", [PermissionDenied("no SendSSHPublicKey"), Throttled("later")])
async def test_a_refusal_of_the_provider_costs_no_instance(error: ProviderError) -> None:
    """The fault is the group's: the instance stays, and serves as soon as the provider answers."""
    group = FakeInstanceGroup()
    group.script("connect_info", *[Reply(error=error)] * 8)
    settings = Settings(max_instances=3, instance_ready_timeout=timedelta(seconds=3), policy=LAZY)
    async with Taskscaler([group], settings, connect=group.connect) as scaler:
        async with scaler.acquire("a", timeout=timedelta(hours=1)):
            assert (group.largest, group.calls_of("decrease")) == (1, [])


async def test_the_ready_command_runs_before_the_first_task() -> None:
    """It runs once for each instance, not again for the next task."""
    instances = Instances()
    group = group_of(instances)
    async with Taskscaler([group], COMMAND, connect=group.connect) as scaler:
        for key in "ab":
            async with scaler.acquire(key):
                assert instances.lines == ["is-it-ready"]


@pytest.mark.parametrize(
    ("ended", "words"), [(Exit(3), "ended with 3"), (Exit(None, "KILL"), "ended by signal KILL")]
)
async def test_the_ready_command_is_tried_again(ended: Exit, words: str) -> None:
    """Until it succeeds, its end and its last line are told at once; the instance stays."""
    group = group_of(Instances(*[ended] * 20))
    async with Taskscaler([group], COMMAND, connect=group.connect) as scaler:
        async with anyio.create_task_group() as tasks:

            async def run() -> None:
                async with scaler.acquire("a") as acquisition:
                    assert acquisition.instance == "i-1"

            tasks.start_soon(run)
            await group.until(lambda: bool(scaler.standing().obstacles))
            (obstacle,) = scaler.standing().obstacles
            assert obstacle.stage is Stage.READY_COMMAND
            assert obstacle.reason == (
                f"the instance_ready_command {words}: the disk is not mounted"
            )
            assert f"failed {counted(obstacle.times, 'time')} on 1 instance" in scaler.explain()
        assert scaler.standing().obstacles == ()
    assert group.largest == 1


async def test_an_instance_whose_ready_command_never_succeeds_is_replaced() -> None:
    """It is removed after `instance_ready_timeout`, and the reason is kept."""
    group = group_of(Instances(*[Exit(3)] * 90))
    settings = replace(COMMAND, instance_ready_timeout=timedelta(seconds=90))
    async with Taskscaler([group], settings, connect=group.connect) as scaler:
        async with scaler.acquire("a") as acquisition:
            assert acquisition.instance == "i-2"
        bygone = scaler.instances()[0]
        assert (bygone.id, bygone.ready_at) == ("i-1", None)
        assert bygone.removal_reason == (
            "it was not ready within 90s: the instance_ready_command ended with 3: the disk is not "
            "mounted"
        )
    assert group.largest == 1


async def test_explain_quotes_the_ready_command() -> None:
    """While instances fail to become ready, the explanation has the output."""
    group = group_of(Instances(*[Exit(1)] * 1000))
    async with Taskscaler([group], COMMAND, connect=group.connect) as scaler:
        with pytest.raises(AcquireTimeout, match="the disk is not mounted"):
            async with scaler.acquire("a", timeout=timedelta(minutes=10)):
                pytest.fail("the body must not run")


async def test_failing_instances_are_created_ever_more_slowly() -> None:
    """The backoff allows few increases in an hour of failures; a success resets it (I9)."""
    instances = Instances(*[Exit(1)] * 10_000)
    group = group_of(instances)
    async with (
        Taskscaler([group], COMMAND, connect=group.connect) as scaler,
        anyio.create_task_group() as tasks,
    ):
        served = anyio.Event()

        async def run() -> None:
            async with scaler.acquire("a", timeout=None):
                served.set()

        tasks.start_soon(run)
        await anyio.sleep(3600)
        # Pauses of 1, 2, 4 ... 256 s, then 300 s each: 9 in 511 s, and 10 or 11 more.
        assert 10 <= len(group.calls_of("increase")) <= 25
        instances.exits.clear()
        await served.wait()
        before = anyio.current_time()
        group.vanish(scaler.instances()[-1].id)
        async with scaler.acquire("b"):
            assert anyio.current_time() - before < 300


async def test_an_instance_that_is_not_reachable_yet_is_retried() -> None:
    """After failed and lost connections, the same instance becomes ready."""
    group = FakeInstanceGroup()
    errors = (Unreachable("it boots"), ConnectionLost("its server restarts"))
    group.script("connect", *(Reply(error=error) for error in errors * 10))
    async with (
        Taskscaler([group], connect=group.connect) as scaler,
        scaler.acquire("a") as acquisition,
    ):
        assert acquisition.instance == "i-1"
    assert len(group.calls_of("connect")) == 21


async def test_an_instance_that_stays_unreachable_is_replaced() -> None:
    """It is replaced after `instance_ready_timeout`; the reason has the last error."""
    group = FakeInstanceGroup()
    settings = Settings(instance_ready_timeout=timedelta(seconds=90), policy=LAZY)
    group.script("connect", *[Reply(error=Unreachable("no answer"))] * 90)
    async with Taskscaler([group], settings, connect=group.connect) as scaler:
        async with scaler.acquire("a") as acquisition:
            assert acquisition.instance == "i-2"
        assert scaler.instances()[0].removal_reason == ("it was not ready within 90s: no answer")


async def test_a_wrong_host_key_is_not_retried() -> None:
    """An error that cannot pass by itself fails the instance at once."""
    group = FakeInstanceGroup()
    group.script("connect", Reply(error=HostKeyMismatch("this is another machine")))
    async with Taskscaler([group], Settings(policy=LAZY), connect=group.connect) as scaler:
        async with scaler.acquire("a") as acquisition:
            assert acquisition.instance == "i-2"
        assert scaler.instances()[0].removal_reason == "this is another machine"


async def test_a_preparation_that_hangs_times_out() -> None:
    """A connector that never answers does not delay other instances."""
    group = FakeInstanceGroup()
    group.script("connect", *[Reply(before=Gate()) for _ in range(3)])
    settings = Settings(instance_ready_timeout=timedelta(seconds=60), policy=LAZY)
    async with (
        Taskscaler([group], settings, connect=group.connect) as scaler,
        scaler.acquire("a") as acquisition,
    ):
        assert acquisition.instance == "i-2"


async def test_a_preparation_of_the_predecessor_does_not_affect_the_successor() -> None:
    """An instance that is recreated during its preparation is prepared again."""
    group = FakeInstanceGroup()
    gate = Gate()
    group.script("connect", Reply(before=gate))
    async with Taskscaler([group], Settings(policy=LAZY), connect=group.connect) as scaler:
        async with anyio.create_task_group() as tasks:

            async def run() -> None:
                async with scaler.acquire("a") as acquisition:
                    assert acquisition.instance == "i-1"

            tasks.start_soon(run)
            await gate.reached()
            group.recreate("i-1")
            await group.until(lambda: len(group.calls_of("connect")) == 2)
        gate.open()
        await anyio.sleep(60)
        first, second = scaler.instances()
        assert first.removal_reason == "it was recreated under the same id"
        assert (second.ready_at is not None, second.removal_reason) == (True, None)
    assert group.connector.connections == []


async def test_the_slots_of_an_instance_share_one_connection() -> None:
    """Three tasks that connect at the same time use the connection of the preparation."""
    group = FakeInstanceGroup()
    settings = Settings(capacity_per_instance=3, policy=LAZY)
    async with Taskscaler([group], settings, connect=group.connect) as scaler:
        seen: list[Connection] = []
        all_tasks = anyio.Event()

        async def run(key: str) -> None:
            async with scaler.acquire(key) as acquisition, acquisition.connect() as connection:
                seen.append(connection)
                if len(seen) == 3:
                    all_tasks.set()
                await all_tasks.wait()

        async with anyio.create_task_group() as tasks:
            for key in "abc":
                tasks.start_soon(run, key)
        assert len(seen) == 3
        assert len(group.calls_of("connect")) == 1


async def test_a_broken_connection_is_replaced_once() -> None:
    """Tasks that find it broken at the same time share one new connection."""
    group = FakeInstanceGroup()
    settings = Settings(capacity_per_instance=3, policy=LAZY)
    async with Taskscaler([group], settings, connect=group.connect) as scaler:
        async with scaler.acquire("a"):
            pass
        group.connector.break_("i-1")
        gate = Gate()
        group.script("connect", Reply(before=gate))
        async with anyio.create_task_group() as tasks:

            async def run(key: str) -> None:
                async with scaler.acquire(key) as acquisition, acquisition.connect() as connection:
                    assert (await connection.run("true")).succeeded

            for key in "abc":
                tasks.start_soon(run, key)
            await gate.reached()
            while scaler.capacity().slots_used < 3:
                await checkpoint()
            await anyio.sleep(1)
            gate.open()
        assert len(group.calls_of("connect")) == 2
        assert len(group.connector.connections) == 1
        assert scaler.capacity().instances["ready"] == 1


async def test_a_task_that_is_cancelled_while_connecting_is_replaced() -> None:
    """If the task that connects is cancelled, the next one that waits connects."""
    group = FakeInstanceGroup()
    settings = Settings(capacity_per_instance=2, policy=LAZY)
    async with Taskscaler([group], settings, connect=group.connect) as scaler:
        async with scaler.acquire("a"):
            pass
        group.connector.break_("i-1")
        gate = Gate()
        group.script("connect", Reply(before=gate))
        connected: list[str] = []

        async def run(key: str, scope: anyio.CancelScope) -> None:
            with scope:
                async with scaler.acquire(key) as acquisition, acquisition.connect():
                    connected.append(key)

        async with anyio.create_task_group() as tasks:
            first = anyio.CancelScope()
            tasks.start_soon(run, "first", first)
            await gate.reached()
            tasks.start_soon(run, "second", anyio.CancelScope())
            while scaler.capacity().slots_used < 2:
                await checkpoint()
            await anyio.sleep(1)
            first.cancel()
        assert connected == ["second"]


async def test_the_connection_is_closed_before_the_instance_is_removed() -> None:
    """There is no connection to an instance when its removal is requested."""
    group = FakeInstanceGroup()
    open_then: list[int] = []
    decrease = group.decrease

    async def watch(ids: tuple[str, ...]) -> object:
        open_then.append(len(group.connector.connections))
        return await decrease(ids)

    group.decrease = watch  # type: ignore[method-assign, assignment] # pyright: ignore[reportAttributeAccessIssue] - looks at the moment of the call
    async with Taskscaler([group], connect=group.connect) as scaler:
        async with scaler.acquire("a"):
            assert len(group.connector.connections) == 1
        await group.until(lambda: group.size == 0)
    assert open_then == [0]


async def test_a_key_file_that_cannot_be_read_is_reported() -> None:
    """An error of the operator is not reported as a bug of a plugin."""
    group = FakeInstanceGroup()
    connector = ConnectorSettings(key_path=Path("/nowhere/id_ed25519"))
    async with Taskscaler([group], connector=connector, connect=group.connect) as scaler:
        with pytest.raises(AcquireTimeout, match=r"id_ed25519 cannot be read"):
            async with scaler.acquire("a", timeout=timedelta(minutes=1)):
                pytest.fail("the body must not run")


async def test_a_key_file_that_disappears_does_not_retire_the_instance() -> None:
    """The task that connects gets a `ConfigError`, and the instance stays."""
    group = FakeInstanceGroup()
    async with (
        Taskscaler([group], connect=group.connect) as scaler,
        scaler.acquire("a") as acquisition,
    ):
        group.connector.break_(acquisition.instance)
        missing = ConnectorSettings(key_path=Path("/nowhere/id_ed25519"))
        scaler._connections._settings = {group.info.id: missing}
        with pytest.raises(ConfigError, match="id_ed25519"):
            async with acquisition.connect():
                pytest.fail("the body must not run")
        assert scaler.capacity().instances["ready"] == 1


async def test_a_key_file_that_is_not_text_is_reported_without_its_content(tmp_path: Path) -> None:
    """A binary key is an error of the operator, not a bug of a plugin."""
    group = FakeInstanceGroup()
    file = tmp_path / "key.der"
    file.write_bytes(b"\x30\x82\xff")
    connector = ConnectorSettings(key_path=file)
    async with Taskscaler([group], connect=group.connect, connector=connector) as scaler:
        with pytest.raises(AcquireTimeout, match=r"key\.der cannot be read \(it is") as caught:
            async with scaler.acquire("a", timeout=timedelta(seconds=5)):
                pytest.fail("the body must not run")
    assert "0x" not in str(caught.value)


# The stages.

SETTLED = Settings(max_instances=1, instance_ready_timeout=timedelta(minutes=2), policy=LAZY)


@pytest.mark.parametrize(
    ("error", "stage", "used"),
    [
        (Unreachable("refused"), Stage.CONNECT, "i-1"),
        (ConnectionLost("reset"), Stage.CONNECT, "i-1"),
        (AuthenticationFailed("wrong key"), Stage.LOGIN, "i-1"),
        (ConfigError("the key file is gone"), Stage.SETTINGS, "i-1"),
        (PluginNotFound("connector", "x", (), "install it"), Stage.SETTINGS, "i-1"),
        (HostKeyMismatch("another machine"), Stage.LOGIN, "i-2"),
        (NotSupported("no address"), Stage.CONNECT, "i-2"),
        (RuntimeError("a bug"), Stage.CONNECT, "i-2"),
    ],
)
async def test_each_failure_to_connect_is_told_at_once(
    error: Exception, stage: Stage, used: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With its stage; only a failure that concerns the instance, and cannot pass, costs it."""
    group, asked = FakeInstanceGroup(), 0

    async def connect(info: ConnectInfo) -> Connection:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise error
        return await group.connect(info)

    caplog.set_level(logging.INFO, "taskscaler")
    async with Taskscaler([group], SETTLED, connect=connect) as scaler:
        async with anyio.create_task_group() as tasks:

            async def run() -> None:
                async with scaler.acquire("a", timeout=timedelta(hours=1)) as acquisition:
                    assert acquisition.instance == used

            tasks.start_soon(run)
            began = anyio.current_time()
            await group.until(lambda: bool(scaler.standing().obstacles))
            assert anyio.current_time() - began < 10
            (obstacle,) = scaler.standing().obstacles
            assert (obstacle.stage, str(error) in obstacle.reason) == (stage, True)
        assert scaler.standing().obstacles == ()
    assert any(
        "is not ready; attempt 1 since" in line and str(error) in line for line in caplog.messages
    )


@pytest.mark.parametrize(
    ("error", "used"),
    [
        (PermissionDenied("no SendSSHPublicKey"), "i-1"),
        (Throttled("later"), "i-1"),
        (InstanceUnhealthy("i-1", "it boots"), "i-1"),
        (InstanceGone("i-1", "there is no such instance"), "i-2"),
    ],
)
async def test_each_failure_of_the_connect_info_is_told_at_once(
    error: FleetingError, used: str
) -> None:
    """It is a stage of its own."""
    group = FakeInstanceGroup()
    group.script("connect_info", Reply(error=error))
    async with Taskscaler([group], SETTLED, connect=group.connect) as scaler:
        async with anyio.create_task_group() as tasks:

            async def run() -> None:
                async with scaler.acquire("a", timeout=timedelta(hours=1)) as acquisition:
                    assert acquisition.instance == used

            tasks.start_soon(run)
            await group.until(lambda: bool(scaler.standing().obstacles))
            (obstacle,) = scaler.standing().obstacles
            assert (obstacle.stage, obstacle.reason) == (Stage.CONNECT_INFO, str(error))


async def test_the_first_attempts_to_connect_are_short() -> None:
    """So that a server that says nothing is known soon; later ones have the time they need."""
    group, given = FakeInstanceGroup(), list[timedelta | None]()

    async def connect(info: ConnectInfo) -> Connection:
        given.append(info.timeout)
        raise Unreachable("no answer")

    connector = ConnectorSettings(timeout=timedelta(seconds=30))
    async with Taskscaler([group], SETTLED, connect=connect, connector=connector) as scaler:
        with pytest.raises(AcquireTimeout):
            async with scaler.acquire("a", timeout=timedelta(seconds=20)):
                pytest.fail("the body must not run")
    assert given[:5] == [timedelta(seconds=seconds) for seconds in (5, 10, 20, 30, 30)]
