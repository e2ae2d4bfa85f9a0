"""The time and memory that opening a group takes, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

__all__ = ("measure_opening",)

# Opens the group twice in a new process: the first time includes importing the SDK.
OPENING = """
import contextlib, json, resource, sys, time
import anyio
from fleeting import Registry, decode
from fleeting.types import GroupSettings

def memory():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20

async def main():
    gaps = [0.0]
    async def watch():
        while True:
            before = time.perf_counter()
            await anyio.sleep(0.001)
            gaps.append(time.perf_counter() - before - 0.001)
    provider = Registry().provider(sys.argv[2])
    config = decode(json.loads(sys.argv[1]), provider.config_type, where="benchmark")
    before = memory()
    times, sizes = [], []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(2):
                started = time.perf_counter()
                group = await stack.enter_async_context(provider.open(config, GroupSettings()))
                await group.update()
                times.append(time.perf_counter() - started)
                sizes.append(memory())
        tasks.cancel_scope.cancel()
    print(json.dumps([*times, max(gaps), before, *sizes]))

anyio.run(main)
"""


def measure_opening(provider: str, config: dict[str, Any]) -> list[dict[str, object]]:
    """Measure the time and memory that opening takes."""
    told = subprocess.check_output(
        [sys.executable, "-c", OPENING, json.dumps(config), provider], text=True
    )
    first, second, gap, before, open_first, open_again = json.loads(told)
    return [
        {"what": "first opening and listing, s", "figure": first},
        {"what": "second opening, s", "figure": second},
        {"what": "longest time that the event loop was blocked, s", "figure": gap},
        {"what": "memory before opening, MiB", "figure": before},
        {"what": "memory with an open group, MiB", "figure": open_first},
        {"what": "memory with two open groups, MiB", "figure": open_again},
    ]
