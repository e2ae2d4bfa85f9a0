"""A store that lives as long as its process: for ad-hoc runs and for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from taskscaler.errors import Fenced
from taskscaler.storage.abc import Loaded, Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskscaler.core.records import Record

__all__ = ("MemoryStore",)


class MemoryStore(Store):
    """Keeps records in memory.

    Attributes:
        records: the newest of each key.
    """

    def __init__(self) -> None:
        self.records: dict[tuple[str, str, str], Record] = {}
        self._epoch = 0

    @override
    async def load(self) -> Loaded:
        self._epoch += 1
        return Loaded(self._epoch, tuple(self.records.values()))

    @override
    async def commit(
        self, epoch: int, put: Sequence[Record], drop: Sequence[tuple[str, str, str]]
    ) -> None:
        if epoch != self._epoch:
            raise Fenced(
                f"another scaler took this store over (epoch {self._epoch}, ours is {epoch}); "
                "this one must stop"
            )
        for record in put:
            self.records[record.key] = record
        for key in drop:
            self.records.pop(key, None)
