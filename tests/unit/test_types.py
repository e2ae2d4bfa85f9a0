from __future__ import annotations

import dataclasses
from datetime import timedelta
from pathlib import Path

import pytest

from fleeting import types
from fleeting.errors import ConfigError
from fleeting.types import Completed, ConnectInfo, ConnectorSettings, Exit

INFO = ConnectInfo(
    id="i-1",
    protocol="ssh",
    internal_address="10.0.0.1",
    external_address="198.51.100.1",
    port=2222,
    username="builder",
    password="hunter2",  # noqa: S106 - it must not appear in a repr
    private_key="-----BEGIN PRIVATE KEY-----",
)


def test_every_value_is_frozen() -> None:
    """Values are frozen, so that tasks can share them."""
    values = [getattr(types, name) for name in types.__all__]
    structures = [value for value in values if dataclasses.is_dataclass(value)]
    assert structures
    for value in structures:
        assert vars(value)["__dataclass_params__"].frozen, value


def test_secrets_are_not_shown() -> None:
    """The `repr` of a value has no password, key or output."""
    settings = ConnectorSettings(password="hunter2")  # noqa: S106 - it must not appear
    shown = repr(INFO) + repr(settings) + repr(Completed(0, stdout=b"hunter2"))
    assert "hunter2" not in shown
    assert "PRIVATE" not in shown


@pytest.mark.parametrize(
    ("internal", "external", "prefers_external", "address"),
    [
        ("10.0.0.1", "198.51.100.1", False, "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1", True, "198.51.100.1"),
        ("10.0.0.1", "", True, "10.0.0.1"),
        ("", "198.51.100.1", False, "198.51.100.1"),
        ("", "", True, ""),
    ],
)
def test_address_to_dial(
    internal: str,
    external: str,
    prefers_external: bool,  # noqa: FBT001 - a column of the table above
    address: str,
) -> None:
    """The internal address is used unless the external one is preferred or the only one."""
    info = ConnectInfo("i-1", "ssh", internal, external, use_external_address=prefers_external)
    assert info.address == address


def test_empty_settings_change_nothing() -> None:
    """Empty settings leave the provider's values unchanged."""
    assert INFO.with_settings(ConnectorSettings()) == INFO


def test_settings_override_the_provider(tmp_path: Path) -> None:
    """Each setting replaces the provider's value, and the key is read from its file."""
    key = tmp_path / "key"
    key.write_text("the key")
    settings = ConnectorSettings(
        os="freebsd",
        arch="arm64",
        protocol="winrm",
        protocol_port=22,
        username="root",
        password="other",  # noqa: S106 - no secret
        key_path=key,
        keepalive=timedelta(seconds=1),
        timeout=timedelta(seconds=2),
        use_external_addr=True,
    )
    assert INFO.with_settings(settings) == ConnectInfo(
        id="i-1",
        protocol="winrm",
        internal_address="10.0.0.1",
        external_address="198.51.100.1",
        port=22,
        os="freebsd",
        arch="arm64",
        username="root",
        password="other",  # noqa: S106 - no secret
        private_key="the key",
        keepalive=timedelta(seconds=1),
        timeout=timedelta(seconds=2),
        use_external_address=True,
    )


def test_missing_key_file(tmp_path: Path) -> None:
    """A key file that cannot be read is an error of the configuration that names the file."""
    with pytest.raises(ConfigError, match=r"key_path: .*no-key cannot be read \(no such file"):
        INFO.with_settings(ConnectorSettings(key_path=tmp_path / "no-key"))


def test_key_file_in_a_missing_home() -> None:
    """A home directory that does not exist is an error of the configuration too."""
    with pytest.raises(ConfigError, match="there is no such home directory"):
        ConnectorSettings(key_path=Path("~no-such-user/key")).read_private_key()


def test_binary_key_file(tmp_path: Path) -> None:
    """The message about a file that is not text shows nothing of its content."""
    key = tmp_path / "key.der"
    key.write_bytes(b"\x30\x82\xff")
    with pytest.raises(ConfigError, match="it is not text") as caught:
        INFO.with_settings(ConnectorSettings(key_path=key))
    assert "0x" not in str(caught.value)
    assert caught.value.__context__ is None


def test_success_is_status_zero_in_time() -> None:
    """Only a command that ended by itself, in time and with status 0, has succeeded."""
    assert Exit(0).succeeded
    assert not Exit(1).succeeded
    assert not Exit(None, "KILL").succeeded
    assert Completed(0).succeeded
    assert not Completed(0, timed_out=True).succeeded
    assert not Completed(None, signal="TERM").succeeded
