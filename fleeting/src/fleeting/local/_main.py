"""Starts the server: run as a script by the manager, which writes one line of settings.

A script and not a module, so that it runs isolated (`-I`) and yet imports what
the manager would: the settings bring the manager's module search path.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

__all__ = ()


def read_settings() -> dict[str, Any]:
    """Read one line and no byte more: what follows is for the server."""
    line = b""
    while not line.endswith(b"\n"):
        line += os.read(0, 1) or b"\n"
    settings: dict[str, Any] = json.loads(line)
    return settings


def detach(root: str) -> None:
    """Go on in a process that is not the manager's child, and let this one wait for it.

    This one ends when the other is ready, and has therefore closed its standard
    output, or has ended.
    """
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    os.setsid()
    os.dup2(writer, 1)
    os.close(writer)
    log = os.open(f"{root}/server.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(log, 2)
    os.close(log)


def claim_root(root: str) -> int:
    """Lock the root directory for this tree of processes.

    Held by every process of the tree, the lock is free only after the last one's
    end; so this waits until a former tree has gone.
    """
    lock = os.open(f"{root}/tree.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def start_nursery(
    root: str, lock: int, *, temporary: bool
) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start the nursery; return the way to talk to it, and its process."""
    ours, theirs = socket.socketpair()
    kind = "temporary" if temporary else "kept"
    # Commands are text here and bytes to the system: the same bytes in every locale.
    python = [sys.executable, "-I", "-X", "utf8"]
    script = str(Path(__file__).with_name("_supervisor.py"))
    with theirs:
        process = subprocess.Popen(  # noqa: S603 - a program of our own
            [*python, script, root, kind, str(theirs.fileno()), str(lock)],
            pass_fds=(theirs.fileno(), lock),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
    return ours, process


def main() -> None:
    """Start the nursery, and be the server."""
    settings = read_settings()
    os.umask(0o022)
    os.chdir("/")
    if settings["persistent"]:
        detach(settings["root"])
    root: str = settings["root"] or tempfile.mkdtemp(prefix="fleeting-local-")
    lock = claim_root(root)
    nursery, process = start_nursery(root, lock, temporary=settings["root"] is None)
    sys.path[:] = settings["path"]
    # Imported when the nursery starts already: this takes a while.
    from fleeting.local import _server

    try:
        _server.run(settings | {"root": root}, nursery)
    finally:
        nursery.close()
        process.wait()


if __name__ == "__main__":
    main()
