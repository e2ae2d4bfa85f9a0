"""Whether processes that are not children of the tests have ended."""

from __future__ import annotations

from pathlib import Path

import anyio


def alive(pid: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def gone(pid: int) -> None:
    """Wait for a process to end; it is not a child of this one, so nothing reports its end."""
    with anyio.fail_after(10):
        while alive(pid):
            await anyio.sleep(0.01)
