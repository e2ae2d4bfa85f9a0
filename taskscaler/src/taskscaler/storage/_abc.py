"""The contract of a store.

A store keeps the newest record of each key. Who loads it becomes its holder
and gets an epoch, larger than every earlier one; a commit under an older epoch
is refused, so that two scalers cannot both act on one store, however slowly the
first one notices that it has been replaced. Besides the records it keeps a
history, of the newest so many entries, and a picture of how things stand, for
people who ask why; anyone may read these at any time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from taskscaler.core import Decision, Standing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskscaler.core import Record

__all__ = ("Entry", "Loaded", "Picture", "Remembered", "Store", "TaskEntry")


class TaskEntry(msgspec.Struct, frozen=True, gc=False, tag="task"):
    """What became of one task: enough to replay it.

    Attributes:
        key: the task's.
        asked_at: when it asked for a slot.
        granted_at: when it got one; None if it never did.
        ended_at: when it gave the slot back, lost it, or stopped waiting.
        group: the id of the group of its instance; empty without a slot.
        instance: the id of its instance; the same.
        outcome: `released`, `lost`, `suspended`, `cancelled`, `timed out` or `refused`.
        reason: for people; empty for the ordinary.
    """

    key: str
    asked_at: datetime
    granted_at: datetime | None
    ended_at: datetime
    group: str = ""
    instance: str = ""
    outcome: str = "released"
    reason: str = ""


Entry = TaskEntry | Decision


class Picture(msgspec.Struct, frozen=True):
    """How things stood at one moment.

    Attributes:
        at: when.
        standing: in numbers.
        waiting: the keys of tasks that waited, with since when, the first to be served
            first; cut off where they are too many.
        held: the keys of tasks that held a slot, with group and instance; likewise.
    """

    at: datetime
    standing: Standing
    waiting: tuple[tuple[str, datetime], ...] = ()
    held: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a new holder gets.

    Attributes:
        epoch: to be named in every commit.
        records: the newest of each key, in any order.
    """

    epoch: int
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Remembered:
    """What anybody may know of a scaler that runs or has run.

    Attributes:
        picture: the newest; None if there is none yet.
        decisions: the newest, the oldest of them first.
        tasks: the newest that have ended, the oldest of them first.
    """

    picture: Picture | None
    decisions: tuple[Decision, ...]
    tasks: tuple[TaskEntry, ...]


class Store(ABC):
    """Keeps records over a restart; used by one scaler at a time."""

    @abstractmethod
    async def load(self) -> Loaded:
        """Become the holder and read everything.

        Each call makes the caller the holder and fences the one before. When
        cancelled, the caller may or may not have become the holder.

        Raises:
            StoreLocked: another scaler that is alive holds it.
            StoreError: the store cannot be read, naming it and the cause.
        """

    @abstractmethod
    async def commit(
        self, epoch: int, put: Sequence[Record], drop: Sequence[tuple[str, str, str]]
    ) -> None:
        """Write and forget records, all or nothing, before returning.

        They are then there whatever happens to the process or to its machine.
        Idempotent. When cancelled, it may or may not have been done, but not by half.

        Args:
            epoch: from `load`.
            put: records, each replacing the one of its key.
            drop: keys to forget; unknown ones are ignored.

        Raises:
            Fenced: a newer holder exists; nothing was written, and nothing ever will be.
            StoreError: the store cannot be written, naming it and the cause.
        """

    @abstractmethod
    async def note(
        self, epoch: int, entries: Sequence[Entry], picture: Picture | None = None
    ) -> None:
        """Add to the history and replace the picture; what is too old is forgotten.

        Cheaper than `commit`: the newest notes may be lost if the machine loses power.

        Args:
            epoch: from `load`.
            entries: in the order in which they happened.
            picture: None leaves it as it is.

        Raises:
            Fenced: a newer holder exists; nothing was written.
            StoreError: the store cannot be written, naming it and the cause.
        """

    @abstractmethod
    async def recall(self) -> Remembered:
        """Read history and picture without becoming the holder.

        Raises:
            StoreError: the store cannot be read, naming it and the cause.
        """
