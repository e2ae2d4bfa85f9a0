"""`fleeting info` describes a plugin and its keys."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING

import pytest

from fleeting import __version__
from fleeting._schema import json_schema
from fleeting.local import LocalConfig
from plugin_folder import PluginFolder

if TYPE_CHECKING:
    from pathlib import Path

CLOUD = '''
import msgspec
from pathlib import Path
from typing import Annotated, Literal
from fleeting.plugin import hookimpl
from fleeting.testing import FakeProvider
from fleeting.types import Duration

class Disk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A disk."""

    size: Annotated[int, msgspec.Meta(ge=5, description="how large, in gigabytes.")]
    kind: Literal["fast", "large"] = "fast"

class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    group_name: Annotated[str, msgspec.Meta(description="The group that a user has created.")]

    disk: Disk
    key_path: Path
    timeout: Duration
    zones: list[str] = msgspec.field(default_factory=lambda: ["a", "b"])
    labels: dict[str, str] = {}
    proxy: str | None = None

class Provider(FakeProvider):
    name = "nimbus"
    config_type = Config

@hookimpl
def fleeting_provider():
    return Provider()
'''
HEADER = """Summary: Machines in the clouds
Home-page: https://nimbus.example.org
Project-URL: Issues, https://nimbus.example.org/issues
"""


@pytest.fixture
def plugins(tmp_path: Path) -> PluginFolder:
    """Return a folder for the plugins of a test."""
    return PluginFolder(tmp_path / "plugins")


def test_text_describes_every_key(plugins: PluginFolder) -> None:
    """Each key has its type, its description, and its default or that it is required."""
    plugins.add("nimbus", CLOUD, header=HEADER)
    completed = plugins.run("info", "nimbus")
    assert (completed.returncode, completed.stderr) == (0, "")
    assert completed.stdout.startswith(
        "name          nimbus\n"
        "kind          provider\n"
        "version       1.2.3\n"
        "distribution  fleeting-plugin-nimbus\n"
        "summary       Machines in the clouds\n"
        "homepage      https://nimbus.example.org\n"
        "capabilities  none\n"
    )
    for paragraph in (
        "  group-name: string; required\n      The group that a user has created.\n\n",
        "  disk: table; required\n\n",
        "  disk.size: integer, at least 5; required\n      how large, in gigabytes.\n\n",
        '  disk.kind: "fast" or "large"; default "fast"\n\n',
        '  zones: list of string; default ["a", "b"]\n\n',
        "  labels: table of string; default {}\n\n",
        "  proxy: string\n\n",
    ):
        assert f"\n{paragraph}" in completed.stdout


def test_example_has_the_required_keys(plugins: PluginFolder) -> None:
    """The example at the end is TOML with only the required keys."""
    plugins.add("nimbus", CLOUD)
    example = plugins.run("info", "nimbus").stdout.partition("Example:\n")[2]
    assert tomllib.loads(example)["runners"]["autoscaler"] == {
        "plugin": "nimbus",
        "plugin_config": {
            "group-name": "...",
            "disk": {"size": 5},
            "key-path": "/path/to/file",
            "timeout": "1m",
        },
    }


def test_json_describes_every_key(plugins: PluginFolder) -> None:
    """The JSON has a list of keys, and the homepage under any name of a project URL."""
    header = "Project-URL: Repository, https://nimbus.example.org/git\n"
    plugins.add("nimbus", CLOUD, header=header)
    shown = json.loads(plugins.run("info", "nimbus:1.2", "--json").stdout)
    assert shown["homepage"] == "https://nimbus.example.org/git"
    assert (shown["name"], shown["version"], shown["summary"]) == ("nimbus", "1.2.3", "")
    assert shown["keys"][0] == {
        "name": "group-name",
        "type": "string",
        "required": True,
        "default": None,
        "text": "The group that a user has created.",
    }
    assert shown["example"]["disk"] == {"size": 5}


def test_schema_is_that_of_the_struct(plugins: PluginFolder) -> None:
    """`--schema` prints the JSON Schema and nothing else."""
    completed = plugins.run("info", "local", "--schema")
    assert json.loads(completed.stdout) == json_schema(LocalConfig)


def test_connector_has_no_keys_of_its_own(plugins: PluginFolder) -> None:
    """A connector is described, with the table that configures it."""
    completed = plugins.run("info", "ssh")
    assert completed.returncode == 0
    assert f"version       {__version__}\n" in completed.stdout
    assert "[runners.autoscaler.connector_config]" in completed.stdout
    completed = plugins.run("info", "ssh", "--schema")
    assert (completed.returncode, completed.stdout) == (2, "")
    assert "no keys of its own" in completed.stderr


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["lcal"], "did you mean 'local'? Otherwise run `fleeting install lcal`"),
        (["quantum:2"], "broken, googlecloud, local, twice); run `fleeting install quantum:2`"),
        (
            ["local:99"],
            "in version 1.0.0, but 'local:99' was requested; run `fleeting install --upgrade",
        ),
        (["a b"], "'a b' names no plugin"),
        (["broken"], "plugin 'broken' of fleeting-plugin-broken is broken: OSError"),
        (["twice"], "the plugin name 'twice' is claimed by"),
        (["local", "--schema", "--json"], "drop --json"),
    ],
)
def test_plugin_that_cannot_be_described(
    plugins: PluginFolder, words: list[str], reason: str
) -> None:
    """A missing or broken plugin is one message, with what to do."""
    plugins.add("broken", "raise OSError('no libcloud.so')")
    plugins.add("twice")
    plugins.add("twice", distribution="another")
    completed = plugins.run("info", *words)
    assert (completed.returncode, completed.stdout) == (2, "")
    assert reason in completed.stderr.replace("twice, twice", "twice")
