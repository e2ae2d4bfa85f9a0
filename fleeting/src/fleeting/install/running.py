"""Runs an installer: what it prints is kept, and shown as it comes if somebody watches."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleeting.errors import InstallError
from fleeting.install.failures import redacted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ("Outcome", "run_installer")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an installer ended.

    Attributes:
        code: its exit code.
        output: all that it printed, as it did.
    """

    code: int
    output: str


def run_installer(
    command: Sequence[str],
    environ: Mapping[str, str],
    *,
    show: bool,
    secrets: Sequence[str] = (),
    files: Sequence[int] = (),
) -> Outcome:
    """Run a command without a shell and without input.

    It has a session of its own: an interruption of the terminal reaches it through us, so that
    it has ended when we put back what it had begun.

    Args:
        command: the program and its arguments.
        environ: its variables.
        show: whether its output appears on standard error; on a terminal it sees one, too.
        secrets: what must not be shown, whatever it prints.
        files: open files that it has as well.

    Raises:
        InstallError: the program cannot be started.
    """
    is_terminal = show and sys.stderr.isatty()
    reader, writer = pty.openpty() if is_terminal else os.pipe()
    try:
        process = subprocess.Popen(  # noqa: S603 - the command is a list of arguments of our own
            command,
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=writer,
            env=dict(environ),
            start_new_session=True,
            pass_fds=files,
        )
    except OSError as error:
        os.close(reader)
        raise InstallError(
            f"{command[0]} cannot be started: {(error.strerror or str(error)).lower()}",
            retryable=True,
        ) from error
    finally:
        os.close(writer)
    kept: list[bytes] = []
    try:
        for chunk in _chunks(reader):
            kept.append(chunk)
            if show:
                sys.stderr.write(redacted(chunk.decode(errors="replace"), secrets, ansi=True))
                sys.stderr.flush()
        code = process.wait()
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    finally:
        os.close(reader)
    text = b"".join(kept).decode(errors="replace").replace("\r\n", "\n")
    return Outcome(code, text)


def _chunks(reader: int) -> Iterator[bytes]:
    # A terminal of which the other side is closed gives an error instead of an end.
    with suppress(OSError):
        while chunk := os.read(reader, 65536):
            yield chunk
