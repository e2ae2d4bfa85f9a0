"""Opening a state file, for its one writer and for readers, and explaining SQLite's errors."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from taskscaler._errors import StoreError
from taskscaler.storage._files import owner_note, sibling
from taskscaler.storage._schema import check_version, has_tables, migrate, scalar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path
    from typing import Any, TypeVar

    from taskscaler.storage._batches import BatchRequest
    from taskscaler.storage._sealing import Sealer

    T = TypeVar("T")

__all__ = ("Database", "check", "read", "writing")

# How long a writer waits for another program that has the file in a transaction of its own.
BUSY_SECONDS = 5.0
# A burst of records makes the write-ahead log long; it is truncated to this length afterwards.
LOG_BYTES = 4 << 20
# So many pages at a time are returned to the system, if more than one in `VACUUM_SHARE` is empty.
VACUUM_PAGES = 256
VACUUM_SHARE = 4

# Promises SQLite that no process writes to the file.
IMMUTABLE = "immutable=1"

# The cause and the remedy for each primary result code of SQLite.
EXPLANATIONS = {
    sqlite3.SQLITE_NOTADB: (
        "it is not a state file (not an SQLite database); choose another file, or move this one "
        "away"
    ),
    sqlite3.SQLITE_CORRUPT: (
        "it is damaged; restore it from a copy, or move it away together with its -wal and -shm, "
        "start with an empty state, and look in the cloud for instances that are left"
    ),
    sqlite3.SQLITE_FULL: "the disk is full; free some space and start again",
    sqlite3.SQLITE_READONLY: "it is read-only for this user; change its owner or mode",
    sqlite3.SQLITE_PERM: "permission is denied; change its owner or mode",
    sqlite3.SQLITE_AUTH: "permission is denied; change its owner or mode",
    sqlite3.SQLITE_CANTOPEN: (
        "it, its -wal or its -shm cannot be opened; change the owner or mode of these files and "
        "of their directory"
    ),
    sqlite3.SQLITE_BUSY: "another program is writing to it; end its transaction",
    sqlite3.SQLITE_LOCKED: "another program is writing to it; end its transaction",
    sqlite3.SQLITE_IOERR: "the disk fails, or the size of files is limited; check the disk",
}


# The user of this process may not have the right to use the file.
_REFUSED = (
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_CANTOPEN,
)


class Database:
    """A state file opened for writing, used by one thread.

    Attributes:
        path: the file.
        connection: in a transaction while the work of a request runs.
        sealer: for secrets.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, sealer: Sealer) -> None:
        self.path = path
        self.connection = connection
        self.sealer = sealer
        self._is_durable = True

    def run(self, batch: Sequence[BatchRequest[Any]]) -> None:
        """Run a batch of requests in one transaction.

        Work that raises anything but an error of SQLite must have changed nothing. An
        error of SQLite rolls the batch back, and becomes the error of each request.
        """
        try:
            self._flush(durable=any(request.durable for request in batch))
            self.connection.execute("BEGIN IMMEDIATE")
            for request in batch:
                self._do(request)
            self.connection.execute("COMMIT")
        except sqlite3.Error as error:
            # SQLite may have rolled back by itself already.
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            for request in batch:
                request.error = explain(error, self.path, "written")
        else:
            self._shrink()

    def _do(self, request: BatchRequest[Any]) -> None:
        try:
            request.result = request.work(self)
        except sqlite3.Error:
            raise
        except Exception as error:  # noqa: BLE001 - it is raised where the request was made
            request.error = error

    def _flush(self, *, durable: bool) -> None:
        """Set whether the next transaction is flushed to the disk before it ends."""
        if durable is not self._is_durable:
            self.connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._is_durable = durable

    def _shrink(self) -> None:
        """Return empty pages to the system. The file is as valid if that fails."""
        try:
            empty = scalar(self.connection, "PRAGMA freelist_count")
            if empty > VACUUM_PAGES and empty * VACUUM_SHARE > scalar(
                self.connection, "PRAGMA page_count"
            ):
                # Each step of this statement returns one page; `execute` would stop after one.
                self.connection.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")
        except sqlite3.Error:
            pass


@contextmanager
def writing(path: Path) -> Generator[sqlite3.Connection]:
    """Open a file for writing, and upgrade its tables to this version.

    Raises:
        StoreError: it cannot be opened or used; the message says what to do.
    """
    try:
        connection = sqlite3.connect(
            uri(path, "mode=rw"), uri=True, isolation_level=None, timeout=BUSY_SECONDS
        )
    except sqlite3.Error as error:
        raise explain(error, path, "opened") from None
    with closing(connection):
        try:
            _prepare(connection, path)
        except sqlite3.Error as error:
            raise explain(error, path, "opened") from None
        yield connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    check_version(connection, path)
    # This has an effect only before the log and the first table exist.
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StoreError(
            f"SQLite cannot keep a write-ahead log next to the state file {path}, which may be on "
            "a network file system; put it on a local disk"
        )
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA fullfsync = ON")  # on macOS, fsync does not flush
    connection.execute("PRAGMA checkpoint_fullfsync = ON")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
    migrate(connection, path)
    # SQLite opens a write-protected file without an error, and fails at the first write.
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("ROLLBACK")


def check(path: Path) -> None:
    """Check that a file is a state file, or does not exist yet, without writing anything.

    Raises:
        StoreError: it is another file, or cannot be read; the message says what to do.
    """
    if path.exists():
        _look(path, lambda connection: check_version(connection, path))


def read(path: Path, query: Callable[[sqlite3.Connection], T]) -> T | None:
    """Read a file without writing anything, whether it is in use or not.

    Returns:
        The result of the query; None if the file is still empty.

    Raises:
        StoreError: it cannot be read; the message says what to do.
    """
    return _look(
        path, lambda connection: query(connection) if has_tables(connection, path) else None
    )


def _look(path: Path, query: Callable[[sqlite3.Connection], T]) -> T:
    """Return the result of a query that only reads.

    Raises:
        StoreError: the file cannot be read; the message says what to do.
    """
    failure = StoreError(f"there is no state file {path}; check the path")
    try:
        if not path.is_file():
            raise failure
        for options in _ways(path):
            try:
                return _read_once(path, options, query)
            except sqlite3.Error as error:
                failure = explain(error, path, "read")
    except OSError as error:
        raise StoreError(
            f"the state file {path} cannot be read ({error.strerror}{owner_note(path)}); ask its "
            "owner for access"
        ) from None
    raise failure


def _ways(path: Path) -> Generator[str]:
    """Yield the options for opening a file for reading, to be tried in this order.

    A log exists while a scaler runs, and after it was killed. Without one, no process
    writes to the file, and reading it as immutable creates no other files next to it.
    """
    if not _has_log(path):
        yield IMMUTABLE
    yield "readonly_shm=1"
    if not _has_log(path):
        yield IMMUTABLE  # its scaler has just ended
    yield "mode=ro"  # a log that was copied without its index


def _read_once(path: Path, options: str, query: Callable[[sqlite3.Connection], T]) -> T:
    with closing(
        sqlite3.connect(
            uri(path, f"mode=ro&{options}"), uri=True, isolation_level=None, timeout=BUSY_SECONDS
        )
    ) as connection:
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("BEGIN")
        result = query(connection)
    if options == IMMUTABLE and _has_log(path):
        raise sqlite3.OperationalError("a scaler opened it at the same time; try again")
    return result


def _has_log(path: Path) -> bool:
    return sibling(path, "-wal").exists()


def uri(path: Path, options: str) -> str:
    """Return the URI of a file for SQLite."""
    return f"{path.absolute().as_uri()}?{options}"


def explain(error: sqlite3.Error, path: Path, doing: str) -> StoreError:
    """Return an error of SQLite with its cause and its remedy."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    why = EXPLANATIONS.get(code, f"SQLite reports: {error}")
    if code in _REFUSED:
        why += owner_note(path)
    return StoreError(f"the state file {path} cannot be {doing}: {why}")
