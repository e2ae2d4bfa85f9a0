"""Names new instances.

The group's `createInstances` takes the names of the new instances, so a repeated
request adds nothing. The names follow from the operation: repeating an operation
gives the same names, and the listing tells which of them exist.

A name is the group's base name and letters from a hash. With ten letters and
100,000 names in use, fewer than one of ten billion new names is taken.
"""

from __future__ import annotations

import hashlib
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ("instance_names", "request_id")

# A name has at most 63 characters, and the base name at most 58.
LONGEST = 63
LETTERS = 10
FEWEST_LETTERS = 4
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


def instance_names(
    base: str, operation: str, count: int, taken: Collection[str] = ()
) -> tuple[str, ...]:
    """Return the names of the instances that an operation creates.

    Args:
        base: the group's base name.
        operation: the identifier of the request.
        count: the number of instances.
        taken: names that belong to other instances.
    """
    length = min(LETTERS, LONGEST - len(base) - 1)
    found: dict[str, None] = {}
    attempt = 0
    while len(found) < count:
        digest = hashlib.sha256(f"{operation}\0{attempt}".encode()).digest()
        name = f"{base}-{_letters(digest, max(FEWEST_LETTERS, length))}"
        if name not in taken:
            found[name] = None
        attempt += 1
    return tuple(found)


def request_id(*parts: str) -> str:
    """Return the id by which Google recognizes a request that is repeated."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, "\0".join(parts)))


def _letters(digest: bytes, length: int) -> str:
    number = int.from_bytes(digest)
    letters: list[str] = []
    for _ in range(length):
        number, rest = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[rest])
    return "".join(letters)
