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
    """Each group has its own settings, those it inherits, and a name for people."""
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


def test_a_wrong_key_is_told_with_its_place(path: Path) -> None:
    """What is read here and is wrong is an error that names file and key."""
    path.write_text(TEXT.replace('username = "ci"', "username = 3"))
    with pytest.raises(ConfigError, match=r"toml: runners\[0\].*connector_config\.username"):
        configured_groups(path)


def test_a_group_is_chosen_by_its_name(path: Path) -> None:
    """A runner with one group is named by itself, one with several together with the group."""
    groups = configured_groups(path)
    assert choose_group(path, groups, "one") is groups[0]
    assert choose_group(path, groups, "two/2") is groups[2]
    assert choose_group(path, groups[:1], None) is groups[0]


def test_a_choice_that_means_no_group_shows_those_there_are(path: Path) -> None:
    """No name where there are several groups, a wrong name, or no group is one sentence each."""
    groups = configured_groups(path)
    with pytest.raises(ConfigError, match="3 groups; choose one: 'one', 'two/first', 'two/2'"):
        choose_group(path, groups, None)
    with pytest.raises(ConfigError, match="no group is named 'two'; the file has: 'one'"):
        choose_group(path, groups, "two")
    with pytest.raises(ConfigError, match=r"no runner has a table \[runners.autoscaler\]"):
        choose_group(path, [], None)
    with pytest.raises(ConfigError, match="2 groups are named 'one'; rename all but one"):
        choose_group(path, [groups[0], groups[0]], "one")


def test_references_are_names(path: Path) -> None:
    """Each plugin is named once; a group without one, or with a path, is told with its place."""
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
