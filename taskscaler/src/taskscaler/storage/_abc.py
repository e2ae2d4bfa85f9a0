"""The contract of a store.

A store keeps the newest record of each key. The scaler that loads it becomes its
holder and gets an epoch, larger than every earlier one. A commit under an older epoch
is refused, so two scalers can never both act on one store, however late the first
one notices that it was replaced.

For operators who ask why, a store also keeps a history, limited to the newest
entries, and a picture of how things stand. Anyone may read these at any time.
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
    """The history of one task that has ended: enough to replay it.

    Attributes:
        key: the task's.
        asked_at: when it asked for a slot; None if it held one when an earlier process ended
            without a trace, such as by `kill -9`.
        granted_at: when it got one; None if it never did, or as above.
        ended_at: when it gave the slot back, lost it, or stopped waiting; the time of the
            restart, if `asked_at` is None.
        group: the id of the group of its instance; empty without a slot.
        instance: the id of its instance; likewise.
        outcome: `released`, `lost`, `suspended`, `cancelled`, `timed out` or `refused`.
        reason: human-readable; empty if the task ended normally.
    """

    key: str
    asked_at: datetime | None
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
        at: the moment.
        standing: the numbers.
        waiting: the key of each waiting task, with the time at which it asked, in the
            order of the queue; cut off if there are too many.
        held: the key of each task with a slot, with its group and its instance; likewise.
    """

    at: datetime
    standing: Standing
    waiting: tuple[tuple[str, datetime], ...] = ()
    held: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Loaded:
    """The result of `Store.load`.

    Attributes:
        epoch: the holder's; every commit names it.
        records: the newest of each key, in any order.
    """

    epoch: int
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Remembered:
    """The history of a scaler that runs or has run.

    Attributes:
        picture: the newest; None if there is none yet.
        decisions: the newest, in the order in which they were made.
        tasks: the newest that have ended, in the order in which they did.
    """

    picture: Picture | None
    decisions: tuple[Decision, ...]
    tasks: tuple[TaskEntry, ...]


class Store(ABC):
    """Keeps records across restarts; used by one scaler at a time."""

    @abstractmethod
    async def load(self) -> Loaded:
        """Become the holder and read everything.

        Each call makes the caller the holder and fences the previous one. When
        cancelled, the caller may or may not have become the holder.

        Raises:
            StoreLocked: another scaler that is alive holds it.
            StoreError: the store cannot be read, naming it and the cause.
        """

    @abstractmethod
    async def commit(
        self, epoch: int, put: Sequence[Record], drop: Sequence[tuple[str, str, str]]
    ) -> None:
        """Write and delete records in one transaction.

        When this returns, the change survives a crash of the process or the machine.
        Idempotent. When cancelled, either all of it or nothing is written.

        Args:
            epoch: from `load`.
            put: records, each replacing the one with its key.
            drop: keys of records to delete; unknown ones are ignored.

        Raises:
            Fenced: there is a newer holder. Nothing was written, and never will be
                under this epoch.
            StoreError: the store cannot be written, naming it and the cause.
        """

    @abstractmethod
    async def note(
        self, epoch: int, entries: Sequence[Entry], picture: Picture | None = None
    ) -> None:
        """Append to the history and replace the picture; delete the oldest entries.

        Cheaper than `commit`: the newest entries may be lost if the machine loses power.

        Args:
            epoch: from `load`.
            entries: in the order in which they happened.
            picture: None leaves it as it is.

        Raises:
            Fenced: there is a newer holder; nothing was written.
            StoreError: the store cannot be written, naming it and the cause.
        """

    @abstractmethod
    async def recall(self) -> Remembered:
        """Read the history and the picture without becoming the holder.

        Raises:
            StoreError: the store cannot be read, naming it and the cause.
        """
