"""Makes and reads keys, and decrypts passwords. Nothing here is ever stored."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

from fleeting.errors import ConfigError

if TYPE_CHECKING:
    from fleeting.types import ConnectorSettings

__all__ = ("KeyPair", "console_host_keys", "decrypt_password", "load_key", "parse_key")

_HOST_KEYS = re.compile(
    r"-----BEGIN SSH HOST KEY KEYS-----(.*?)-----END SSH HOST KEY KEYS-----", re.DOTALL
)
_HOST_KEY = re.compile(r"((?:ssh|ecdsa|sk)-[a-z0-9@.-]+) ([A-Za-z0-9+/]+={0,2})")


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A key to log in with, in OpenSSH's formats.

    Attributes:
        private: the private half; it is not part of the repr.
        public: the public half, one line.
    """

    private: str = field(repr=False)
    public: str

    @classmethod
    def generate(cls) -> KeyPair:
        """Make a new ed25519 key."""
        return _pair(Ed25519PrivateKey.generate())


def load_key(settings: ConnectorSettings, *, pushed: bool) -> KeyPair:
    """Return the key that is pushed, or that decrypts passwords.

    Args:
        settings: name the key file; without one, a new key is made if it is needed.
        pushed: whether the key is pushed to instances.

    Raises:
        ConfigError: the file does not contain a usable key.
    """
    text = settings.read_private_key()
    if text is None:
        return KeyPair.generate() if pushed else KeyPair("", "")
    if not pushed:
        return KeyPair(text, "")
    try:
        return parse_key(text)
    except ValueError as error:
        raise ConfigError(f"connector_config.key_path: {settings.key_path}: {error}") from None


def parse_key(text: str) -> KeyPair:
    """Parse a private key that can be pushed to an instance.

    Raises:
        ValueError: it is not a private key, is encrypted, or is of a type that EC2 Instance
            Connect does not accept; the message contains nothing of the key.
    """
    key = _load(text)
    if not isinstance(key, Ed25519PrivateKey | RSAPrivateKey):
        raise ValueError("EC2 Instance Connect accepts ed25519 and RSA keys only")
    return _pair(key)


def decrypt_password(password_data: str, private_key: str) -> str:
    """Return the password of a Windows instance.

    Args:
        password_data: as EC2 returns it, in base64.
        private_key: the key that the instance was launched with.

    Raises:
        ValueError: it is a different key; the message contains neither key nor password.
    """
    key = _load(private_key)
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("the passwords of Windows instances are encrypted with RSA keys only")
    try:
        encrypted = base64.b64decode(password_data.strip(), validate=True)
        # AWS encrypts with this padding. Attackers do not learn whether it failed, so PKCS #1
        # v1.5 is safe here.
        return key.decrypt(encrypted, padding.PKCS1v15()).decode()
    except (binascii.Error, ValueError):
        raise ValueError("the password was not encrypted with this key") from None


def console_host_keys(console: str) -> tuple[str, ...]:
    """Return the host keys that cloud-init has printed last on an instance's console."""
    blocks = _HOST_KEYS.findall(console)
    if not blocks:
        return ()
    found = (f"{kind} {key}" for kind, key in _HOST_KEY.findall(blocks[-1]))
    return tuple(dict.fromkeys(found))


def _load(text: str) -> object:
    data = text.encode()
    try:
        if "BEGIN OPENSSH PRIVATE KEY" in text:
            return load_ssh_private_key(data, None)
        return load_pem_private_key(data, None)
    except TypeError:
        raise ValueError("the key is protected by a passphrase; use a key without one") from None
    except (ValueError, UnsupportedAlgorithm):
        # The library's message could contain a part of the key.
        raise ValueError("not a private key in OpenSSH or PEM format") from None


def _pair(key: Ed25519PrivateKey | RSAPrivateKey) -> KeyPair:
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    # With a comment, because AWS refuses keys of less than 80 characters.
    return KeyPair(private.decode(), f"{public.decode()} fleeting")
