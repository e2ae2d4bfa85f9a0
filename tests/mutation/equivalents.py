"""The list of mutants that no test can kill, each with the reason.

`equivalents.toml` identifies them by the changed lines and not by line numbers, so that an entry
stays valid when other parts of the file change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

    from tests.mutation.mutants import Mutant

__all__ = ("Equivalent", "as_toml", "read_equivalents")


class Equivalent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mutant that behaves like the original, or differs only in an unspecified detail.

    Attributes:
        file: the path of the file in the core.
        where: the qualified name of the function or class; empty for the module itself.
        before: the lines that are changed.
        after: the lines after the change; empty if they are removed.
        reason: why no test can tell the mutant from the original.
    """

    file: str
    where: str
    before: str
    after: str
    reason: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Return the key that identifies the mutant."""
        return self.file, self.where, self.before, self.after


class _List(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    equivalent: tuple[Equivalent, ...] = ()


def read_equivalents(path: Path) -> dict[tuple[str, str, str, str], Equivalent]:
    """Return the entries of a file by their keys.

    Raises:
        ValueError: the file is invalid, or an entry has no reason or is listed twice.
    """
    listed = msgspec.toml.decode(path.read_bytes(), type=_List).equivalent
    found: dict[tuple[str, str, str, str], Equivalent] = {}
    for one in listed:
        if not one.reason.strip():
            raise ValueError(f"{path}: {one.key} has no reason; say why no test can kill it")
        if one.key in found:
            raise ValueError(f"{path}: {one.key} is listed twice; delete one of them")
        found[one.key] = one
    return found


def as_toml(mutant: Mutant) -> str:
    """Return the entry for a mutant, with an empty reason."""
    texts = ("file", "where", "before", "after")
    lines = [f"{text} = {_quoted(getattr(mutant, text))}" for text in texts]
    return "\n".join(("[[equivalent]]", *lines, 'reason = ""'))


def _quoted(text: str) -> str:
    # Each JSON string is also a TOML string.
    return msgspec.json.encode(text).decode()
