"""The contract of a store.

A store keeps the newest record of each key. Who loads it becomes its holder
and gets an epoch, larger than every earlier one; a commit under an older epoch
is refused, so that two scalers cannot both act on one store, however slowly the
first one notices that it has been replaced.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskscaler.core.records import Record

__all__ = ("Loaded", "Store")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a new holder gets.

    Attributes:
        epoch: to be named in every commit.
        records: the newest of each key, in any order.
    """

    epoch: int
    records: tuple[Record, ...]


class Store(ABC):
    """Keeps records over a restart; used by one scaler at a time."""

    @abstractmethod
    async def load(self) -> Loaded:
        """Become the holder and read everything.

        Each call makes the caller the holder and fences the one before. When
        cancelled, the caller may or may not have become the holder.

        Raises:
            StoreError: the store cannot be read, naming it and the cause.
        """

    @abstractmethod
    async def commit(
        self, epoch: int, put: Sequence[Record], drop: Sequence[tuple[str, str, str]]
    ) -> None:
        """Write and forget records, all or nothing, before returning.

        Idempotent. When cancelled, it may or may not have been done, but not by half.

        Args:
            epoch: from `load`.
            put: records, each replacing the one of its key.
            drop: keys to forget; unknown ones are ignored.

        Raises:
            Fenced: a newer holder exists; nothing was written, and nothing ever will be.
            StoreError: the store cannot be written, naming it and the cause.
        """
