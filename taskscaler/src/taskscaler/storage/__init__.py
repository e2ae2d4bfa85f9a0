"""What must survive a restart: the contract of a store, and the stores."""

from __future__ import annotations

from taskscaler.storage.abc import Entry, Loaded, Picture, Remembered, Store, TaskEntry
from taskscaler.storage.memory import MemoryStore

__all__ = ("Entry", "Loaded", "MemoryStore", "Picture", "Remembered", "Store", "TaskEntry")
