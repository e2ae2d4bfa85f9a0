"""Pins host keys: remembers the key that a host showed first, and requires it from then on."""

from __future__ import annotations

from collections import OrderedDict

# The address, the port, the id and the incarnation of an instance.
Identity = tuple[str, int, str, str]


class Pins:
    """The pinned keys of hosts whose keys the provider does not know.

    A process that runs for years connects to more hosts than it can remember, so the
    least recently used pin is dropped first.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._keys: OrderedDict[Identity, str] = OrderedDict()

    def find(self, identity: Identity) -> str | None:
        """Return the key that the host must show; None if any key is accepted."""
        key = self._keys.get(identity)
        if key is not None:
            self._keys.move_to_end(identity)
        return key

    def keep(self, identity: Identity, shown: str) -> bool:
        """Pin the key of a complete login; return False if another key is already pinned."""
        kept = self._keys.setdefault(identity, shown)
        if len(self._keys) > self._most:
            self._keys.popitem(last=False)
        return kept == shown
