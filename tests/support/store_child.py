"""A holder of a state file that can be killed: `python tests/support/store_child.py FILE`.

Commits generation after generation, each of ten records, and prints the number of each
generation once it was acknowledged.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import anyio

from taskscaler.core import InstanceRecord
from taskscaler.storage import SqliteStore

RECORDS = 10


async def main() -> None:
    """Commit until the process is killed."""
    async with SqliteStore.open(sys.argv[1]) as store:
        loaded = await store.load()
        generation = max(
            (r.used for r in loaded.records if isinstance(r, InstanceRecord)), default=0
        )
        sys.stdout.write("open\n")
        sys.stdout.flush()
        while True:
            generation += 1
            await store.commit(
                loaded.epoch,
                [
                    InstanceRecord("g", f"i-{n}", None, datetime.now(UTC), generation, ())
                    for n in range(RECORDS)
                ],
                (),
            )
            sys.stdout.write(f"{generation}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    anyio.run(main)
