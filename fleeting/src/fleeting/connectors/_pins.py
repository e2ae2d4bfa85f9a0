"""Remembers which key a host showed first, so that it must show the same ever after."""

from __future__ import annotations

from collections import OrderedDict


class Pins:
    """The keys of hosts whose keys nobody else knows.

    A process that runs for years meets more hosts than it should remember, so
    the one that was connected to the longest ago is forgotten first.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._keys: OrderedDict[tuple[str, int, str], str] = OrderedDict()

    def find(self, address: str, port: int, id: str) -> str | None:
        """Return the key that the host must show; None if any will do."""
        key = self._keys.get((address, port, id))
        if key is not None:
            self._keys.move_to_end((address, port, id))
        return key

    def keep(self, address: str, port: int, id: str, shown: str) -> bool:
        """Remember the key of a complete login; return whether it is the one that was known."""
        kept = self._keys.setdefault((address, port, id), shown)
        if len(self._keys) > self._most:
            self._keys.popitem(last=False)
        return kept == shown
