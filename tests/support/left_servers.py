"""Ends the servers of tests that were killed.

A persistent server outlives its manager on purpose, and an sshd its parent. So a small process
waits until the tests have ended, however that happens, and then kills what they did not end.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ("watch_process", "watch_root")

# Each line of the input is the id of a process and a part of its command line, because the number
# can belong to another process by then; or the root of a server, which has its id in a file.
_GUARD = r"""
import json, os, signal, sys
found = []
for line in sys.stdin:
    kind, pid, rest = line.rstrip("\n").split(" ", 2)
    found.append((kind, int(pid), rest))
for kind, pid, rest in found:
    try:
        if kind == "root":
            pid, rest = json.load(open(rest + "/server.json"))["pid"], "/local/_main.py"
        if rest.encode() in open(f"/proc/{pid}/cmdline", "rb").read():
            os.kill(pid, signal.SIGKILL)
    except (OSError, ValueError):
        pass
"""


@functools.cache
def _guard() -> subprocess.Popen[str]:
    """Start the guard of this process: the end of its input is the end of the tests."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _GUARD],
        stdin=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def watch_root(root: Path) -> None:
    """End the persistent server of a root after the tests."""
    _tell(f"root 0 {root}")


def watch_process(pid: int, text: str) -> None:
    """End a process whose command line contains a text after the tests."""
    _tell(f"process {pid} {text}")


def _tell(line: str) -> None:
    stream = _guard().stdin
    assert stream is not None
    stream.write(f"{line}\n")
    stream.flush()
