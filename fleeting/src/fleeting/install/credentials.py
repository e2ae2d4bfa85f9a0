"""The credentials of private indexes: kept in a keyring or a file, handed on in a file.

They are never on a command line, which everybody on the machine can read. What both pip and uv
understand is a `.netrc`, so our own file is one, of mode 0600; where a keyring keeps the
password, the file has only the host and the user's name. For each installation a `.netrc`
is written into the private scratch folder, with the user's own entries beside ours.
"""

from __future__ import annotations

import importlib
import netrc
import os
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from fleeting.errors import ConfigError, InstallError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

__all__ = (
    "Credential",
    "CredentialStore",
    "host_of",
    "netrc_text",
    "read_netrc",
    "split_url",
    "write_netrc",
)

SERVICE = "fleeting package index"


@dataclass(frozen=True, slots=True)
class Credential:
    """Who we are to a host.

    Attributes:
        host: its name, without a port.
        username: often a fixed word, where the password is a token.
        password: or a token.
    """

    host: str
    username: str
    password: str

    def __repr__(self) -> str:
        """Write it without the password, wherever it may end up."""
        return f"Credential({self.host!r}, {self.username!r})"


def host_of(url: str) -> str:
    """Return the host of an address.

    Raises:
        ConfigError: it has none.
    """
    try:
        parts = urlsplit(url if "://" in url else f"https://{url}")
        host = parts.hostname
    except ValueError:
        host, parts = None, None
    if not host or parts is None or parts.scheme not in {"http", "https"}:
        raise ConfigError(
            "that is no address of an index; write one such as https://packages.example.org/simple"
        )
    return host


def split_url(url: str) -> tuple[str, Credential | None]:
    """Take the credentials out of an address."""
    try:
        parts = urlsplit(url)
        host, username = parts.hostname, parts.username
    except ValueError:
        return url, None
    if not host or username is None or parts.scheme not in {"http", "https"}:
        return url, None
    place = parts.netloc.rpartition("@")[2]
    clean = urlunsplit(SplitResult(parts.scheme, place, parts.path, parts.query, parts.fragment))
    return clean, Credential(host, unquote(username), unquote(parts.password or ""))


class CredentialStore:
    """What this user has logged in to."""

    def __init__(self, environ: Mapping[str, str], keyring: Any = None) -> None:
        # Without a home this is relative: nothing is read from there, or written to it.
        config = environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111
        self.path = Path(config, "fleeting", "credentials")
        self._keyring = keyring if keyring is not None else _usable_keyring()

    def keep(self, credential: Credential) -> str:
        """Keep a credential, instead of what was kept for its host.

        Returns:
            Where its password is now.

        Raises:
            ConfigError: there is no place for it, or a file cannot have it.
            InstallError: the keyring refuses to keep it.
        """
        others = [entry for entry in self._entries() if entry.host != credential.host]
        if self._keyring is None:
            self._write([*others, credential])
            return f"the file {self.path}, which only you can read"
        name = f"{SERVICE} {credential.host}"
        with _keyring_errors():
            self._keyring.set_password(name, credential.username, credential.password)
        self._write([*others, Credential(credential.host, credential.username, "")])
        return f"the keyring, as {name!r}"

    def forget(self, host: str) -> bool:
        """Forget what is kept for a host; return whether there was something."""
        entries = self._entries()
        for entry in entries:
            if entry.host == host and not entry.password and self._keyring is not None:
                # Whatever a keyring raises, the password is gone then.
                with suppress(Exception):
                    self._keyring.delete_password(f"{SERVICE} {host}", entry.username)
        rest = [entry for entry in entries if entry.host != host]
        if len(rest) < len(entries):
            self._write(rest)
        return len(rest) < len(entries)

    def all(self) -> list[Credential]:
        """Return what is kept, with the passwords.

        Raises:
            ConfigError: others can read the file, or it cannot be understood.
            InstallError: the keyring refuses to give a password.
        """
        found: list[Credential] = []
        for entry in self._entries():
            password = entry.password
            if not password and self._keyring is not None:
                name = f"{SERVICE} {entry.host}"
                with _keyring_errors():
                    password = self._keyring.get_password(name, entry.username) or ""
            if password:
                found.append(Credential(entry.host, entry.username, password))
        return found

    def _entries(self) -> list[Credential]:
        if not self.path.is_absolute():
            return []
        try:
            mode = self.path.stat().st_mode
        except OSError:
            return []
        if stat.S_IMODE(mode) & 0o077:
            raise ConfigError(f"others can read {self.path}; run `chmod 600 {self.path}`")
        return read_netrc(self.path)

    def _write(self, entries: Sequence[Credential]) -> None:
        if not self.path.is_absolute():
            raise ConfigError("this user has no home to keep credentials in; set HOME to its path")
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_netrc(self.path, entries)


def read_netrc(path: Path) -> list[Credential]:
    """Read a `.netrc`; one that is not there has nothing in it.

    Raises:
        ConfigError: it cannot be understood.
    """
    try:
        hosts = netrc.netrc(str(path)).hosts
    except FileNotFoundError:
        return []
    except (netrc.NetrcParseError, UnicodeError) as error:
        raise ConfigError(f"{path} cannot be understood; mend it, or delete it") from error
    return [Credential(host, login, password) for host, (login, _, password) in hosts.items()]


def netrc_text(entries: Sequence[Credential]) -> str:
    """Return the text of a `.netrc`.

    Raises:
        ConfigError: a name or a password has a character that no `.netrc` can have.
    """
    lines: list[str] = []
    for entry in entries:
        machine = "default" if entry.host == "default" else f"machine {entry.host}"
        password = f" password {_quoted(entry.password)}" if entry.password else ""
        lines.append(f"{machine} login {_quoted(entry.username)}{password}\n")
    return "".join(lines)


def _quoted(text: str) -> str:
    if any(not character.isprintable() for character in text):
        raise ConfigError("a user name or a password has a character that cannot be written")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def write_netrc(path: Path, entries: Sequence[Credential]) -> None:
    """Write a `.netrc` that nobody else can read, as a whole or not at all."""
    text = netrc_text(entries)
    new = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)
    new.replace(path)


@contextmanager
def _keyring_errors() -> Generator[None]:
    """Tell what a keyring raises, each its own, as a refusal."""
    try:
        yield
    except Exception as error:
        raise InstallError(
            f"the keyring refused ({type(error).__name__}: {error}); unlock it and try again",
            retryable=True,
        ) from error


def _usable_keyring() -> Any:
    """Return the module `keyring` if it is installed and has something that keeps secrets."""
    try:
        keyring = importlib.import_module("keyring")
        # A backend that only refuses, as on a server without a desktop, has no priority.
        return keyring if keyring.get_keyring().priority >= 1 else None
    except Exception:  # noqa: BLE001 - whatever its backends raise, the file will do
        return None
