from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fleeting._config import choose_group, configured_groups, plugin_references
from fleeting.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

TEXT = """
concurrent = 4
[[runners]]
  name = "one"
  executor = "instance"
  [runners.autoscaler]
    plugin = "aws:1"
    max_instances = 7
    unknown_here = true
    [runners.autoscaler.plugin_config]
      name = "builders"
    [runners.autoscaler.connector_config]
      username = "ci"
[[runners]]
  name = "plain"
[[runners]]
  name = "two"
  [runners.autoscaler]
    plugin = "local"
    max_instances = 9
    [runners.autoscaler.plugin_config]
      max_size = 4
    [[runners.autoscaler.extensions.group]]
      name = "first"
      max_instances = 3
      [runners.autoscaler.extensions.group.plugin_config]
        shell = "/bin/bash"
    [[runners.autoscaler.extensions.group]]
      plugin = "static"
      [runners.autoscaler.extensions.group.connector_config]
        username = "root"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a file with three groups of two runners."""
    path = tmp_path / "config.toml"
    path.write_text(TEXT)
    return path


def test_groups_of_all_runners_are_read(path: Path) -> None:
    """Each group has its own and inherited settings, and a readable name."""
    one, first, second = configured_groups(path)
    assert (one.label, one.entry.plugin, one.maximum) == ("one", "aws:1", 7)
    assert one.entry.plugin_config == {"name": "builders"}
    assert one.entry.connector.username == "ci"
    assert one.where == f"{path}: runners[0].autoscaler.plugin_config"
    assert (first.label, first.entry.plugin, first.maximum) == ("two/first", "local", 3)
    assert first.entry.plugin_config == {"max_size": 4, "shell": "/bin/bash"}
    assert first.where == f"{path}: runners[2].autoscaler.extensions.group[0].plugin_config"
    assert (second.label, second.entry.plugin, second.maximum) == ("two/2", "static", 9)
    assert second.entry.plugin_config == {}
    assert second.entry.connector.username == "root"


def test_wrong_value_is_reported_with_its_place(path: Path) -> None:
    """The message names the file and the key."""
    path.write_text(TEXT.replace('username = "ci"', "username = 3"))
    with pytest.raises(ConfigError, match=r"toml: runners\[0\].*connector_config\.username"):
        configured_groups(path)


def test_group_is_chosen_by_name(path: Path) -> None:
    """The only group of a runner has the runner's name; other names add that of the group."""
    groups = configured_groups(path)
    assert choose_group(path, groups, "one") is groups[0]
    assert choose_group(path, groups, "two/2") is groups[2]
    assert choose_group(path, groups[:1], None) is groups[0]


def test_invalid_choice_lists_the_groups(path: Path) -> None:
    """A missing, wrong or ambiguous name and a file without groups each have a message."""
    groups = configured_groups(path)
    with pytest.raises(ConfigError, match="3 groups; choose one: 'one', 'two/first', 'two/2'"):
        choose_group(path, groups, None)
    with pytest.raises(ConfigError, match="no group is named 'two'; the file has: 'one'"):
        choose_group(path, groups, "two")
    with pytest.raises(ConfigError, match=r"no runner has a table \[runners.autoscaler\]"):
        choose_group(path, [], None)
    with pytest.raises(ConfigError, match="2 groups are named 'one'; rename all but one"):
        choose_group(path, [groups[0], groups[0]], "one")


def test_plugin_references_are_read(path: Path) -> None:
    """Each plugin is listed once; a missing or invalid reference is reported with its place."""
    path.write_text(TEXT)
    assert [str(one) for one in plugin_references(configured_groups(path))] == [
        "aws:1",
        "local",
        "static",
    ]
    path.write_text(TEXT.replace("aws:1", "https://evil.example/x.whl?"))
    with pytest.raises(
        ConfigError, match=r"runners\[0\]\.autoscaler\.plugin: 'https://evil.* names no"
    ):
        plugin_references(configured_groups(path))
    path.write_text(TEXT.replace("aws:1", ""))
    with pytest.raises(ConfigError, match=r"runners\[0\]\.autoscaler\.plugin: no plugin is named"):
        plugin_references(configured_groups(path))
