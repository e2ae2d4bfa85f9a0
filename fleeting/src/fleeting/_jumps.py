"""Hosts on the way to an instance, and the files of private keys; `fleeting.types` exports them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fleeting._regular_files import read_regular
from fleeting.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

__all__ = ("Jump", "JumpSettings", "read_key_file")

_ADDRESS = re.compile(
    r"(?:(?P<user>[^@\s]+)@)?(?:\[(?P<v6>[^\]\s]+)\]|(?P<host>[^\[\]:@\s]+))(?::(?P<port>[0-9]{1,5}))?"
)
_HIGHEST_PORT = 65535


@dataclass(frozen=True, slots=True)
class Jump:
    """A host through which the next host, or the instance, is reached with the same protocol.

    Attributes:
        host: a host name or an address.
        port: None means the protocol's default.
        username: the user to log in as; empty for that of the instance.
        private_key: in OpenSSH or PEM format; None for that of the instance.
        host_keys: public keys in OpenSSH format; the host must show one of them. If empty,
            the connector pins the key that it shows first.
    """

    host: str
    port: int | None = None
    username: str = ""
    private_key: str | None = field(default=None, repr=False)
    host_keys: tuple[str, ...] = ()

    @classmethod
    def parse(cls, address: str) -> Self:
        """Return the host of an address such as `ada@bastion:2222` or `[2001:db8::1]`.

        Raises:
            ValueError: it is not an address; the message is suitable for users.
        """
        found = _ADDRESS.fullmatch(address)
        port = int(found["port"]) if found and found["port"] else None
        host = (found["host"] or found["v6"]) if found else ""
        if found is None or host.startswith("-") or (port and port > _HIGHEST_PORT) or port == 0:
            raise ValueError(
                f"{address!r} is not an address; write for example "
                '"ada@bastion.example.com:22" or "ada@[2001:db8::1]:22"'
            )
        return cls(host, port, found["user"] or "")

    def __str__(self) -> str:
        """Return the address as `parse` takes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.username}@" if self.username else ""
        return f"{user}{host}" if self.port is None else f"{user}{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class JumpSettings:
    """The operator's settings for a host on the way to the instances.

    Attributes:
        jump: the host, without a private key.
        key_path: the file with the private key; None for the key of the instance.
    """

    jump: Jump
    key_path: Path | None = None


def read_key_file(path: Path, key: str) -> str:
    """Read the file of a private key.

    Args:
        path: of the file; may begin with `~`.
        key: the path of the key in the configuration, for messages.

    Raises:
        ConfigError: the file cannot be read as text. The message names the file and
            never contains a part of it.
    """
    try:
        return read_regular(path.expanduser()).decode()
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
    except UnicodeError:
        reason = "it is not text"
    except RuntimeError:  # A `~user` that does not exist.
        reason = "there is no such home directory"
    raise ConfigError(
        f"{key}: {path} cannot be read ({reason}); set it to a "
        "private key in OpenSSH or PEM format that this user can read"
    )
