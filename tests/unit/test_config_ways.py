"""The settings of the way to instances that cannot be reached directly."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from fleeting import Registry
from fleeting._config import ConnectorConfig, GroupConfig, GroupEntryConfig, JumpConfig
from fleeting._decoding import decode
from fleeting.errors import ConfigError
from fleeting.types import ConnectInfo, Jump, JumpSettings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("bastion", Jump("bastion")),
        ("ada@bastion:2222", Jump("bastion", 2222, "ada")),
        ("a.b@10.0.0.1:1", Jump("10.0.0.1", 1, "a.b")),
        ("ada@[2001:db8::1]", Jump("2001:db8::1", None, "ada")),
        ("[::1]:65535", Jump("::1", 65535)),
    ],
)
def test_addresses_of_jump_hosts(address: str, expected: Jump) -> None:
    """A user and a port are optional, and an address of IPv6 is in brackets."""
    assert Jump.parse(address) == expected
    assert str(expected) == address


@pytest.mark.parametrize(
    "address", ["", "a b", "2001:db8::1", "h:0", "h:65536", "h:x", "-oX", "a@-oX", "a@b@c", "h:1\n"]
)
def test_wrong_addresses_of_jump_hosts(address: str) -> None:
    """The message shows how to write one."""
    table = {"jump": [{"address": address}]}
    with pytest.raises(ConfigError, match=r"jump\[0\].* is not an address; write for example"):
        decode(table, ConnectorConfig, where="a.toml")


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"proxy_command": ["nc", "{hots}"]}, "{hots} stands for nothing; use {host}"),
        ({"proxy_command": ["nc"], "jump": [{"address": "b"}]}, "exclude each other"),
        ({"jump": [{"address": "b", "keypath": "x"}]}, "did you mean 'key_path'"),
    ],
)
def test_wrong_ways_to_an_instance(table: dict[str, Any], expected: str) -> None:
    """A misspelled word is not passed to a program, and there is one way only."""
    with pytest.raises(ConfigError, match=re.escape(expected)):
        decode(table, ConnectorConfig, where="a.toml")


def test_ways_are_inherited_as_a_whole() -> None:
    """A group that has a way of its own does not have that of the autoscaler, too."""
    above = ConnectorConfig(jump=[JumpConfig(address="bastion")])
    own = ConnectorConfig(proxy_command=["nc", "{host}"])
    entries = GroupConfig(plugin="aws", connector_config=above).entries(
        [
            GroupEntryConfig(),
            GroupEntryConfig(connector_config=own),
            GroupEntryConfig(connector_config=ConnectorConfig(jump=[])),
        ]
    )
    ways = [(one.connector.jump, one.connector.proxy_command) for one in entries]
    assert ways == [((JumpSettings(Jump("bastion")),), ()), ((), ("nc", "{host}")), ((), ())]


def test_keys_of_jump_hosts_are_read(tmp_path: Path) -> None:
    """Each has a key of its own; a missing file is named with its place."""
    (tmp_path / "key").write_text("the key")
    table = {"jump": [{"address": "a", "key_path": str(tmp_path / "key")}, {"address": "b"}]}
    settings = decode(table, ConnectorConfig, where="a.toml").settings()
    jumps = ConnectInfo("i-1", "ssh").with_settings(settings).jumps
    assert [(one.host, one.private_key) for one in jumps] == [("a", "the key"), ("b", None)]
    (tmp_path / "key").unlink()
    with pytest.raises(ConfigError, match=r"connector_config\.jump\[0\]\.key_path: .*cannot be"):
        Registry().check_connector(settings)
