"""What must survive a restart: the contract of a store, and the stores."""

from __future__ import annotations

from taskscaler.storage.abc import Loaded, Store
from taskscaler.storage.memory import MemoryStore

__all__ = ("Loaded", "MemoryStore", "Store")
