"""A store in memory: for ad-hoc runs and for tests."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from typing_extensions import override

from taskscaler._errors import Fenced
from taskscaler.storage._abc import Loaded, Remembered, Store, TaskEntry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskscaler.core import Decision, Record
    from taskscaler.storage._abc import Entry, Picture

__all__ = ("MemoryStore",)

# How many decisions and how many tasks the history keeps.
HISTORY = 1000


class MemoryStore(Store):
    """Keeps records in memory, until its process ends.

    Attributes:
        records: the newest of each key.
    """

    def __init__(self) -> None:
        self.records: dict[tuple[str, str, str], Record] = {}
        self._epoch = 0
        self._picture: Picture | None = None
        self._decisions: deque[Decision] = deque(maxlen=HISTORY)
        self._tasks: deque[TaskEntry] = deque(maxlen=HISTORY)

    @override
    async def load(self) -> Loaded:
        self._epoch += 1
        return Loaded(self._epoch, tuple(self.records.values()))

    @override
    async def commit(
        self, epoch: int, put: Sequence[Record], drop: Sequence[tuple[str, str, str]]
    ) -> None:
        self._check(epoch)
        for record in put:
            self.records[record.key] = record
        for key in drop:
            self.records.pop(key, None)

    @override
    async def note(
        self, epoch: int, entries: Sequence[Entry], picture: Picture | None = None
    ) -> None:
        self._check(epoch)
        for entry in entries:
            if isinstance(entry, TaskEntry):
                self._tasks.append(entry)
            else:
                self._decisions.append(entry)
        self._picture = picture or self._picture

    @override
    async def recall(self) -> Remembered:
        return Remembered(self._picture, tuple(self._decisions), tuple(self._tasks))

    def _check(self, epoch: int) -> None:
        if epoch != self._epoch:
            raise Fenced(
                f"another scaler took over this store (epoch {self._epoch}, ours is {epoch}); "
                "this one must stop"
            )
