"""A store in an SQLite file, which survives the process and the machine.

Theory of operation
-------------------
One scaler at a time writes to the file. It holds a lock on a file next to it while it is
open. The system releases the lock of a process that dies, so a second scaler is refused
at once, but the next one after a crash is not. The lock only makes the refusal early. The
guarantee is the epoch in the file, which is compared in the same transaction that writes.

The writer is a thread (`_batches`) that owns the connection and puts all requests that
wait into one transaction. Records are on the disk before a commit returns. Entries of the
history are in the file, and reach the disk with the next record or some time later.

Readers (`recall`, `read_records`) have their own connections, even in the scaler's
process. They write nothing, and see the newest complete transaction.

Secrets are sealed (`_sealing`). One that cannot be unsealed is deleted with a warning: the
provider can be asked again, and the loss of a key must not mean the loss of a fleet.
"""

from __future__ import annotations

import logging
import os
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread
from typing_extensions import override

from taskscaler._errors import Fenced, StoreError
from taskscaler.core import ConnectRecord, Decision
from taskscaler.storage import _files
from taskscaler.storage._abc import Loaded, Picture, Remembered, Store, TaskEntry
from taskscaler.storage._batches import BatchThread
from taskscaler.storage._database import Database, check, read, writing
from taskscaler.storage._rows import (
    SEALED,
    checked_keys,
    decode_entries,
    decode_record,
    encode,
    row_of,
    unseal,
)
from taskscaler.storage._schema import scalar
from taskscaler.storage._sealing import Sealer

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncGenerator, Generator, Sequence
    from typing import Self

    from taskscaler.core import Record
    from taskscaler.storage._abc import Entry
    from taskscaler.storage._rows import Row

__all__ = ("SqliteStore", "check_state_file", "read_records", "recall")

logger = logging.getLogger("taskscaler")

# How many decisions and how many ended tasks the history keeps.
DECISIONS = 10_000
TASKS = 100_000


class SqliteStore(Store):
    """Keeps records in one file, for one scaler at a time. Use `open` to get one.

    Attributes:
        path: the absolute path of the file, with symbolic links resolved.
    """

    def __init__(self, path: Path, thread: BatchThread[Database]) -> None:
        self.path = path
        self._thread = thread

    @classmethod
    @asynccontextmanager
    async def open(
        cls, path: str | os.PathLike[str], *, key_file: Path | None = None
    ) -> AsyncGenerator[Self]:
        """Open a file, or create it, and keep other scalers from using it.

        The file, the files next to it and missing directories are created private to
        this user. Leaving waits until all requests are written, even when cancelled, but
        for a minute at most: if the disk hangs, that is logged. Later requests raise
        `StoreError`.

        Args:
            path: the file, on a local disk.
            key_file: holds 32 bytes in Base64, to seal secrets with; private to this
                user. None for a key that the store creates, in the file of the same
                name with `.key` added.

        Raises:
            StoreLocked: another scaler that is alive has it open; the message says which.
            StoreError: the file or the key cannot be used; the message says what to do.
        """
        resolved = _resolved(path)
        thread = BatchThread(
            partial(_opened, resolved, key_file),
            name=f"store {resolved.name}",
            closed=lambda: StoreError(f"the state file {resolved} is closed"),
        )
        async with thread:
            yield cls(resolved, thread)

    @override
    async def load(self) -> Loaded:
        return await self._thread.run(_load, durable=True)

    @override
    async def commit(
        self, epoch: int, put: Sequence[Record], drop: Sequence[tuple[str, str, str]]
    ) -> None:
        await self._thread.run(partial(_commit, epoch, put, drop), durable=True)

    @override
    async def note(
        self, epoch: int, entries: Sequence[Entry], picture: Picture | None = None
    ) -> None:
        await self._thread.run(partial(_note, epoch, entries, picture), durable=False)

    @override
    async def recall(self) -> Remembered:
        return await anyio.to_thread.run_sync(recall, self.path)


def check_state_file(path: str | os.PathLike[str]) -> None:
    """Check that a path names a state file, or nothing yet, without writing anything.

    Raises:
        StoreError: it is another kind of file, or cannot be read; the message says what to do.
    """
    file = _resolved(path)
    _files.check_kind(file)
    check(file)


def recall(path: str | os.PathLike[str]) -> Remembered:
    """Read the history of a scaler that runs or has run, without writing anything.

    Args:
        path: the state file, which may be in use.

    Raises:
        StoreError: it does not exist or cannot be read; the message says what to do.
    """
    file = _resolved(path)
    bodies = read(file, _read_history)
    if bodies is None:
        return Remembered(None, (), ())
    pictures, decisions, tasks = bodies
    return Remembered(
        next(iter(decode_entries(pictures, Picture, file)), None),
        decode_entries(decisions, Decision, file),
        decode_entries(tasks, TaskEntry, file),
    )


def read_records(path: str | os.PathLike[str]) -> tuple[Record, ...]:
    """Read all records except the sealed ones, without writing anything.

    Args:
        path: the state file, which may be in use.

    Raises:
        StoreError: it does not exist or cannot be read; the message says what to do.
    """
    file = _resolved(path)
    rows = read(file, _read_rows) or ()
    return tuple(decode_record(row, file) for row in rows if row[0] != SEALED)


def _resolved(path: str | os.PathLike[str]) -> Path:
    # The lock belongs to the file, not to one of its names.
    return Path(os.path.realpath(path))


@contextmanager
def _opened(path: Path, key_file: Path | None) -> Generator[Database]:
    _files.make_directory(path.parent)
    # Before locking, which would create a lock file next to a device or a directory.
    _files.check_kind(path)
    check(path)
    with _files.locked(path):
        _files.create_private(path)
        sealer = Sealer(path, key_file)
        with writing(path) as connection:
            yield Database(path, connection, sealer)


def _load(database: Database) -> Loaded:
    rows = _read_rows(database.connection)
    records: list[Record] = [decode_record(row, database.path) for row in rows if row[0] != SEALED]
    lost: list[tuple[str, str, str]] = []
    for found in unseal((row for row in rows if row[0] == SEALED), database.sealer):
        if isinstance(found, ConnectRecord):
            records.append(found)
        else:
            lost.append(found)
    if lost:
        _delete(database, lost)
        logger.warning(
            "the credentials of %d instances in %s cannot be unsealed with this key and were "
            "deleted; providers are asked for them again, and host keys are learned again",
            len(lost),
            database.path,
        )
    database.connection.execute("UPDATE holder SET epoch = epoch + 1")
    return Loaded(_epoch(database), tuple(records))


def _commit(
    epoch: int, put: Sequence[Record], drop: Sequence[tuple[str, str, str]], database: Database
) -> None:
    _check(epoch, database)
    rows = [row_of(record, database.sealer, database.path) for record in put]
    keys = checked_keys(drop, database.path)
    database.connection.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?)", rows)
    _delete(database, keys)


def _note(
    epoch: int, entries: Sequence[Entry], picture: Picture | None, database: Database
) -> None:
    _check(epoch, database)
    tasks = [(encode(e, database.path),) for e in entries if isinstance(e, TaskEntry)]
    decisions = [(encode(e, database.path),) for e in entries if isinstance(e, Decision)]
    body = encode(picture, database.path) if picture is not None else None
    _append(database, "tasks", tasks, TASKS)
    _append(database, "decisions", decisions, DECISIONS)
    if body is not None:
        database.connection.execute("INSERT OR REPLACE INTO picture VALUES (1, ?)", (body,))


def _append(database: Database, table: str, bodies: Sequence[tuple[str]], limit: int) -> None:
    if bodies:
        # The name of the table is a constant. Numbers grow by one, so the oldest are a range.
        run = database.connection
        run.executemany(f"INSERT INTO {table} (body) VALUES (?)", bodies)  # noqa: S608 - see above
        run.execute(
            f"DELETE FROM {table} WHERE number <= (SELECT max(number) FROM {table}) - ?",  # noqa: S608 - see above
            (limit,),
        )


def _delete(database: Database, keys: Sequence[tuple[str, str, str]]) -> None:
    database.connection.executemany(
        "DELETE FROM records WHERE kind = ? AND group_id = ? AND id = ?", keys
    )


def _check(epoch: int, database: Database) -> None:
    newest = _epoch(database)
    if epoch != newest:
        raise Fenced(
            f"another scaler took over the state file {database.path} (epoch {newest}, ours is "
            f"{epoch}); this one must stop"
        )


def _epoch(database: Database) -> int:
    return scalar(database.connection, "SELECT epoch FROM holder")


def _read_rows(connection: sqlite3.Connection) -> list[Row]:
    return connection.execute("SELECT kind, group_id, id, body FROM records").fetchall()


def _read_history(
    connection: sqlite3.Connection,
) -> tuple[list[tuple[str]], list[tuple[str]], list[tuple[str]]]:
    return (
        connection.execute("SELECT body FROM picture").fetchall(),
        connection.execute("SELECT body FROM decisions ORDER BY number").fetchall(),
        connection.execute("SELECT body FROM tasks ORDER BY number").fetchall(),
    )
