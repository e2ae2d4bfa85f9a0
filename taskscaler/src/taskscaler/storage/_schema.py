"""The tables of a state file, and the migrations of older files.

To change the tables, add a function at the end of `MIGRATIONS`; never change one that
was released. The version of a file is the number of migrations that it went through.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskscaler._errors import StoreError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = ("MIGRATIONS", "check_version", "has_tables", "migrate", "scalar")

# Tells a state file from the databases of other programs: "task" in ASCII.
APPLICATION = 0x7461736B


def _first(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE holder (epoch INTEGER NOT NULL)")
    connection.execute("INSERT INTO holder VALUES (0)")
    connection.execute(
        "CREATE TABLE records (kind TEXT NOT NULL, group_id TEXT NOT NULL, id TEXT NOT NULL, "
        "body TEXT NOT NULL, PRIMARY KEY (kind, group_id, id)) WITHOUT ROWID"
    )
    connection.execute("CREATE TABLE decisions (number INTEGER PRIMARY KEY, body TEXT NOT NULL)")
    connection.execute("CREATE TABLE tasks (number INTEGER PRIMARY KEY, body TEXT NOT NULL)")
    connection.execute("CREATE TABLE picture (number INTEGER PRIMARY KEY, body TEXT NOT NULL)")


MIGRATIONS: Sequence[Callable[[sqlite3.Connection], None]] = (_first,)


def check_version(connection: sqlite3.Connection, path: Path) -> int:
    """Return the version of a file; 0 if it is empty.

    Raises:
        StoreError: the file is of a newer version, or another program's.
    """
    version = scalar(connection, "PRAGMA user_version")
    ours = scalar(connection, "PRAGMA application_id") == APPLICATION
    if not ours and (version or scalar(connection, "SELECT count(*) FROM sqlite_master")):
        raise StoreError(f"{path} is the database of another program; choose another file")
    if version > len(MIGRATIONS):
        raise StoreError(
            f"the state file {path} is of version {version}, written by a newer taskscaler; this "
            f"one supports up to version {len(MIGRATIONS)}; use the newer one, or another file"
        )
    return version


def has_tables(connection: sqlite3.Connection, path: Path) -> bool:
    """Return whether a file has the tables of this version; False if it is still empty.

    Raises:
        StoreError: the file is of an older or newer version, or another program's.
    """
    version = check_version(connection, path)
    if 0 < version < len(MIGRATIONS):
        raise StoreError(
            f"the state file {path} is of an older version; start its scaler once to upgrade it"
        )
    return bool(version)


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Upgrade the tables to the newest version in one transaction.

    Raises:
        StoreError: the file is of a newer version, or another program's.
    """
    if check_version(connection, path) == len(MIGRATIONS):
        return
    connection.execute("BEGIN EXCLUSIVE")
    try:
        for migration in MIGRATIONS[check_version(connection, path) :]:
            migration(connection)
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        # SQLite may have rolled back by itself already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def scalar(connection: sqlite3.Connection, query: str) -> int:
    """Return the one number that a query returns."""
    (number,) = connection.execute(query).fetchone()
    return int(number)
