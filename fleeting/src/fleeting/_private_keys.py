"""Finds out before an instance is bought whether a private key can be used at all."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING

from fleeting.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from fleeting.types import ConnectorSettings

__all__ = ("check_private_key",)

# Keys for other connectors may have other formats.
PROTOCOLS = (None, "ssh")


def check_private_key(settings: ConnectorSettings) -> None:
    """Refuse a private key with which no login can succeed, or that others can read.

    Raises:
        ConfigError: the file cannot be read, is encrypted or not a key, or its owner is this user
            and others may read it. OpenSSH refuses the same. The message contains no part of it.
    """
    text, path = settings.read_private_key(), settings.key_path
    if text is None or path is None or settings.protocol not in PROTOCOLS:
        return
    reason = _why_not_private(path.expanduser()) or _why_no_key(text, path)
    if reason:
        raise ConfigError(f"connector_config.key_path: {path} {reason}")


def _why_not_private(path: Path) -> str:
    """Return what is wrong with the mode of a file of this user."""
    if sys.platform == "win32":
        return ""
    found = path.stat()
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid != os.geteuid() or not mode & 0o077:
        return ""
    return f"can be read by other users (its mode is {mode:04o}); run `chmod 600 {path}`"


def _why_no_key(text: str, path: Path) -> str:
    """Return why a text cannot be used as a private key."""
    import asyncssh

    try:
        asyncssh.import_private_key(text)
    except (asyncssh.KeyEncryptionError, asyncssh.KeyImportError) as error:
        if "passphrase" in str(error).lower():
            return (
                "is encrypted, and no passphrase can be given; use a key without one, which "
                f"`ssh-keygen -p -f {path}` makes of it"
            )
        return "contains no private key in OpenSSH or PEM format; check that it is the right file"
    return ""
