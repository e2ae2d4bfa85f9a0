"""Stores keep what must survive a restart: their contract, in memory, and in an SQLite file."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from taskscaler.core import JobRecord, Record
from taskscaler.storage._abc import Entry, Loaded, Picture, Remembered, Store, TaskEntry
from taskscaler.storage._memory import MemoryStore

if TYPE_CHECKING:
    from taskscaler.storage._sqlite import SqliteStore, read_records, recall

__all__ = (
    "Entry",
    "JobRecord",
    "Loaded",
    "MemoryStore",
    "Picture",
    "Record",
    "Remembered",
    "SqliteStore",
    "Store",
    "TaskEntry",
    "read_records",
    "recall",
)


def __getattr__(name: str) -> Any:
    """Import the SQLite store only when it is used: it needs SQLite and a cipher."""
    if name not in {"SqliteStore", "read_records", "recall"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("taskscaler.storage._sqlite"), name)
