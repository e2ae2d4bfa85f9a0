"""The server's main program. The manager runs it as a script and writes one line of settings.

A script and not a module, so that it can run isolated (`-I`) and still import the
same modules as the manager: the settings contain the manager's module search path.
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
    """Read one line from standard input, and no byte of what follows, which the server reads."""
    line = b""
    while not line.endswith(b"\n"):
        line += os.read(0, 1) or b"\n"
    settings: dict[str, Any] = json.loads(line)
    return settings


def detach(root: str) -> None:
    """Continue in a process that is not a child of the manager.

    The original process ends once the new one has closed its standard output, because it is
    ready or has ended.
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
    # A pipe of this name must not block.
    log = os.open(f"{root}/server.log", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(log, 2)
    os.close(log)


def claim_root(root: str) -> int:
    """Lock the root directory for this tree of processes.

    Every process of a tree holds the lock, so this waits until the last process of a previous
    tree has ended.
    """
    lock = os.open(f"{root}/tree.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def start_supervisor(
    root: str, lock: int, *, temporary: bool
) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start the supervisor; return the socket to it, and its process."""
    ours, theirs = socket.socketpair()
    kind = "temporary" if temporary else "kept"
    # UTF-8 mode, so that the text of a command becomes the same bytes in every locale.
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
    """Start the supervisor, then run the server in this process."""
    settings = read_settings()
    os.umask(0o022)
    os.chdir("/")
    if settings["persistent"]:
        detach(settings["root"])
    root: str = settings["root"] or tempfile.mkdtemp(prefix="fleeting-local-")
    lock = claim_root(root)
    supervisor, process = start_supervisor(root, lock, temporary=settings["root"] is None)
    sys.path[:] = settings["path"]
    # Imported now, because it takes a while, and meanwhile the supervisor starts.
    from fleeting.local import _server

    try:
        _server.run(settings | {"root": root}, supervisor)
    finally:
        supervisor.close()
        process.wait()


if __name__ == "__main__":
    main()
