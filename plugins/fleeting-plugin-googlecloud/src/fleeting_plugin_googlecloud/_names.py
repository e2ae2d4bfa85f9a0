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

# A name has at most 63 characters. Of a longer base name the end is left out.
LONGEST = 63
LETTERS = 10
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
    beginning = base[: LONGEST - LETTERS - 1].rstrip("-")
    found: dict[str, None] = {}
    attempt = 0
    while len(found) < count:
        digest = hashlib.sha256(f"{operation}\0{attempt}".encode()).digest()
        name = f"{beginning}-{_letters(digest)}"
        if name not in taken:
            found[name] = None
        attempt += 1
    return tuple(found)


def request_id(*parts: str) -> str:
    """Return the id by which Google recognizes a request that is repeated."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, "\0".join(parts)))


def _letters(digest: bytes) -> str:
    number = int.from_bytes(digest)
    letters: list[str] = []
    for _ in range(LETTERS):
        number, rest = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[rest])
    return "".join(letters)
