"""Makes keys, and writes and reads the metadata by which the guest agent learns of them.

The agent reads two metadata values, each a text with one entry a line:

* `ssh-keys` has public keys, each with a user. A comment of the form `google-ssh` with JSON
  gives the key an end, after which the agent drops it.
* `windows-keys` has RSA keys as JSON. The agent sets a password for the user, encrypts it with
  the key, and prints the result on the fourth serial port.

Lines of others are kept as they are, byte by byte. Our own lines go when they have expired,
so that the value does not grow to the size at which Google refuses it.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

from fleeting_plugin_googlecloud._members import read_time

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = (
    "LoginKey",
    "PasswordKey",
    "add_ssh_key",
    "add_windows_key",
    "find_password",
    "parse_login_key",
    "ssh_key_end",
)

# The beginning of the comment of a key that expires.
_EXPIRING = "google-ssh "
_PUBLIC_EXPONENT = 65537
_RSA_BITS = 2048


@dataclass(frozen=True, slots=True)
class LoginKey:
    """A key to log in with, in OpenSSH's formats.

    Attributes:
        private: the private half; it is not part of the repr.
        public: the public half, one line without a comment.
    """

    private: str = field(repr=False)
    public: str

    @classmethod
    def generate(cls) -> LoginKey:
        """Make a new ed25519 key."""
        return _login_key(Ed25519PrivateKey.generate())


def parse_login_key(text: str) -> LoginKey:
    """Parse a private key.

    Raises:
        ValueError: it is not a private key or is encrypted; the message contains nothing of it.
    """
    try:
        load = load_ssh_private_key if "BEGIN OPENSSH PRIVATE KEY" in text else load_pem_private_key
        key = load(text.encode(), None)
    except TypeError:
        raise ValueError("the key is protected by a passphrase; use a key without one") from None
    except (ValueError, UnsupportedAlgorithm):
        # The library's message could contain a part of the key.
        raise ValueError("not a private key in OpenSSH or PEM format") from None
    return LoginKey(text, _login_key(key).public)


def _login_key(key: Any) -> LoginKey:
    private: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public: bytes = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return LoginKey(private.decode(), public.decode())


def add_ssh_key(value: str, user: str, key: LoginKey, expires: datetime, now: datetime) -> str:
    """Return the value of `ssh-keys` with a key of ours.

    Args:
        value: the present value.
        user: who logs in with the key.
        key: the key.
        expires: the end of the key.
        now: the time, to drop our expired keys.
    """
    kept = [
        line
        for line in _lines(value)
        if not (_is_ours(line, user) and (key.public in line or _expires(line) <= now))
    ]
    comment = json.dumps({"userName": user, "expireOn": _time(expires)})
    return "\n".join([*kept, f"{user}:{key.public} {_EXPIRING}{comment}"])


def ssh_key_end(value: str, user: str, key: LoginKey) -> datetime | None:
    """Return until when a key of ours is valid; None if it is not in the value of `ssh-keys`."""
    ends = [_expires(line) for line in _lines(value) if _is_ours(line, user) and key.public in line]
    return max(ends, default=None)


def _is_ours(line: str, user: str) -> bool:
    """Return whether a line may be one that this plugin has written for a user."""
    return line.startswith(f"{user}:") and f" {_EXPIRING}" in line


def _expires(line: str) -> datetime:
    """Return the end of a key; the end of time if it has none."""
    try:
        comment = json.loads(line.partition(f" {_EXPIRING}")[2])
        found = read_time(comment["expireOn"])
    except (KeyError, TypeError, ValueError):
        found = None
    return found or datetime.max.replace(tzinfo=UTC)


def _lines(value: str) -> list[str]:
    return value.split("\n") if value else []


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S+0000")


class PasswordKey:
    """The key with which the agent of one Windows machine encrypts its user's password."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(_PUBLIC_EXPONENT, _RSA_BITS)
        numbers = self._key.public_key().public_numbers()
        self.modulus = _base64(numbers.n)
        self.exponent = _base64(numbers.e)

    def decrypt(self, encrypted: str) -> str:
        """Return the password.

        Raises:
            ValueError: it was encrypted with another key.
        """
        scheme = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
        try:
            return self._key.decrypt(base64.b64decode(encrypted), scheme).decode()
        except ValueError:
            raise ValueError("the password was not encrypted with this key") from None


def add_windows_key(
    value: str, user: str, key: PasswordKey, expires: datetime, now: datetime
) -> str:
    """Return the value of `windows-keys` with a key of ours; see `add_ssh_key`."""
    kept = [line for line in _lines(value) if not _is_expired_request(line, user, now)]
    request = {
        "userName": user,
        "modulus": key.modulus,
        "exponent": key.exponent,
        "email": user,
        "expireOn": _time(expires),
        "hashFunction": "sha256",
    }
    return "\n".join([*kept, json.dumps(request)])


def _is_expired_request(line: str, user: str, now: datetime) -> bool:
    try:
        request = json.loads(line)
        end = read_time(request["expireOn"])
        return request["email"] == request["userName"] == user and end is not None and end <= now
    except (KeyError, TypeError, ValueError):
        return False


def find_password(lines: Iterable[str], key: PasswordKey) -> str | None:
    """Return the encrypted password that the agent has printed for a key; None if it has not yet.

    Raises:
        ValueError: the agent reports an error.
    """
    for line in lines:
        try:
            answer = json.loads(line)
        except ValueError:
            continue
        if not isinstance(answer, dict) or answer.get("modulus") != key.modulus:  # pyright: ignore[reportUnknownMemberType] - what the agent prints
            continue
        if answer.get("passwordFound"):  # pyright: ignore[reportUnknownMemberType] - as above
            return str(answer.get("encryptedPassword", ""))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType] - as above
        raise ValueError(str(answer.get("errorMessage", "it gives no reason"))[:200])  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType] - as above
    return None


def _base64(number: int) -> str:
    return base64.b64encode(number.to_bytes((number.bit_length() + 7) // 8)).decode()
