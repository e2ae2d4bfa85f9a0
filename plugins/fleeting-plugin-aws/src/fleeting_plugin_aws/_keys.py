"""Keys and passwords: what is made, read and decrypted here, and never written down."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field

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

__all__ = ("KeyPair", "decrypt_password", "host_keys", "read_key")

_HOST_KEYS = re.compile(
    r"-----BEGIN SSH HOST KEY KEYS-----(.*?)-----END SSH HOST KEY KEYS-----", re.DOTALL
)
_HOST_KEY = re.compile(r"((?:ssh|ecdsa|sk)-[a-z0-9@.-]+) ([A-Za-z0-9+/]+={0,2})")


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A key to log in with, in OpenSSH's formats.

    Attributes:
        private: shown to nobody.
        public: one line.
    """

    private: str = field(repr=False)
    public: str

    @classmethod
    def generate(cls) -> KeyPair:
        """Make a new one."""
        return _pair(Ed25519PrivateKey.generate())


def read_key(text: str) -> KeyPair:
    """Read a private key that can be pushed to an instance.

    Raises:
        ValueError: it is none, is encrypted, or is of a kind that EC2 Instance Connect
            does not take; the message holds nothing of the key.
    """
    key = _load(text)
    if not isinstance(key, Ed25519PrivateKey | RSAPrivateKey):
        raise ValueError("EC2 Instance Connect takes ed25519 and RSA keys only")
    return _pair(key)


def decrypt_password(password_data: str, private_key: str) -> str:
    """Return the password of a Windows instance.

    Args:
        password_data: as EC2 gives it, in base64.
        private_key: the key that the instance was launched with.

    Raises:
        ValueError: it is not that key; the message holds neither key nor password.
    """
    key = _load(private_key)
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("the passwords of Windows instances are encrypted with RSA keys only")
    try:
        encrypted = base64.b64decode(password_data.strip(), validate=True)
        # What AWS encrypts with; there is no choice, and nobody else sees how it fails.
        return key.decrypt(encrypted, padding.PKCS1v15()).decode()
    except (binascii.Error, ValueError):
        raise ValueError("the password was not encrypted with this key") from None


def host_keys(console: str) -> tuple[str, ...]:
    """Return the host keys that cloud-init has printed on an instance's console, the last ones."""
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
        raise ValueError("the key is protected by a passphrase; give one without") from None
    except (ValueError, UnsupportedAlgorithm):
        # The library's own words could show a part of it.
        raise ValueError("it is no private key in OpenSSH or PEM format") from None


def _pair(key: Ed25519PrivateKey | RSAPrivateKey) -> KeyPair:
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    # With a name, because AWS takes no key of less than 80 characters.
    return KeyPair(private.decode(), f"{public.decode()} fleeting")
