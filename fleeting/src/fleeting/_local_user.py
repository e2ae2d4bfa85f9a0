"""Lets asyncssh work for a user without a name or a home directory, as in many containers.

asyncssh asks for both at each connection, although every connection here names the user to
log in as and uses no file of the home directory.
"""

from __future__ import annotations

import getpass
import os
from pathlib import Path
from types import SimpleNamespace

import asyncssh.connection

__all__ = ("allow_nameless_user",)


def allow_nameless_user() -> None:
    """Make asyncssh use the user's number for a missing name, and `/` for a missing home."""
    # A module of its own, since other programs use the real one. Nothing else can be replaced.
    setattr(asyncssh.connection, "getpass", SimpleNamespace(getuser=_name))  # noqa: B010 - an assignment is not typed
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/"  # As Docker does.


def _name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # The latter from Python 3.13 on.
        return str(os.getuid())
