"""Connect info: when the provider is asked, and which host keys an instance must show."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import anyio
import pytest
from typing_extensions import override

from fleeting.errors import AuthenticationFailed, OutcomeUnknown, Unreachable
from fleeting.testing import FakeInstanceGroup, Gate, Reply
from fleeting.types import ConnectInfo, ConnectorSettings, State
from taskscaler import AcquireTimeout, IllegalEvent, Policy, Settings, Taskscaler
from taskscaler.core import ConnectRecord, InstanceRecord
from taskscaler.storage import MemoryStore

if TYPE_CHECKING:
    from fleeting.testing import FakeConnection

pytestmark = pytest.mark.anyio

LAZY = Policy(idle_time=timedelta(hours=10))
ONE = Settings(policy=LAZY, max_instances=1)
KEEP_ONE = Settings(policy=Policy(idle_count=1, idle_time=timedelta(hours=10)), max_instances=1)


class Guarded(FakeInstanceGroup):
    """A group whose credentials expire and whose instances show host keys.

    Attributes:
        lifetime: of the credentials; None if they stay.
        infos: what each connection was made with.
    """

    def __init__(
        self,
        lifetime: timedelta | None = None,
        *,
        id: str = "fake/group",
        max_size: int | None = None,
    ) -> None:
        super().__init__(id=id, max_size=max_size)
        self.lifetime = lifetime
        self.infos: list[ConnectInfo] = []

    @override
    async def connect_info(self, id: str) -> ConnectInfo:
        info = await super().connect_info(id)
        asked = len(self.calls_of("connect_info"))
        expires = None if self.lifetime is None else datetime.now(UTC) + self.lifetime
        return replace(info, password=f"secret {asked}", expires=expires)

    @override
    async def connect(self, info: ConnectInfo) -> FakeConnection:
        self.infos.append(info)
        connection = await super().connect(info)
        incarnation = next(one.incarnation for one in self.listing.instances if one.id == info.id)
        connection.host_keys = (f"ssh-fake {incarnation}",)
        return connection

    def asked(self) -> int:
        """Return how often the provider was asked how to reach an instance."""
        return len(self.calls_of("connect_info"))

    def secrets(self) -> list[str | None]:
        """Return the password of each connection."""
        return [one.password for one in self.infos]


async def reconnect(scaler: Taskscaler, group: Guarded) -> None:
    """Break the connection to the only instance, and use it again."""
    group.connector.break_("i-1")
    async with scaler.acquire("a") as acquisition, acquisition.connect():
        assert acquisition.instance == "i-1"


async def test_the_provider_is_asked_once() -> None:
    """Without an expiry, a new connection uses the first answer and the host keys shown."""
    group = Guarded()
    async with Taskscaler([group], ONE, connect=group.connect) as scaler:
        async with scaler.acquire("a") as acquisition, acquisition.connect():
            pass
        await reconnect(scaler, group)
        await anyio.sleep(3600)
        await reconnect(scaler, group)
    assert group.asked() == 1
    assert [one.host_keys for one in group.infos] == [(), ("ssh-fake 1",), ("ssh-fake 1",)]


async def test_expired_credentials_are_replaced_and_host_keys_kept() -> None:
    """They are used until the last tenth of their time, and replaced when they are needed."""
    group = Guarded(timedelta(seconds=100))
    async with Taskscaler([group], ONE, connect=group.connect) as scaler:
        async with scaler.acquire("a") as acquisition, acquisition.connect():
            pass
        await anyio.sleep(85)
        await reconnect(scaler, group)
        assert group.asked() == 1
        await anyio.sleep(10)
        assert group.asked() == 1
        await reconnect(scaler, group)
        assert group.asked() == 2
    assert group.secrets()[-1] == "secret 2"
    assert group.infos[-1].host_keys == ("ssh-fake 1",)


@pytest.mark.parametrize("error", [AuthenticationFailed("no"), Unreachable("it moved")])
async def test_the_provider_is_asked_again_after_a_failed_connection(error: Exception) -> None:
    """Credentials and addresses may have changed."""
    group = Guarded()
    group.script("connect", Reply(error=error))  # type: ignore[arg-type] # both are FleetingErrors
    async with (
        Taskscaler([group], ONE, connect=group.connect) as scaler,
        scaler.acquire("a"),
    ):
        assert group.asked() == 2
        assert group.secrets() == ["secret 1", "secret 2"]


async def test_a_restart_uses_stored_connect_info() -> None:
    """The provider is not asked for a prepared instance, which must show the same host key."""
    group, store = Guarded(), MemoryStore()
    async with Taskscaler([group], KEEP_ONE, store=store, connect=group.connect) as scaler:
        async with scaler.acquire("a"):
            pass
    record = store.records["connect", "fake/group", "i-1"]
    assert isinstance(record, ConnectRecord)
    assert record.incarnation == "1"
    assert record.info.host_keys == ("ssh-fake 1",)
    async with Taskscaler([group], KEEP_ONE, store=store, connect=group.connect) as scaler:
        assert scaler.restored == ()
        async with scaler.acquire("b") as acquisition:
            assert acquisition.instance == "i-1"
    assert group.asked() == 1
    assert group.infos[-1].host_keys == ("ssh-fake 1",)
    assert group.secrets()[-1] == "secret 1"


async def test_a_restart_uses_host_keys_but_not_expired_credentials() -> None:
    """The host keys stay valid when the stored credentials have expired."""
    group, store = Guarded(), MemoryStore()
    async with Taskscaler([group], KEEP_ONE, store=store, connect=group.connect) as scaler:
        async with scaler.acquire("a"):
            pass
    record = store.records["connect", "fake/group", "i-1"]
    assert isinstance(record, ConnectRecord)
    past = replace(record.info, expires=datetime.now(UTC) - timedelta(seconds=1))
    store.records[record.key] = ConnectRecord(record.group, record.id, record.incarnation, past)
    async with Taskscaler([group], KEEP_ONE, store=store, connect=group.connect) as scaler:
        async with scaler.acquire("b"):
            pass
    assert group.asked() == 2
    assert group.secrets()[-1] == "secret 2"
    assert group.infos[-1].host_keys == ("ssh-fake 1",)


async def test_records_without_their_instance_are_dropped() -> None:
    """Records of instances that are gone, unknown or recreated are deleted from the store."""
    group, store = Guarded(), MemoryStore()
    async with Taskscaler([group], Settings(), store=store, connect=group.connect) as scaler:
        async with scaler.acquire("a"):
            assert ("connect", "fake/group", "i-1") in store.records
        await group.until(lambda: group.size == 0)
        while ("connect", "fake/group", "i-1") in store.records:
            await anyio.sleep(1)
    async with Taskscaler([group], KEEP_ONE, store=store, connect=group.connect) as scaler:
        async with scaler.acquire("a"):
            pass
    for id, incarnation in (("unknown", None), ("i-2", "another")):
        info = ConnectInfo(id, "fake", host_keys=("ssh-fake wrong",))
        record = ConnectRecord("fake/group", id, incarnation, info)
        store.records[record.key] = record
    async with Taskscaler([group], KEEP_ONE, store=store, connect=group.connect) as scaler:
        async with scaler.acquire("b") as acquisition:
            assert acquisition.instance == "i-2"
        assert group.infos[-1].host_keys == ()
    assert [key for key in store.records if key[0] == "connect"] == [
        ("connect", "fake/group", "i-2")
    ]


async def test_the_successor_of_an_instance_has_its_own_host_key() -> None:
    """An instance recreated with the same id shows and stores its own host key."""
    group, store = Guarded(), MemoryStore()
    async with Taskscaler([group], KEEP_ONE, store=store, connect=group.connect) as scaler:
        async with scaler.acquire("a"):
            pass
        group.recreate("i-1")
        await group.until(lambda: len(group.infos) == 2)
        while not scaler.capacity().instances["ready"]:
            await anyio.sleep(1)
        await scaler.commit(())
        record = store.records["connect", "fake/group", "i-1"]
        assert isinstance(record, ConnectRecord)
        assert (record.incarnation, record.info.host_keys) == ("2", ("ssh-fake 2",))
    assert group.infos[-1].host_keys == ()
    # So that a connector that pins keys does not expect that of the predecessor.
    assert group.infos[0].incarnation != group.infos[-1].incarnation
    instance = store.records["instance", "fake/group", "i-1"]
    assert isinstance(instance, InstanceRecord)
    assert instance.incarnation == record.incarnation


async def test_connecting_has_a_deadline() -> None:
    """A task does not wait longer for a provider or a connector that hangs.

    The provider has `operation_timeout`, the connector its timeout and ten seconds more.
    """
    group = Guarded()
    settings = Settings(policy=LAZY, max_instances=1, probe_after=timedelta(days=1))
    async with Taskscaler([group], settings, connect=group.connect) as scaler:
        async with scaler.acquire("a") as acquisition:
            group.connector.break_("i-1")
            group.lifetime = None
            group.script("connect", Reply(before=Gate()))
            before = anyio.current_time()
            with pytest.raises(Unreachable, match="the connector 'fake' did not say why"):
                async with acquisition.connect():
                    pytest.fail("the body must not run")
            assert anyio.current_time() - before == pytest.approx(70)
            group.script("connect_info", Reply(before=Gate()))
            before = anyio.current_time()
            with pytest.raises(OutcomeUnknown, match="was not answered within 60s"):
                async with acquisition.connect():
                    pytest.fail("the body must not run")
            assert anyio.current_time() - before == pytest.approx(60)


async def test_a_naive_expiry_is_a_bug_of_the_plugin(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is reported as one, and the credentials of unknown age are not used."""
    group = Guarded()

    async def connect_info(id: str) -> ConnectInfo:
        naive = datetime.now(UTC).replace(tzinfo=None)
        return ConnectInfo(id, "fake", internal_address="somewhere", expires=naive)

    group.connect_info = connect_info  # type: ignore[method-assign] # a plugin with a bug
    settings = Settings(policy=LAZY, instance_ready_timeout=timedelta(seconds=30))
    async with Taskscaler([group], settings, connect=group.connect) as scaler:
        with anyio.move_on_after(60):
            async with scaler.acquire("a"):
                pytest.fail("the body must not run")
    assert "because of a bug in the plugin" in caplog.text
    assert all(one.state is not State.FAILED for one in group.listing.instances)


async def test_a_plugin_with_a_bug_is_asked_ever_more_seldom(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its traceback does not flood the log, and the waiting task knows about the pause."""
    group = Guarded()

    async def connect_info(id: str) -> ConnectInfo:
        raise KeyError(id)

    group.connect_info = connect_info  # type: ignore[method-assign] # a plugin with a bug
    async with Taskscaler([group], Settings(policy=LAZY), connect=group.connect) as scaler:
        with pytest.raises(AcquireTimeout, match="pauses that grow up to 5m") as caught:
            async with scaler.acquire("a", timeout=timedelta(minutes=10)):
                pytest.fail("the body must not run")
    assert "because of a bug in the plugin: KeyError" in str(caught.value)
    assert len([one for one in caplog.records if one.exc_info]) < 12
    assert group.largest == 1


async def test_an_answer_of_the_wrong_type_is_not_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A wrong answer instead of a `ConnectInfo` may hold a password, so only its type is shown."""
    group = FakeInstanceGroup()

    async def connect_info(id: str) -> object:
        return {"id": id, "password": "open sesame"}

    group.connect_info = connect_info  # type: ignore[assignment,method-assign] # pyright: ignore[reportAttributeAccessIssue] - a bug put in
    settings = Settings(instance_ready_timeout=timedelta(seconds=10))
    async with Taskscaler([group], settings, connect=group.connect) as scaler:
        with pytest.raises(AcquireTimeout, match="returned a dict") as caught:
            async with scaler.acquire("a", timeout=timedelta(minutes=1)):
                pytest.fail("the body must not run")
        reasons = [one.removal_reason for one in scaler.instances()]
    assert "open sesame" not in f"{caught.value} {reasons} {caplog.text}"


async def test_each_group_has_its_own_connector_settings() -> None:
    """Settings can be given by the group's id; a group without any uses the provider's answer."""
    first, second = Guarded(id="first", max_size=1), Guarded(id="second", max_size=1)
    connected: list[tuple[str, timedelta | None]] = []

    async def connect(info: ConnectInfo) -> FakeConnection:
        connected.append((info.username, info.timeout))
        group = first if info.username == "first-user" else second
        return await group.connect(info)

    settings = {"first": ConnectorSettings(username="first-user", timeout=timedelta(seconds=3))}
    async with (
        Taskscaler([first, second], connector=settings, connect=connect) as scaler,
        scaler.acquire("a"),
        scaler.acquire("b"),
    ):
        assert dict(connected) == {"first-user": timedelta(seconds=3), "": timedelta(seconds=5)}


def test_connector_settings_of_an_unknown_group_are_refused() -> None:
    """A wrong id in the connector settings is an error, not silently ignored."""
    settings = {"fake/grup": ConnectorSettings(username="builder")}
    with pytest.raises(IllegalEvent, match="for fake/grup, but the groups are fake/group"):
        Taskscaler([FakeInstanceGroup()], connector=settings)
