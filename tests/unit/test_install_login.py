"""`fleeting login` and `fleeting logout` use a keyring, and say what to do without one."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

from fleeting.cli import login, logout
from fleeting.errors import ConfigError, InstallError

if TYPE_CHECKING:
    from collections.abc import Sequence

URL = "https://packages.example.org:8443/simple"
HOST = "packages.example.org:8443"


class Keyring(ModuleType):
    """A keyring that keeps passwords in memory."""

    def __init__(self) -> None:
        super().__init__("keyring")
        self.passwords: dict[tuple[str, str], str] = {}

    def set_password(self, service: str, username: str, password: str) -> None:
        self.passwords[service, username] = password

    def get_credential(self, service: str, username: str | None) -> SimpleNamespace | None:
        names = [name for host, name in self.passwords if host == service]
        found = [name for name in names if username in {None, name}]
        return SimpleNamespace(username=found[0]) if found else None

    def delete_password(self, service: str, username: str) -> None:
        del self.passwords[service, username]


@pytest.fixture
def keyring(monkeypatch: pytest.MonkeyPatch) -> Keyring:
    """Return the keyring that the commands import."""
    keyring = Keyring()
    monkeypatch.setitem(sys.modules, "keyring", keyring)
    return keyring


def run(command: click.Command, arguments: Sequence[str], given: str = "") -> str:
    """Run a command, and return what it prints; the exception is that of the command."""
    result = CliRunner().invoke(command, arguments, given, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_login_and_logout(keyring: Keyring) -> None:
    """The password is stored under the host and port, and removed from there."""
    run(login.command, [URL, "--username", "ci", "--password-stdin"], "secret\n")
    assert keyring.passwords == {(HOST, "ci"): "secret"}
    told = run(login.command, [URL], "me\ntoken\n")
    assert told.endswith(f"stored the password of me for {HOST} in the keyring\n")
    assert keyring.passwords[HOST, "me"] == "token"
    assert "token" not in told
    told = run(logout.command, [URL, "--username", "me"])
    assert told == f"removed the password of me for {HOST} from the keyring\n"
    run(logout.command, [URL])
    assert keyring.passwords == {}
    assert "no password" in run(logout.command, [URL])


@pytest.mark.usefixtures("keyring")
@pytest.mark.parametrize(
    "url", ["", "ftp://x.example", "https://", "https://u:p@x.example/simple", "x y"]
)
def test_url_is_refused(url: str) -> None:
    """Only the address of an index without credentials is accepted."""
    with pytest.raises(ConfigError, match="address of an index without credentials"):
        run(login.command, [url])


@pytest.mark.usefixtures("keyring")
def test_questions_without_a_terminal() -> None:
    """With --password-stdin the user name cannot be asked for; without input the command ends."""
    with pytest.raises(ConfigError, match="--password-stdin needs --username"):
        run(login.command, [URL, "--password-stdin"])
    with pytest.raises(click.Abort):
        run(login.command, [URL])


def test_no_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a keyring, one sentence says what to do."""
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(InstallError, match=r"`machine packages\.example\.org login") as caught:
        run(login.command, [URL, "--username", "ci", "--password-stdin"], "x\n")
    assert caught.value.retryable
