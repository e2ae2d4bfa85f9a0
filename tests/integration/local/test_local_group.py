"""The group as its manager sees it: instances, settings, limits, configuration."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import asyncssh
import pytest

from fleeting._decoding import decode
from fleeting._registry import Registry
from fleeting.errors import ConfigError, InstanceGone, InstanceUnhealthy, QuotaExceeded
from fleeting.local import LocalConfig, LocalProvider
from fleeting.types import Duration, GroupSettings, Severity, State

if TYPE_CHECKING:
    from tests.integration.local.conftest import Local, OpenShared

    from fleeting.abc import InstanceGroup
    from fleeting.types import ConnectInfo

pytestmark = pytest.mark.anyio


def test_the_provider_is_found_by_its_name() -> None:
    """The registry finds the built-in provider like every plugin."""
    assert isinstance(Registry().provider("local"), LocalProvider)


async def _log_in(info: ConnectInfo, *, username: str, private_key: str) -> None:
    await asyncssh.connect(
        info.address,
        info.port or 0,
        username=username,
        client_keys=[asyncssh.import_private_key(private_key)],
        known_hosts=None,
        agent_path=None,
        config=None,
    )


async def test_an_instance_lives_from_increase_to_decrease(
    local: Local, group: InstanceGroup
) -> None:
    """An instance is listed and usable; after decrease it and its directory are gone."""
    assert (await group.update()).instances == ()
    [id] = await local.grow(group)
    await group.heartbeat(id)
    async with local.connect(group, id) as connection:
        completed = await connection.run("pwd", check=True)
    home = Path(str(completed.stdout).strip())
    assert home.stat().st_mode & 0o777 == 0o700  # noqa: ASYNC240 - a test may block
    accepted = await group.decrease([id])
    assert accepted.ids == (id,)
    await local.reach(group, id, None)
    assert not home.parent.exists()


async def test_an_id_never_comes_back(local: Local, group: InstanceGroup) -> None:
    """A new instance has a new id and incarnation."""
    [first] = await local.grow(group)
    await group.decrease([first])
    await local.reach(group, first, None)
    [second] = await local.grow(group)
    assert first != second
    [instance] = (await group.update()).instances
    assert instance.incarnation == second


async def test_each_instance_has_keys_and_a_port_of_its_own(
    local: Local, group: InstanceGroup
) -> None:
    """The key of one instance is not accepted by another one."""
    one, other = [await group.connect_info(id) for id in await local.grow(group, 2)]
    assert one.port != other.port
    assert one.host_keys != other.host_keys
    assert one.private_key is not None
    with pytest.raises(asyncssh.PermissionDenied):
        await _log_in(other, username=other.username, private_key=one.private_key)


async def test_another_username_is_refused(local: Local, group: InstanceGroup) -> None:
    """The right key is accepted only for the user of the instance."""
    [id] = await local.grow(group)
    info = await group.connect_info(id)
    assert info.private_key is not None
    with pytest.raises(asyncssh.PermissionDenied):
        await _log_in(info, username=f"not-{info.username}", private_key=info.private_key)


async def test_repeating_an_operation_adds_nothing(group: InstanceGroup) -> None:
    """Repeating an increase with the same operation returns the same result."""
    first = await group.increase(2, "operation")
    again = await group.increase(2, "operation")
    assert again == first
    assert len((await group.update()).instances) == 2


async def test_beyond_max_size_a_part_is_accepted(open_shared: OpenShared) -> None:
    """As many instances as fit are created; the error names the setting that limits the rest."""
    async with open_shared(max_size=3) as group:
        assert group.info.max_size == 3
        accepted = await group.increase(5, "much")
        assert accepted.count == len(accepted.ids) == 3
        assert isinstance(accepted.error, QuotaExceeded)
        assert "max_size" in str(accepted.error)
        assert len((await group.update()).instances) == 3
        none = await group.increase(1, "more")
        assert none.count == 0
        assert isinstance(none.error, QuotaExceeded)


async def test_removal_makes_room_at_once(local: Local, open_shared: OpenShared) -> None:
    """An instance that is being removed does not count against the limit."""
    async with open_shared(max_size=1) as group:
        [id] = await local.grow(group)
        await group.decrease([id])
        assert (await group.increase(1, "next")).error is None


async def test_decrease_is_idempotent(local: Local, group: InstanceGroup) -> None:
    """Removing an instance that is gone, being removed or never existed is accepted."""
    [id] = await local.grow(group)
    for _ in range(2):
        accepted = await group.decrease([id, "local-never-was"])
        assert accepted.ids == (id, "local-never-was")
        assert accepted.error is None
    await local.reach(group, id, None)
    assert (await group.decrease([id])).ids == (id,)
    assert (await group.decrease([])).count == 0


async def test_unknown_instances_are_gone(group: InstanceGroup) -> None:
    """Requests about an instance that does not exist raise `InstanceGone`."""
    with pytest.raises(InstanceGone):
        await group.connect_info("local-never-was")
    with pytest.raises(InstanceGone):
        await group.heartbeat("local-never-was")


async def test_a_booting_instance_is_unreachable_and_removable(
    local: Local, open_shared: OpenShared
) -> None:
    """During its boot delay, an instance is listed as creating and cannot be reached."""
    async with open_shared(boot_delay=Duration(hours=1)) as group:
        accepted = await group.increase(1, "slow")
        [id] = accepted.ids
        assert await local.states(group) == {id: State.CREATING}
        with pytest.raises(InstanceUnhealthy, match="booting"):
            await group.connect_info(id)
        await group.decrease([id])
        await local.reach(group, id, None)


async def test_a_boot_delay_ends(local: Local, open_shared: OpenShared) -> None:
    """After its boot delay, an instance runs."""
    async with open_shared(boot_delay=Duration(milliseconds=50)) as group:
        accepted = await group.increase(1, "a little slow")
        assert set((await local.states(group)).values()) == {State.CREATING}
        await local.reach(group, accepted.ids[0], State.RUNNING)


async def test_fail_rate_makes_instances_fail(local: Local, open_shared: OpenShared) -> None:
    """With fail_rate 1 every instance fails, says why, and can be removed."""
    async with open_shared(fail_rate=1.0) as group:
        [id] = (await group.increase(1, "doomed")).ids
        await local.reach(group, id, State.FAILED)
        [instance] = (await group.update()).instances
        assert "fail_rate" in (instance.reason or "")
        with pytest.raises(InstanceUnhealthy, match="fail_rate"):
            await group.heartbeat(id)
        await group.decrease([id])
        assert (await group.update()).instances == ()


async def test_a_cancelled_call_does_not_confuse_the_next(
    local: Local, group: InstanceGroup
) -> None:
    """The reply to a cancelled request is skipped."""
    ids = set(await local.grow(group, 3))
    for _ in range(20):
        with anyio.move_on_after(0):
            await group.connect_info("local-never-was")
        assert set(await local.states(group)) == ids


async def test_calls_at_the_same_time_get_their_own_answers(
    local: Local, group: InstanceGroup
) -> None:
    """Concurrent callers each get the reply to their own request."""
    ids = await local.grow(group, 4)
    found: dict[str, str] = {}

    async def ask(id: str) -> None:
        found[id] = (await group.connect_info(id)).id

    async with anyio.create_task_group() as tasks:
        for id in ids:
            tasks.start_soon(ask, id)
    assert found == {id: id for id in ids}


async def test_a_configured_root_and_foreign_files_are_kept(local: Local, tmp_path: Path) -> None:
    """Closing the group deletes the directories of its instances, and nothing else."""
    root = tmp_path / "deep" / "root"
    mine = root / "instances" / "mine"
    mine.mkdir(parents=True)
    async with local.open(root=root) as group:
        [id] = await local.grow(group)
        assert (root / "instances" / id / "home").is_dir()
        assert group.info.id == f"local{root}"
    assert mine.is_dir()
    assert not (root / "instances" / id).exists()


async def test_a_directory_without_write_permission_is_deleted_too(
    local: Local, group: InstanceGroup, shared_root: Path
) -> None:
    """Directories that a job made read-only are deleted with the instance."""
    [id] = await local.grow(group)
    async with local.connect(group, id) as connection:
        await connection.run("mkdir -p a/b && touch a/b/c && chmod 500 a/b a", check=True)
    await group.decrease([id])
    await local.reach(group, id, None)
    assert not (shared_root / "instances" / id).exists()


async def test_the_exception_of_the_block_comes_out_unchanged(local: Local) -> None:
    """An exception in the group's block is not wrapped into an exception group."""
    with pytest.raises(LookupError, match="mine"):
        async with local.open():
            raise LookupError("mine")


@pytest.mark.parametrize("parent", ["file", "/proc"])
async def test_an_unusable_root_is_one_sentence(local: Local, tmp_path: Path, parent: str) -> None:
    """A root that cannot be created is a configuration error with the path and the fix."""
    (tmp_path / "file").touch()
    root = tmp_path / parent / "no-such"
    with pytest.raises(ConfigError) as caught:
        async with local.open(root=root):
            pass
    [problem] = caught.value.problems
    assert str(root) in problem
    assert "choose a directory" in problem


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"persistent": True}, "root"),
        ({"boot_delay": Duration(seconds=-1)}, "boot_delay"),
        ({"shell": "/no/such/shell"}, "shell"),
        ({"shell": "sh"}, "shell"),
    ],
)
async def test_a_bad_setting_is_found_by_check_and_stops_open(
    local: Local, settings: dict[str, object], word: str
) -> None:
    """An error that check reports also makes open fail, and names the setting."""
    config = LocalConfig(**settings)  # type: ignore[arg-type]  # the parameters have several types
    finding, *_ = await LocalProvider().check(config, GroupSettings())
    assert finding.severity is Severity.ERROR
    assert word in finding.reason
    with pytest.raises(ConfigError, match=word):
        async with local.open(**settings):
            pass


async def test_check_finds_nothing_wrong_here() -> None:
    """The defaults work on this computer."""
    findings = await LocalProvider().check(LocalConfig(), GroupSettings())
    assert [one for one in findings if one.severity is not Severity.INFO] == []


async def test_windows_is_refused(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows, opening fails with one sentence that says what is missing and what to do."""
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ConfigError) as caught:
        async with local.open():
            pass
    [problem] = caught.value.problems
    assert "Windows" in problem
    assert "WSL" in problem


def test_the_configuration_is_read_from_toml_values() -> None:
    """The keys of plugin_config become the typed configuration."""
    config = decode(
        {"root": "/somewhere", "boot_delay": "1.5s", "max_size": 2, "fail_rate": 0.5},
        LocalConfig,
        where="plugin_config",
    )
    assert config.root == Path("/somewhere")
    assert config.boot_delay == timedelta(seconds=1.5)


@pytest.mark.parametrize(
    "settings", [{"max_size": 0}, {"fail_rate": 1.5}, {"fail_rate": -1}, {"rot": "/x"}]
)
def test_a_value_out_of_range_is_refused(settings: dict[str, object]) -> None:
    """Values out of range and unknown keys are refused, and the message names the key."""
    with pytest.raises(ConfigError, match=next(iter(settings))):
        decode(settings, LocalConfig, where="plugin_config")
