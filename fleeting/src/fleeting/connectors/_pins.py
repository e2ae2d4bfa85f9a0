"""Pins host keys: remembers the key that a host showed first, and requires it from then on."""

from __future__ import annotations

from collections import OrderedDict


class Pins:
    """The pinned keys of hosts whose keys the provider does not know.

    A process that runs for years connects to more hosts than it can remember, so the
    least recently used pin is dropped first.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._keys: OrderedDict[tuple[str, int, str], str] = OrderedDict()

    def find(self, address: str, port: int, id: str) -> str | None:
        """Return the key that the host must show; None if any key is accepted."""
        key = self._keys.get((address, port, id))
        if key is not None:
            self._keys.move_to_end((address, port, id))
        return key

    def keep(self, address: str, port: int, id: str, shown: str) -> bool:
        """Pin the key of a complete login; return False if another key is already pinned."""
        kept = self._keys.setdefault((address, port, id), shown)
        if len(self._keys) > self._most:
            self._keys.popitem(last=False)
        return kept == shown
