"""A program opens all that a `config.toml` describes."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
import pytest

from fleeting.errors import ConfigError, PluginNotFound
from taskscaler import StoreLocked, open_scaler
from taskscaler.storage import read_records

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

TWO_GROUPS = """
[[runners]]
name = "builders"
limit = 1
[runners.autoscaler]
capacity_per_instance = 2
delete_instances_on_shutdown = true
[runners.autoscaler.extensions]
id = "builders"
[[runners.autoscaler.extensions.group]]
name = "small"
plugin = "local"
max_instances = 1
plugin_config = { root = "small" }
[[runners.autoscaler.extensions.group]]
name = "large"
plugin = "local"
plugin_config = { root = "large" }

[[runners]]
name = "others"
[runners.autoscaler]
plugin = "local"
max_instances = 1
delete_instances_on_shutdown = true
state_storage = { enabled = false }
"""


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio: SSH and the state file need it."""
    return "asyncio"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file with two runners, in the current directory."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "config.toml"
    path.write_text(TWO_GROUPS)
    return path


async def test_groups_state_and_limits_of_a_runner(path: Path) -> None:
    """Tasks run on real instances of both groups, within the limit of each, and state is kept."""
    minute = timedelta(minutes=1)
    state = path.parent / ".taskscaler" / "builders.sqlite"
    async with open_scaler(path, runner="builders") as scaler:
        async with (
            scaler.acquire("one", timeout=minute) as one,
            scaler.acquire("two", timeout=minute) as two,
            scaler.acquire("three", timeout=minute) as three,
        ):
            assert one.group == two.group
            assert one.group.endswith("small")
            assert three.group.endswith("large")
            async with three.connect() as instance:
                completed = await instance.run("echo up")
            assert completed.stdout == b"up\n"
            assert len(read_records(state)) > 1
        with pytest.raises(StoreLocked):
            async with open_scaler(path, runner="builders"):
                pytest.fail("the state has a holder")


async def test_a_runner_without_state(path: Path) -> None:
    """Nothing is written."""
    async with open_scaler(path, runner="others") as scaler:
        assert scaler.capacity().waiting == 0
    assert not (path.parent / ".taskscaler").exists()


async def test_an_ambiguous_runner(path: Path) -> None:
    """The message names the runners."""
    with pytest.raises(ConfigError, match="2 runners have an autoscaler; choose one"):
        async with open_scaler(path):
            pytest.fail("the runner is not named")


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ('"local"\nmax_instances = 1\ndel', '"none"\ndel', PluginNotFound, "none"),
        ('plugin = "local"\nmax_instances = 1\ndel', "del", ConfigError, "plugin: .* is missing"),
        ("1\ndel", "1\nplugin_config = { rot = 1 }\ndel", ConfigError, "plugin_config"),
    ],
    ids=["plugin that is not installed", "no plugin", "wrong setting"],
)
async def test_a_mistake_in_the_file(
    path: Path, old: str, new: str, error: type[Exception], message: str
) -> None:
    """It is refused before anything is opened."""
    await anyio.Path(path).write_text(TWO_GROUPS.replace(old, new))
    with pytest.raises(error, match=message):
        async with open_scaler(path, runner="others"):
            pytest.fail("the file is wrong")
