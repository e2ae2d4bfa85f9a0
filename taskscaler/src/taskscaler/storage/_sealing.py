"""Secrets are written sealed, with a key that is not in the file.

The seal is AES-256 in Galois/Counter Mode under a fresh nonce. It also covers the
key of the record, which stands beside it in the clear: a sealed text that is moved to
another row does not open there. `cryptography` is imported with the first secret.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import shlex
from typing import TYPE_CHECKING

from taskscaler._errors import StoreError
from taskscaler.storage._files import beside, is_private, open_private, sync_directory

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ("Sealer", "Unsealable")

KEY_BYTES = 32
NONCE_BYTES = 12


class Unsealable(Exception):
    """The key is lost or another one, or the text is not what was sealed."""


class Sealer:
    """Seals texts and opens them again.

    Without a key file of the operator's own, the key is made beside the state file when
    the first secret is to be sealed.

    Args:
        path: the state file.
        key_file: the operator's own; None for the one beside the state file.

    Raises:
        StoreError: the key file is there and cannot be used, or is the operator's and missing.
    """

    def __init__(self, path: Path, key_file: Path | None) -> None:
        self._path = key_file or beside(path, ".key")
        self._cipher: AESGCM | None = None
        self._key: bytes | None = None
        if key_file is not None or self._path.exists():
            self._key = _read_key(self._path)

    def seal(self, text: bytes, bound_to: bytes) -> str:
        """Return a text that only this key opens, and only for what it is bound to.

        Raises:
            StoreError: a new key cannot be written.
        """
        if self._key is None:
            key = secrets.token_bytes(KEY_BYTES)
            _write_key(self._path, key)
            self._key = key
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = self._open(self._key).encrypt(nonce, text, bound_to)
        return base64.b64encode(nonce + sealed).decode()

    def unseal(self, sealed: str, bound_to: bytes) -> bytes:
        """Return what was sealed.

        Raises:
            Unsealable: it cannot be had any more.
        """
        from cryptography.exceptions import InvalidTag

        if self._key is None:
            raise Unsealable
        try:
            raw = base64.b64decode(sealed, validate=True)
            cipher = self._open(self._key)
            return cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], bound_to)
        except (InvalidTag, ValueError):
            raise Unsealable from None

    def _open(self, key: bytes) -> AESGCM:
        if self._cipher is None:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            self._cipher = AESGCM(key)
        return self._cipher


def _read_key(path: Path) -> bytes:
    try:
        if not is_private(path):
            raise StoreError(
                f"the key file {path} may be read by others, and so may be the secrets; run "
                f"`chmod 600 {shlex.quote(str(path))}`"
            )
        key = base64.b64decode(path.read_bytes().strip(), validate=True)
    except binascii.Error:
        key = b""
    except OSError as error:
        raise StoreError(
            f"the key file {path} cannot be read ({error.strerror}); name the one that the state "
            f"was written with, or make a new one with `{_recipe(path)}`"
        ) from None
    if len(key) != KEY_BYTES:
        raise StoreError(
            f"the key file {path} holds no key of {KEY_BYTES} bytes in Base64; make a new one with "
            f"`{_recipe(path)}`, and credentials of instances are asked for again"
        )
    return key


def _recipe(path: Path) -> str:
    return f"(umask 077; head -c {KEY_BYTES} /dev/urandom | base64 > {shlex.quote(str(path))})"


def _write_key(path: Path, key: bytes) -> None:
    # Whole or not at all: half a key would lose every secret at the next start.
    draft = beside(path, ".new")
    try:
        draft.unlink(missing_ok=True)
        with os.fdopen(open_private(draft, os.O_WRONLY | os.O_EXCL), "wb") as file:
            file.write(base64.b64encode(key) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise StoreError(
            f"the key file {path} cannot be written ({error.strerror}); without it no credentials "
            "can be kept"
        ) from None
