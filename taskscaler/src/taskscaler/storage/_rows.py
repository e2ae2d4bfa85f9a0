"""Records and entries of the history as rows of a state file, and back.

Rows hold JSON, which is readable in a database shell. A record with secrets is sealed.
Unknown fields of a newer version are ignored, and fields that an older version did not
know have their defaults.
"""

from __future__ import annotations

import logging
import shlex
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from taskscaler._errors import StoreError
from taskscaler.core import ConnectRecord, Record
from taskscaler.storage._sealing import Unsealable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from taskscaler.storage._sealing import Sealer

__all__ = ("Row", "checked_keys", "decode_entries", "decode_record", "encode", "row_of", "unseal")

logger = logging.getLogger("taskscaler")

# Kind, id of the group, id, body.
Row = tuple[str, str, str, str]
T = TypeVar("T")

SEALED = "connect"


def _plain(value: object) -> object:
    # msgspec encodes a `timedelta`, but not `fleeting.Duration`, its subclass.
    if isinstance(value, timedelta):
        return timedelta(days=value.days, seconds=value.seconds, microseconds=value.microseconds)
    raise NotImplementedError(f"a {type(value).__name__} cannot be written to a state file")


_encoder = msgspec.json.Encoder(enc_hook=_plain)
_records: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Record)
_connect = msgspec.json.Decoder(ConnectRecord)


def encode(value: object, path: Path) -> str:
    """Return an entry of the history as text.

    Raises:
        StoreError: it holds text that is not valid Unicode.
    """
    try:
        return _encoder.encode(value).decode()
    except UnicodeEncodeError:
        raise _not_unicode(path) from None


def row_of(record: Record, sealer: Sealer, path: Path) -> Row:
    """Return a record as a row.

    Raises:
        StoreError: it holds text that is not valid Unicode, or no key to seal it with
            can be written.
    """
    body = encode(record, path)
    if isinstance(record, ConnectRecord):
        body = sealer.seal(body.encode(), _binding(record.key))
    return (*record.key, body)


def checked_keys(
    keys: Sequence[tuple[str, str, str]], path: Path
) -> Sequence[tuple[str, str, str]]:
    """Return keys after checking that a database can look for them.

    Raises:
        StoreError: one holds text that is not valid Unicode.
    """
    encode(keys, path)
    return keys


def decode_record(row: Row, path: Path) -> Record:
    """Return the record of a row that is not sealed.

    Raises:
        StoreError: this version cannot read it.
    """
    kind, group, id, body = row
    try:
        record: Record = _records.decode(body)
    except msgspec.MsgspecError as error:
        raise _unreadable(row, path, str(error)) from None
    if record.key != (kind, group, id):
        raise _unreadable(row, path, f"it holds {record.key!r}")
    return record


def unseal(rows: Iterable[Row], sealer: Sealer) -> Iterator[ConnectRecord | tuple[str, str, str]]:
    """Yield for each sealed row its record, or its key if it cannot be unsealed."""
    for *key, body in rows:
        binding = (key[0], key[1], key[2])
        try:
            yield _connect.decode(sealer.unseal(body, _binding(binding)))
        except (Unsealable, msgspec.MsgspecError):
            yield binding


def decode_entries(bodies: Iterable[tuple[str]], kind: type[T], path: Path) -> tuple[T, ...]:
    """Return the entries that this version can read. Nothing depends on the others."""
    decoder = msgspec.json.Decoder(kind)
    entries: list[T] = []
    unreadable = 0
    for (body,) in bodies:
        try:
            entries.append(decoder.decode(body))
        except msgspec.MsgspecError:
            unreadable += 1
    if unreadable:
        logger.warning(
            "%d entries of the history in %s are of another version and were skipped",
            unreadable,
            path,
        )
    return tuple(entries)


def _binding(key: tuple[str, str, str]) -> bytes:
    return _encoder.encode(key)


def _not_unicode(path: Path) -> StoreError:
    return StoreError(
        f"a record for the state file {path} holds text that is not valid Unicode; look for "
        "lone surrogates in the keys of tasks and the names of jobs"
    )


def _unreadable(row: Row, path: Path, why: str) -> StoreError:
    kind, group, id, _ = row
    where = " AND ".join(
        f"{column} = '{_quoted(value)}'"
        for column, value in (("kind", kind), ("group_id", group), ("id", id))
    )
    delete = f"DELETE FROM records WHERE {where}"  # noqa: S608 - shown to the operator, not run
    return StoreError(
        f"the state file {path} holds a record that cannot be read, {kind} {id!r} of {group!r} "
        f"({why}); use the version that wrote it, or delete it with "
        f'`sqlite3 {shlex.quote(str(path))} "{delete}"`'
    )


def _quoted(value: str) -> str:
    return value.replace("'", "''")
