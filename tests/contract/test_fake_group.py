from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import anyio
import pytest

from fleeting.errors import (
    ConnectionLost,
    InstanceGone,
    InstanceUnhealthy,
    NotSupported,
    OutcomeUnknown,
    OutOfCapacity,
    ProviderError,
    QuotaExceeded,
    Throttled,
    TransferFailed,
    Unreachable,
)
from fleeting.testing import (
    Call,
    Command,
    FakeConfig,
    FakeConnection,
    FakeConnector,
    FakeInstanceGroup,
    FakeProvider,
    Gate,
    Reply,
)
from fleeting.types import (
    Capability,
    ConnectInfo,
    CreationFailure,
    GroupSettings,
    Listing,
    Notice,
    State,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run on both event loops."""
    return str(request.param)


def _states(listing: Listing) -> dict[str, State]:
    return {one.id: one.state for one in listing.instances}


class TestTime:
    async def test_instances_run_at_the_next_listing(self) -> None:
        """By default a new instance is being created until the next listing, and then runs."""
        group = FakeInstanceGroup()
        accepted = await group.increase(2, "a")
        assert accepted.ids == ("i-1", "i-2")
        assert set(_states(group.listing).values()) == {State.CREATING}
        assert set(_states(await group.update()).values()) == {State.RUNNING}

    async def test_changes_take_a_number_of_listings(self) -> None:
        """Getting an id, booting and being removed take the given numbers of listings."""
        group = FakeInstanceGroup(pending_updates=1, boot_updates=2, removal_updates=1)
        assert (await group.increase(1, "a")).ids == ()
        listings = [await group.update() for _ in range(4)]
        assert [listing.pending for listing in listings] == [1, 0, 0, 0]
        states = [_states(listing).get("i-1") for listing in listings]
        assert states == [None, State.CREATING, State.CREATING, State.RUNNING]
        await group.decrease(["i-1"])
        assert _states(await group.update()) == {"i-1": State.DELETING}
        assert _states(await group.update()) == {}

    async def test_changes_wait_for_the_test(self) -> None:
        """With None, getting an id, booting and being removed wait for the test."""
        group = FakeInstanceGroup(pending_updates=None, boot_updates=None, removal_updates=None)
        await group.increase(2, "a")
        assert (await group.update()).pending == 2
        group.assign()
        assert _states(await group.update()) == {"i-1": State.CREATING, "i-2": State.CREATING}
        group.boot("i-2")
        assert _states(await group.update()) == {"i-1": State.CREATING, "i-2": State.RUNNING}
        group.boot()
        await group.decrease(["i-1"])
        assert _states(await group.update()) == {"i-1": State.DELETING, "i-2": State.RUNNING}
        group.vanish("i-1")
        assert _states(await group.update()) == {"i-2": State.RUNNING}

    async def test_pending_instances_can_be_dropped(self) -> None:
        """Each pending instance that will not be created is a failure, in all later listings."""
        group = FakeInstanceGroup(pending_updates=None)
        await group.increase(2, "a")
        error = OutOfCapacity("none left")
        group.give_up(error)
        failures = (CreationFailure("failure-1", error), CreationFailure("failure-2", error))
        assert await group.update() == Listing(failures=failures)
        assert await group.update() == Listing(failures=failures)


class TestReplies:
    async def test_refused_calls_do_nothing(self) -> None:
        """Each scripted error fails one call, which does nothing; later calls succeed."""
        group = FakeInstanceGroup()
        group.script("increase", Reply(error=Throttled("no")), Reply(error=OutOfCapacity("no")))
        for error in (Throttled, OutOfCapacity):
            with pytest.raises(error):
                await group.increase(1, "a")
        assert group.size == 0
        assert (await group.increase(1, "a")).count == 1

    async def test_usual_reply(self) -> None:
        """The usual reply applies to every call without a scripted reply."""
        group = FakeInstanceGroup()
        group.always("update", Reply(error=ProviderError("down")))
        group.script("update", Reply())
        assert await group.update() == Listing()
        for _ in range(2):
            with pytest.raises(ProviderError, match="down"):
                await group.update()
        group.always("update", Reply())
        assert await group.update() == Listing()

    async def test_lost_reply(self) -> None:
        """The work is done, the call raises `OutcomeUnknown`, and the operation is remembered."""
        group = FakeInstanceGroup()
        group.script("increase", Reply(lost=True))
        with pytest.raises(OutcomeUnknown):
            await group.increase(2, "a")
        assert group.size == 2
        assert (await group.increase(2, "a")).count == 2
        assert group.size == 2

    async def test_group_without_memory(self) -> None:
        """A group that is not idempotent adds instances each time."""
        group = FakeInstanceGroup(idempotent=False)
        for _ in range(2):
            await group.increase(1, "a")
        assert group.size == 2

    async def test_partial_acceptance(self) -> None:
        """A part is accepted as a value, with the scripted error or a default one."""
        group, error = FakeInstanceGroup(), QuotaExceeded("five are enough")
        group.script("increase", Reply(accept=2, error=error), Reply(accept=1))
        accepted = await group.increase(3, "a")
        assert (accepted.count, accepted.error) == (2, error)
        assert isinstance((await group.increase(3, "b")).error, OutOfCapacity)
        group.script("decrease", Reply(accept=1, error=error), Reply(accept=0, error=error))
        accepted = await group.decrease(["i-1", "i-2", "i-2"])
        assert (accepted.ids, accepted.error) == (("i-1",), error)
        with pytest.raises(QuotaExceeded):
            await group.decrease(["i-2"])

    async def test_full_group(self) -> None:
        """A group accepts only as many instances as fit, and says why."""
        group = FakeInstanceGroup(max_size=2)
        accepted = await group.increase(3, "a")
        assert accepted.count == 2
        assert isinstance(accepted.error, QuotaExceeded)
        with pytest.raises(QuotaExceeded):
            await group.increase(1, "b")

    @pytest.mark.parametrize("created", [0, 1, 3])
    async def test_wrong_number_of_instances(self, created: int) -> None:
        """A group can create fewer or more instances than it accepted."""
        group = FakeInstanceGroup()
        group.script("increase", Reply(create=created))
        assert (await group.increase(2, "a")).count == 2
        assert group.size == created

    @pytest.mark.parametrize("state", [State.FAILED, State.CREATING])
    async def test_instances_that_never_boot(self, state: State) -> None:
        """New instances can stay in a state for ever."""
        group = FakeInstanceGroup()
        group.script("increase", Reply(become=state))
        await group.increase(1, "a")
        await group.increase(1, "b")
        for _ in range(3):
            assert _states(await group.update()) == {"i-1": state, "i-2": State.RUNNING}

    async def test_listings_can_be_old_or_in_another_order(self) -> None:
        """A reply can change the listing that `update` returns."""
        group = FakeInstanceGroup()
        old = group.listing
        await group.increase(2, "a")
        group.script(
            "update",
            Reply(listing=lambda _: old),
            Reply(listing=lambda now: replace(now, instances=now.instances[::-1])),
        )
        assert await group.update() == old
        assert list(_states(await group.update())) == ["i-2", "i-1"]

    async def test_gates(self) -> None:
        """A call can be held before its work is done, and after it."""
        group, before, after = FakeInstanceGroup(), Gate(), Gate()
        group.script("increase", Reply(before=before, after=after))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(group.increase, 1, "a")
            await before.reached()
            assert group.size == 0
            before.open()
            await after.reached()
            assert group.size == 1
            after.open()

    async def test_delay(self) -> None:
        """A call can be delayed; cancelled during the delay, it has done nothing."""
        group = FakeInstanceGroup()
        group.script("increase", Reply(before=timedelta(hours=1)))
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(group.increase, 1, "a")
                await group.until(lambda: group.calls_of("increase") != [])
                scope.cancel()
        assert group.size == 0


class TestWorld:
    async def test_instances_without_a_request(self) -> None:
        """An instance can appear without a request, in any state."""
        group = FakeInstanceGroup()
        assert (group.add(), group.add(State.UNKNOWN)) == ("i-1", "i-2")
        assert _states(await group.update()) == {"i-1": State.RUNNING, "i-2": State.UNKNOWN}

    async def test_failure_has_a_reason(self) -> None:
        """An instance can be put into a state, which it keeps with the reason."""
        group = FakeInstanceGroup()
        await group.increase(1, "a")
        group.set_state("i-1", State.FAILED, "no disk")
        (instance,) = (await group.update()).instances
        assert (instance.state, instance.reason) == (State.FAILED, "no disk")

    async def test_recreation(self) -> None:
        """A recreated instance keeps its id, boots again, and has another incarnation."""
        group = FakeInstanceGroup()
        id = group.add()
        (before,) = group.listing.instances
        group.recreate(id)
        (after,) = group.listing.instances
        assert (after.id, after.state) == (id, State.CREATING)
        assert after.incarnation != before.incarnation
        assert _states(await group.update()) == {id: State.RUNNING}

    async def test_largest_counts_everything(self) -> None:
        """`largest` includes pending instances and those being removed."""
        group = FakeInstanceGroup(pending_updates=1, removal_updates=None)
        await group.increase(2, "a")
        for _ in range(2):
            await group.update()
        await group.decrease(["i-1"])
        await group.increase(2, "b")
        assert group.largest == 4
        group.vanish("i-1")
        assert (group.size, group.largest) == (3, 4)

    async def test_health(self) -> None:
        """A heartbeat fails only for instances that have failed, are unhealthy or are gone."""
        group = FakeInstanceGroup()
        well, sick, failed = group.add(), group.add(), group.add(State.FAILED)
        group.unhealthy.add(sick)
        await group.heartbeat(well)
        for id in (sick, failed):
            with pytest.raises(InstanceUnhealthy):
                await group.heartbeat(id)
        with pytest.raises(InstanceGone):
            await group.heartbeat("i-9")
        with pytest.raises(InstanceUnhealthy):
            await group.connect_info(failed)

    async def test_notices(self) -> None:
        """Every watcher sees every notice; an error ends the watch."""
        group = FakeInstanceGroup(capabilities=[Capability.WATCH])
        notice = Notice("i-1", "spot", datetime(2030, 1, 1, tzinfo=UTC))
        seen: list[Notice] = []

        async def watch() -> None:
            notices = group.watch()
            seen.append(await anext(notices))
            with pytest.raises(ProviderError, match="broken"):
                await anext(notices)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            await group.until(lambda: group.calls_of("watch") != [])
            group.announce(notice)
            group.announce(ProviderError("broken"))
            tasks.start_soon(watch)
        assert seen == [notice, notice]

    async def test_calls_are_recorded(self) -> None:
        """Each call is recorded, including those that fail."""
        group = FakeInstanceGroup()
        group.script("decrease", Reply(error=Throttled("no")))
        await group.increase(2, "a")
        with pytest.raises(Throttled):
            await group.decrease(["i-1"])
        assert group.calls == [
            Call("increase", count=2, operation="a"),
            Call("decrease", ids=("i-1",)),
        ]
        assert group.calls_of("update") == []


class TestConnection:
    async def test_only_running_instances_are_reached(self) -> None:
        """A connection needs a running instance, and attempts can be scripted to fail."""
        group = FakeInstanceGroup()
        info = await group.connect_info(group.add())
        group.script("connect", Reply(error=Unreachable("still booting")))
        with pytest.raises(Unreachable, match="booting"):
            await group.connect(info)
        async with await group.connect(info) as connection:
            assert (await connection.run("echo hi")).stdout == b"hi\n"
            assert group.connector.connections == [connection]
        assert group.connector.connections == []
        group.vanish(info.id)
        with pytest.raises(Unreachable, match="is not running"):
            await group.connect(info)

    @pytest.mark.parametrize("how", ["vanish", "decrease", "recreate", "fail", "break"])
    async def test_lost_connection(self, how: str) -> None:
        """When an instance disappears in any way, its commands end with `ConnectionLost`."""
        group = FakeInstanceGroup()
        id = group.add()
        connection = await group.connect(await group.connect_info(id))
        async with connection.start("cat") as process:
            match how:
                case "vanish":
                    group.vanish(id)
                case "decrease":
                    await group.decrease([id])
                case "recreate":
                    group.recreate(id)
                case "fail":
                    group.set_state(id, State.FAILED)
                case _:
                    group.connector.break_(id)
            with pytest.raises(ConnectionLost):
                await process.wait()
            with pytest.raises(ConnectionLost):
                await process.stdout.receive()
            with pytest.raises(ConnectionLost):
                await process.stdin.send(b"x")
            with pytest.raises(ConnectionLost):
                await process.send_signal("TERM")
        assert not connection.is_open
        for use in (connection.glob("*"), connection.run("true")):
            with pytest.raises(ConnectionLost):
                await use

    async def test_signal_ends_a_command(self) -> None:
        """A signal ends the command and is reported; after the end it does nothing."""
        async with (await _connect()).start("cat") as process:
            await process.send_signal("INT")
            ended = await process.wait()
            assert (ended.status, ended.signal) == (None, "INT")
            await process.send_signal("TERM")
            assert await process.wait() == ended

    async def test_leaving_ends_the_command(self) -> None:
        """Leaving the block ends a running command, which has cleaned up by then."""
        ended: list[str] = []

        async def slow(command: Command) -> int:
            try:
                await anyio.sleep_forever()
            finally:
                ended.append(command.line)
            return 0

        connector = FakeConnector(slow)
        connection = await connector.connect(ConnectInfo("i-1", "fake"))
        async with connection.start("make"):
            await anyio.wait_all_tasks_blocked()
        assert ended == ["make"]

    async def test_handler_sees_the_command(self) -> None:
        """The handler gets the command line, environment, directory and instance; its bugs show."""

        async def handler(command: Command) -> int:
            await command.stdout.send(f"{command.line} {command.env} {command.cwd}".encode())
            if command.line == "bug":
                raise ZeroDivisionError(command.instance)
            return 0

        connection = await FakeConnector(handler).connect(ConnectInfo("i-1", "fake"))
        completed = await connection.run("make", env={"A": "1"}, cwd="src")
        assert completed.stdout == b"make {'A': '1'} src"
        with pytest.raises(ZeroDivisionError, match="i-1"):
            await connection.run("bug")

    async def test_files(self, tmp_path: Path) -> None:
        """Files and directories are copied in both directions with their permissions."""
        (tmp_path / "tree" / "sub").mkdir(parents=True)
        (tmp_path / "tree" / "empty").mkdir()
        (tmp_path / "tree" / "run.sh").write_bytes(b"true")
        (tmp_path / "tree" / "run.sh").chmod(0o755)
        (tmp_path / "tree" / "sub" / "data").write_bytes(b"\x00")

        connection = await _connect()
        await connection.put(tmp_path / "tree", "./work")
        assert await connection.glob("work/*") == ["work/empty", "work/run.sh", "work/sub"]
        assert await connection.glob("**/d?t[ab]") == ["work/sub/data"]
        assert await connection.glob("nothing*") == []

        await connection.get("work", tmp_path / "back")
        assert (tmp_path / "back" / "run.sh").stat().st_mode & 0o777 == 0o755
        assert (tmp_path / "back" / "sub" / "data").read_bytes() == b"\x00"
        assert (tmp_path / "back" / "empty").is_dir()
        await connection.get("work/run.sh", tmp_path / "one.sh")
        assert (tmp_path / "one.sh").read_bytes() == b"true"

    async def test_files_that_cannot_be_copied(self, tmp_path: Path) -> None:
        """A missing file or a conflicting directory is named."""
        connection = await _connect()
        with pytest.raises(TransferFailed, match="none cannot be copied"):
            await connection.put(tmp_path / "none", "x")
        with pytest.raises(TransferFailed, match=r"^none does not exist on the instance"):
            await connection.get("none", tmp_path / "x")
        await connection.put(tmp_path, "folder")
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(TransferFailed, match="is a folder"):
            await connection.put(tmp_path / "file", "folder")
        await connection.put(tmp_path / "file", "file")
        with pytest.raises(TransferFailed, match="file"):
            await connection.get("file", tmp_path / "file" / "below")


async def _connect() -> FakeConnection:
    return await FakeConnector().connect(ConnectInfo("i-1", "fake"))


async def test_provider_opens_groups() -> None:
    """The provider opens groups from a configuration, records them, and can fail."""
    provider = FakeProvider()
    provider.errors.append(ProviderError("no answer"))
    with pytest.raises(ProviderError, match="no answer"):
        async with provider.open(FakeConfig(), GroupSettings()):
            pass
    async with provider.open(FakeConfig(id="a", max_size=3), GroupSettings()) as group:
        assert (group.info.id, group.info.max_size) == ("a", 3)
        assert provider.open_groups == [group]
    assert (provider.open_groups, provider.groups) == ([], [group])
    assert await provider.check(FakeConfig(), GroupSettings()) == ()


async def test_fake_needs_no_pytest() -> None:
    """Without pytest everything works except the contract."""
    program = "import sys; sys.modules['pytest'] = None\nfrom fleeting.testing import FakeProvider"
    await anyio.run_process([sys.executable, "-W", "error", "-c", program])
    with pytest.raises(subprocess.CalledProcessError) as caught:
        await anyio.run_process(
            [sys.executable, "-c", program + ", InstanceGroupContract"],
        )
    assert b"pytest" in caught.value.stderr


async def test_connection_without_terminals() -> None:
    """A connection that has no terminals raises `NotSupported`, by default."""
    async with await FakeConnector().connect(ConnectInfo("i-1", "fake")) as connection:
        with pytest.raises(NotSupported, match="does not support terminals"):
            async with connection.open_shell(kind="vt100", columns=80, rows=24):
                pass
