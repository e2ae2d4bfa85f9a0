"""The mutants that no test can kill, each with the reason.

They are kept in `equivalents.toml`, by what they look like and not by line
number, so that changes elsewhere in a file leave them valid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

    from tests.mutation.mutants import Mutant

__all__ = ("Equivalent", "as_toml", "read_equivalents")


class Equivalent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mutant that behaves like the original, or differs in what nobody may rely on.

    Attributes:
        file: its name.
        where: the qualified name of the function or class; empty for the module itself.
        before: the lines that are changed.
        after: what they become; empty if they are taken out.
        reason: why no test can tell it from the original.
    """

    file: str
    where: str
    before: str
    after: str
    reason: str

    @property
    def looks(self) -> tuple[str, str, str, str]:
        """Return what a mutant is known by."""
        return self.file, self.where, self.before, self.after


class _List(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    equivalent: tuple[Equivalent, ...] = ()


def read_equivalents(path: Path) -> dict[tuple[str, str, str, str], Equivalent]:
    """Return the list that a file holds, by what the mutants look like.

    Raises:
        ValueError: it cannot be read, or an entry has no reason or comes twice.
    """
    listed = msgspec.toml.decode(path.read_bytes(), type=_List).equivalent
    found: dict[tuple[str, str, str, str], Equivalent] = {}
    for one in listed:
        if not one.reason.strip():
            raise ValueError(f"{path}: {one.looks} has no reason; say why no test can kill it")
        if one.looks in found:
            raise ValueError(f"{path}: {one.looks} is listed twice; delete one of them")
        found[one.looks] = one
    return found


def as_toml(mutant: Mutant) -> str:
    """Return the entry for a mutant, its reason left to be written."""
    texts = ("file", "where", "before", "after")
    lines = [f"{text} = {_quoted(getattr(mutant, text))}" for text in texts]
    return "\n".join(("[[equivalent]]", *lines, 'reason = ""'))


def _quoted(text: str) -> str:
    # JSON's strings are TOML's.
    return msgspec.json.encode(text).decode()
