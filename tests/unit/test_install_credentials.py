"""Credentials are kept where nobody else reads them, and come back as they were."""

from __future__ import annotations

import netrc
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from fleeting.errors import ConfigError, InstallError
from fleeting.install.credentials import (
    Credential,
    CredentialStore,
    host_of,
    netrc_text,
    read_netrc,
    split_url,
    write_netrc,
)

if TYPE_CHECKING:
    from pathlib import Path

ENTRY = Credential("packages.example", "ci", "hunter2")
PRINTABLE = st.text(min_size=1).filter(str.isprintable)


class Ring:
    """A keyring as the package `keyring` has them, which forgets when it goes."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], str] = {}

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def delete_password(self, service: str, username: str) -> None:
        del self.kept[service, username]


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return variables that say where, without a keyring that could be used."""
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    return {"XDG_CONFIG_HOME": str(tmp_path)}


def test_file_is_private(environ: dict[str, str], tmp_path: Path) -> None:
    """Without a keyring a file has them, which its owner alone can read and write."""
    store = CredentialStore(environ)
    assert str(tmp_path / "fleeting" / "credentials") in store.keep(ENTRY)
    assert store.path.stat().st_mode & 0o777 == 0o600
    assert store.path.parent.stat().st_mode & 0o777 == 0o700
    newer = Credential(ENTRY.host, "other", "word")
    store.keep(newer)
    other = Credential("other.example", "x", "y")
    store.keep(other)
    assert CredentialStore(environ).all() == [newer, other]
    assert store.forget(ENTRY.host)
    assert not store.forget(ENTRY.host)
    assert store.all() == [other]


def test_file_that_others_can_read_is_refused(environ: dict[str, str]) -> None:
    """A file that was made readable is not used, and the sentence says how to mend it."""
    store = CredentialStore(environ)
    store.keep(ENTRY)
    store.path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        store.all()


def test_keyring_keeps_the_password(environ: dict[str, str]) -> None:
    """With a keyring the file has the host and the name alone."""
    ring = Ring()
    store = CredentialStore(environ, ring)
    assert "the keyring" in store.keep(ENTRY)
    assert ENTRY.password not in store.path.read_text()
    assert store.all() == [ENTRY]
    assert CredentialStore(environ).all() == [], "without the keyring there is no password"
    store.forget(ENTRY.host)
    assert ring.kept == {}


def test_installed_keyring_is_used_if_it_keeps_anything(tmp_path: Path) -> None:
    """The package `keyring` is found; its backend that only refuses is not taken."""
    import keyring
    from keyring.backends.fail import Keyring as Refusing
    from keyring.backends.null import Keyring as Forgetting

    before = keyring.get_keyring()
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    try:
        keyring.set_keyring(type("Working", (Forgetting,), {"priority": 5})())
        assert "the keyring" in CredentialStore(environ).keep(ENTRY)
        keyring.set_keyring(Refusing())  # type: ignore[no-untyped-call]
        assert "the file" in CredentialStore(environ).keep(ENTRY)
    finally:
        keyring.set_keyring(before)


def test_secret_is_not_shown() -> None:
    """A credential that lands in a log shows its host and its name."""
    assert "hunter2" not in repr(ENTRY)


@given(PRINTABLE, PRINTABLE)
def test_netrc_means_what_was_written(username: str, password: str) -> None:
    """Every name and password comes back as it was from what reads such files."""
    import tempfile

    with tempfile.NamedTemporaryFile("w", suffix="netrc", encoding="utf-8") as file:
        file.write(netrc_text([Credential("host.example", username, password)]))
        file.flush()
        assert netrc.netrc(file.name).hosts == {"host.example": (username, "", password)}


def test_line_breaks_are_refused() -> None:
    """A password that would end its line could say what another host gets."""
    with pytest.raises(ConfigError, match="cannot be written"):
        netrc_text([Credential("h", "u", "p\nmachine x login y password z")])


def test_broken_file_is_named(tmp_path: Path) -> None:
    """A file that cannot be understood is named, without what is in it."""
    path = tmp_path / "credentials"
    path.write_text("hunter2")
    with pytest.raises(ConfigError, match="cannot be understood") as caught:
        read_netrc(path)
    assert "hunter2" not in str(caught.value)
    path.unlink()
    assert read_netrc(path) == []
    write_netrc(path, [ENTRY, Credential("default", "a", "b")])
    assert read_netrc(path) == [ENTRY, Credential("default", "a", "b")]


@pytest.mark.parametrize(
    ("url", "clean", "credential"),
    [
        ("https://u:p%40@h.example:8/s?q#f", "https://h.example:8/s?q#f", ("u", "p@")),
        ("https://token@h.example/s", "https://h.example/s", ("token", "")),
        ("https://h.example/s", "https://h.example/s", None),
        ("git+ssh://git@h.example/x", "git+ssh://git@h.example/x", None),
        ("aws:1", "aws:1", None),
    ],
)
def test_credentials_are_taken_out_of_a_url(
    url: str, clean: str, credential: tuple[str, str] | None
) -> None:
    """What stands before the host of an index is a credential, and not a part of its address."""
    expected = None if credential is None else Credential("h.example", *credential)
    assert split_url(url) == (clean, expected)


def test_host_of_an_index() -> None:
    """The host is what credentials are kept for; without one there is nothing to log in to."""
    assert host_of("https://h.example:8080/simple") == "h.example"
    assert host_of("h.example/simple") == "h.example"
    for wrong in ("", "ftp://h.example", "https://", "https://[x"):
        with pytest.raises(ConfigError):
            host_of(wrong)


def test_keyring_that_is_locked_is_named(environ: dict[str, str]) -> None:
    """What a keyring raises is a refusal in one sentence, and nothing is kept then."""

    class Locked(Ring):
        @override
        def set_password(self, service: str, username: str, password: str) -> None:
            raise OSError("locked")

        @override
        def get_password(self, service: str, username: str) -> str | None:
            raise OSError("locked")

    store = CredentialStore(environ, Locked())
    with pytest.raises(InstallError, match="the keyring refused") as caught:
        store.keep(ENTRY)
    assert caught.value.retryable
    assert not store.path.exists()
    CredentialStore(environ, Ring()).keep(ENTRY)
    with pytest.raises(InstallError, match="the keyring refused"):
        store.all()


def test_user_without_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user of a container may have none: there are no credentials, and none can be kept."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)  # Nobody has this number.
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    store = CredentialStore({})
    assert store.all() == []
    with pytest.raises(ConfigError, match="no home"):
        store.keep(ENTRY)
    assert list(tmp_path.iterdir()) == []
