"""A state file as its writer and its readers open it, and what can be wrong with one."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from taskscaler._errors import StoreError
from taskscaler.storage._files import beside
from taskscaler.storage._schema import check_version, has_tables, migrate, scalar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path
    from typing import Any, TypeVar

    from taskscaler.storage._sealing import Sealer
    from taskscaler.storage._writer import Request

    T = TypeVar("T")

__all__ = ("Database", "read", "writing")

# How long a writer waits for another program that has the file in a transaction of its own.
BUSY_SECONDS = 5.0
# A burst of records makes the log of the database long once; it need not stay so.
LOG_BYTES = 4 << 20
# This many pages at a time are given back to the system, once this share of them is empty.
VACUUM_PAGES = 256
VACUUM_SHARE = 4

# Promises SQLite that nobody writes.
IMMUTABLE = "immutable=1"

# What the result codes of SQLite mean to the one who has to mend it, by the primary code.
MENDING = {
    sqlite3.SQLITE_NOTADB: "it is no SQLite database; name another file, or move this one away",
    sqlite3.SQLITE_CORRUPT: (
        "it is damaged; restore it from a copy, or move it away together with its -wal and -shm, "
        "begin anew, and look in the cloud for instances that are left"
    ),
    sqlite3.SQLITE_FULL: "the disk is full; free some space and start again",
    sqlite3.SQLITE_READONLY: "it is read-only for this user; change its owner or mode",
    sqlite3.SQLITE_PERM: "this user may not; change its owner or mode",
    sqlite3.SQLITE_AUTH: "this user may not; change its owner or mode",
    sqlite3.SQLITE_CANTOPEN: (
        "it, or what is needed beside it, cannot be opened; change owner or mode of the file, its "
        "-wal, its -shm and their directory"
    ),
    sqlite3.SQLITE_BUSY: "another program is writing to it; end its transaction",
    sqlite3.SQLITE_LOCKED: "another program is writing to it; end its transaction",
    sqlite3.SQLITE_IOERR: "the disk fails, or there is a limit to the size of files; look there",
}


class Database:
    """The file as its one writer has it, in one thread.

    Attributes:
        path: the file.
        connection: in a transaction while the work of a request runs, which may use it.
        sealer: for secrets.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, sealer: Sealer) -> None:
        self.path = path
        self.connection = connection
        self.sealer = sealer
        self._is_durable = True

    def run(self, batch: Sequence[Request[Any]]) -> None:
        """Do everything that waits in one transaction.

        Work that raises anything but an error of SQLite must have changed nothing. An
        error of SQLite undoes the batch, and each request gets it.
        """
        try:
            self._flush(durable=any(request.durable for request in batch))
            self.connection.execute("BEGIN IMMEDIATE")
            for request in batch:
                self._do(request)
            self.connection.execute("COMMIT")
        except sqlite3.Error as error:
            # SQLite may have rolled back by itself, and then there is nothing left to do.
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            for request in batch:
                request.error = explained(error, self.path, "written")
        else:
            self._give_back()

    def _do(self, request: Request[Any]) -> None:
        try:
            request.result = request.work(self)
        except sqlite3.Error:
            raise
        except Exception as error:  # noqa: BLE001 - it is the caller's, who waits for it
            request.error = error

    def _flush(self, *, durable: bool) -> None:
        """Choose whether a transaction reaches the disk before it is done, or some time later."""
        if durable is not self._is_durable:
            self.connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._is_durable = durable

    def _give_back(self) -> None:
        """Shorten the file if much of it is empty; it is as valid if that fails."""
        try:
            empty = scalar(self.connection, "PRAGMA freelist_count")
            if empty > VACUUM_PAGES and empty * VACUUM_SHARE > scalar(
                self.connection, "PRAGMA page_count"
            ):
                # Each step of this statement gives one page back, and only a script takes all.
                self.connection.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")
        except sqlite3.Error:
            pass


@contextmanager
def writing(path: Path) -> Generator[sqlite3.Connection]:
    """Open a file to write to it; its tables are of today's version then.

    Raises:
        StoreError: it cannot be opened or used, naming it and what to do.
    """
    try:
        connection = sqlite3.connect(
            uri(path, "mode=rw"), uri=True, isolation_level=None, timeout=BUSY_SECONDS
        )
    except sqlite3.Error as error:
        raise explained(error, path, "opened") from None
    with closing(connection):
        try:
            _prepare(connection, path)
        except sqlite3.Error as error:
            raise explained(error, path, "opened") from None
        yield connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    check_version(connection, path)
    # Before the log and the first table; nothing changes it later.
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StoreError(
            f"the state file {path} is where SQLite cannot keep a write-ahead log, perhaps on a "
            "network file system; put it on a local disk"
        )
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA fullfsync = ON")  # macOS calls a flush what is none
    connection.execute("PRAGMA checkpoint_fullfsync = ON")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
    migrate(connection, path)
    # SQLite opens what it may not write to for reading, and says so at the first write.
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("ROLLBACK")


def read(path: Path, query: Callable[[sqlite3.Connection], T]) -> T | None:
    """Read a file as anybody may at any time, writing nothing; None if it is still empty.

    Raises:
        StoreError: it cannot be read, naming it and what to do.
    """
    failure = StoreError(f"there is no state file {path}; name the one that a scaler was given")
    try:
        if not path.is_file():
            raise failure
        for options in _ways(path):
            try:
                return _read_once(path, options, query)
            except sqlite3.Error as error:
                failure = explained(error, path, "read")
    except OSError as error:
        raise StoreError(
            f"the state file {path} cannot be read ({error.strerror}); ask its owner"
        ) from None
    raise failure


def _ways(path: Path) -> Generator[str]:
    """Yield the ways to open a file for reading, the next one if one fails.

    The log is there while a scaler runs, and after it was killed. Without one nobody
    writes, the file is all there is, and nothing is made beside it to read it.
    """
    if not _has_log(path):
        yield IMMUTABLE
    yield "readonly_shm=1"
    if not _has_log(path):
        yield IMMUTABLE  # its scaler ended meanwhile
    yield "mode=ro"  # a log that came here without its index


def _read_once(path: Path, options: str, query: Callable[[sqlite3.Connection], T]) -> T | None:
    with closing(
        sqlite3.connect(
            uri(path, f"mode=ro&{options}"), uri=True, isolation_level=None, timeout=BUSY_SECONDS
        )
    ) as connection:
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("BEGIN")
        result = query(connection) if has_tables(connection, path) else None
    if options == IMMUTABLE and _has_log(path):
        raise sqlite3.OperationalError("a scaler opened it meanwhile; try again")
    return result


def _has_log(path: Path) -> bool:
    return beside(path, "-wal").exists()


def uri(path: Path, options: str) -> str:
    """Return the address of a file as SQLite wants it."""
    return f"{path.absolute().as_uri()}?{options}"


def explained(error: sqlite3.Error, path: Path, doing: str) -> StoreError:
    """Return an error of SQLite for the one who has to mend it."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    why = MENDING.get(code, f"SQLite says: {error}")
    return StoreError(f"the state file {path} cannot be {doing}: {why}")
