"""Sealed secrets: encrypted with a key that is not in the state file.

The seal is AES-256 in Galois/Counter Mode under a fresh nonce. It also authenticates
the key of the record, which is stored in the clear: a sealed text that is moved to
another row cannot be unsealed there. `cryptography` is imported with the first secret.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import shlex
from typing import TYPE_CHECKING

from fleeting import read_regular
from taskscaler._errors import StoreError
from taskscaler.storage._files import is_private, open_private, sibling, sync_directory

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ("Sealer", "Unsealable")

KEY_BYTES = 32
NONCE_BYTES = 12


class Unsealable(Exception):
    """The key was lost or replaced, or the text was changed."""


class Sealer:
    """Seals and unseals texts.

    If the operator names no key file, the key is in a file next to the state file, which
    is created when the first secret is sealed.

    Args:
        path: the state file.
        key_file: the operator's; None for the one next to the state file.

    Raises:
        StoreError: the key file cannot be used, or the operator's does not exist.
    """

    def __init__(self, path: Path, key_file: Path | None) -> None:
        self._path = key_file or sibling(path, ".key")
        self._cipher: AESGCM | None = None
        self._key: bytes | None = None
        if key_file is not None or self._path.exists():
            self._key = _read_key(self._path)

    def seal(self, text: bytes, bound_to: bytes) -> str:
        """Seal a text; it can be unsealed only with this key and the same `bound_to`.

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
        """Return the text that was sealed.

        Raises:
            Unsealable: the key or the text is not the one of the sealing.
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
                f"other users can read the key file {path}, and so the secrets; run "
                f"`chmod 600 {shlex.quote(str(path))}`"
            )
        key = base64.b64decode(read_regular(path).strip(), validate=True)
    except binascii.Error:
        key = b""
    except OSError as error:
        raise StoreError(
            f"the key file {path} cannot be read ({error.strerror}); use the one that the state "
            f"was written with, or create a new one with `{_recipe(path)}`"
        ) from None
    if len(key) != KEY_BYTES:
        raise StoreError(
            f"the key file {path} must hold {KEY_BYTES} bytes in Base64; create a new one with "
            f"`{_recipe(path)}`, and providers are asked for the credentials of instances again"
        )
    return key


def _recipe(path: Path) -> str:
    return f"(umask 077; head -c {KEY_BYTES} /dev/urandom | base64 > {shlex.quote(str(path))})"


def _write_key(path: Path, key: bytes) -> None:
    # Renamed when it is complete: half a key would lose every secret at the next start.
    draft = sibling(path, ".new")
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
            f"the key file {path} cannot be written ({error.strerror}), so credentials cannot be "
            "stored; make its directory writable for this user"
        ) from None
