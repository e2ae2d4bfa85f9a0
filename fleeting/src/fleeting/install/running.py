"""Run an installer with its own output, and end it when this process is told to end."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from fleeting.errors import InstallError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("run_installer",)


def run_installer(command: Sequence[str]) -> int:
    """Run a command to its end, and return its exit code; its output goes to standard error.

    The installer has a session of its own, so that an interruption reaches it once, through this
    process. It gets SIGINT, on which installers clean up, and SIGKILL at a second interruption.
    It has always ended when this function returns or raises.
    """
    try:
        process = subprocess.Popen(  # noqa: S603 - the command is a list of arguments of our own
            command,
            stdin=subprocess.DEVNULL,
            stdout=2,  # Standard error.
            env=_variables(),
            start_new_session=True,
        )
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InstallError(f"{command[0]} cannot be started: {reason}", retryable=True) from error
    number = signal.SIGINT
    while process.returncode is None:
        try:
            process.wait()
        except KeyboardInterrupt:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            number = signal.SIGKILL
    if number is signal.SIGKILL:
        raise KeyboardInterrupt
    return process.returncode


def _variables() -> dict[str, str]:
    """Return the variables of an installer: it asks no questions, but it asks a keyring."""
    variables = {**os.environ, "PIP_NO_INPUT": "1"}
    if importlib.util.find_spec("keyring") is not None:
        variables.setdefault("PIP_KEYRING_PROVIDER", "import")
        variables.setdefault("UV_KEYRING_PROVIDER", "subprocess")
        # uv runs the command `keyring`, which is next to this Python.
        scripts = os.path.dirname(sys.executable)  # noqa: PTH120 - a link must stay one
        variables["PATH"] = f"{scripts}{os.pathsep}{variables.get('PATH', os.defpath)}"
    return variables
