"""Commits: what must be stored before other effects are carried out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from fleeting import CancelledInside, DeadlineExceeded, call_within
from taskscaler._errors import StoreError
from taskscaler.core import effects

if TYPE_CHECKING:
    from collections.abc import Iterable

    from taskscaler.core import Effect, Record
    from taskscaler.storage import Store

__all__ = ("Receipt", "commit", "merge")

# How long a store may take for a commit. A disk that takes longer will not come back.
COMMIT_SECONDS = 60.0


class Receipt:
    """Tells a caller of `Taskscaler.commit` what became of its records.

    Attributes:
        done: set when they are committed, or will never be.
        committed: which of the two.
    """

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.committed = False

    def confirm(self) -> None:
        """Report the records as committed."""
        self.committed = True
        self.done.set()


def merge(batch: Iterable[Effect]) -> tuple[tuple[Record, ...], tuple[tuple[str, str, str], ...]]:
    """Return the records to put and the keys to drop: for each key, the last effect wins."""
    put: dict[tuple[str, str, str], Record] = {}
    drop: dict[tuple[str, str, str], None] = {}
    for effect in batch:
        if isinstance(effect, effects.Persist):
            for record in effect.put:
                put[record.key] = record
                drop.pop(record.key, None)
            for key in effect.drop:
                put.pop(key, None)
                drop[key] = None
    return tuple(put.values()), tuple(drop)


async def commit(store: Store, epoch: int, batch: Iterable[Effect]) -> None:
    """Commit all records of a batch of effects at once; do nothing if there are none.

    Raises:
        StoreError: the store failed, or did not confirm in time.
        RuntimeError: the store has a bug.
    """
    put, drop = merge(batch)
    if not put and not drop:
        return
    try:
        await call_within(COMMIT_SECONDS, lambda: store.commit(epoch, put, drop))
    except DeadlineExceeded:
        raise StoreError(
            f"{type(store).__name__} did not confirm a commit within {COMMIT_SECONDS:g}s; "
            "check whether its disk or its server hangs"
        ) from None
    except CancelledInside as error:
        raise RuntimeError(
            "a commit was cancelled from inside because of a bug in its store "
            f"{type(store).__name__}"
        ) from error
