"""Translates the exceptions of asyncssh to those of `fleeting.errors`."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import asyncssh

from fleeting._text import foreign
from fleeting.errors import (
    AuthenticationFailed,
    ConnectionLost,
    HostKeyMismatch,
    NotSupported,
    TransferFailed,
    Unreachable,
)

if TYPE_CHECKING:
    from fleeting.errors import ConnectorError

# The most derived class that is listed here decides.
_TRANSLATIONS: dict[type[BaseException], type[ConnectorError]] = {
    asyncssh.Error: ConnectionLost,
    asyncssh.DisconnectError: ConnectionLost,
    asyncssh.PermissionDenied: AuthenticationFailed,
    asyncssh.IllegalUserName: AuthenticationFailed,
    asyncssh.KeyImportError: AuthenticationFailed,
    asyncssh.KeyEncryptionError: AuthenticationFailed,
    asyncssh.HostKeyNotVerifiable: HostKeyMismatch,
    asyncssh.KeyExchangeFailed: NotSupported,
    asyncssh.ProtocolNotSupported: NotSupported,
    asyncssh.ServiceNotAvailable: NotSupported,
    asyncssh.ChannelOpenError: Unreachable,
    asyncssh.ChannelListenError: Unreachable,
    asyncssh.SFTPError: TransferFailed,
    asyncssh.SFTPNoConnection: ConnectionLost,
    asyncssh.SFTPConnectionLost: ConnectionLost,
    ValueError: NotSupported,
    OSError: ConnectionLost,
}

FOREIGN = (
    asyncssh.Error,
    asyncssh.ChannelListenError,
    asyncssh.KeyImportError,
    asyncssh.KeyEncryptionError,
    OSError,
)

_CAUSES: dict[type[BaseException], str] = {
    asyncssh.SFTPNoSuchFile: "no such file or directory",
    asyncssh.SFTPNoSuchPath: "no such file or directory",
    asyncssh.SFTPPermissionDenied: "permission denied",
    asyncssh.SFTPWriteProtect: "the file system is read-only",
    asyncssh.SFTPNoSpaceOnFilesystem: "the disk is full",
    asyncssh.SFTPQuotaExceeded: "the disk quota is exhausted",
    asyncssh.SFTPFileIsADirectory: "it is a directory",
    asyncssh.SFTPNotADirectory: "a parent of it is not a directory",
    asyncssh.SFTPLinkLoop: "its symbolic links form a loop",
}

_ERRNO_CAUSES: dict[int, str] = {
    errno.EMFILE: "this command has too many open files; raise `ulimit -n`",
    errno.ENFILE: "this computer has too many open files",
    errno.ENOENT: "no such file or directory",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is exhausted",
    errno.EROFS: "the file system is read-only",
    errno.EISDIR: "it is a directory",
    errno.ENOTDIR: "a parent of it is not a directory",
}


def translate(error: BaseException, what: str) -> ConnectorError:
    """Return the connector error for an exception that is one of `FOREIGN`.

    Args:
        error: the exception.
        what: the beginning of the message: what failed, and where.
    """
    ours = next(_TRANSLATIONS[kind] for kind in type(error).__mro__ if kind in _TRANSLATIONS)
    return ours(f"{what}: {cause(error)}")


def no_sftp(where: str, error: asyncssh.SFTPError) -> NotSupported:
    """Return the error for an SFTP server that does not begin as the protocol demands."""
    if isinstance(error, asyncssh.SFTPBadMessage):
        return NotSupported(
            f"{where} cannot transfer files: a start-up file of its shell (such as .bashrc) prints "
            "text before the file transfer begins; print only in interactive shells there"
        )
    return NotSupported(
        f"{where} cannot transfer files: its SFTP server ended at once; check that sftp-server is "
        "installed, and that no start-up file of the shell ends it"
    )


def cause(error: BaseException) -> str:
    """Return a human-readable reason."""
    known = next((_CAUSES[kind] for kind in type(error).__mro__ if kind in _CAUSES), None)
    if known is not None:
        return known
    if isinstance(error, OSError) and error.errno:
        # The texts of asyncio's errors repeat the address.
        if error.errno == errno.EINVAL and error.strerror:
            return _lowered(error.strerror)  # Ours says more than the system's.
        return _ERRNO_CAUSES.get(error.errno) or _lowered(os.strerror(error.errno))
    # Partly the other side's own words.
    return foreign(str(error).strip()) or type(error).__name__


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]
