"""Mistakes in decisions that were made by hand, each with the test that notices it.

`semantic/` has a file for each subject. Unlike the mutants of `mutants.py`, each of these is a
wrong rule that is easy to write: it reads well, and often differs from the right one in a rare
situation only. So a named test must notice it, and not only an example that Hypothesis may find.
"""

from __future__ import annotations

import ast
import difflib
from typing import TYPE_CHECKING

import msgspec
from tests.mutation.mutants import Mutant

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ("Mistake", "names_of_tests", "read_mistakes")


class Mistake(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mistake made by hand.

    Attributes:
        name: what the scaler does wrong, as a sentence.
        file: the path of the file in the core.
        before: a text that the file has once.
        after: the text in its place.
        killer: the id of the test that notices it.
    """

    name: str
    file: str
    before: str
    after: str
    killer: str

    def apply(self, sources: Mapping[str, str]) -> Mutant:
        """Return the core with the mistake.

        Args:
            sources: the files of the core by their paths.

        Raises:
            ValueError: the mistake does not fit the sources any more.
        """
        source = sources.get(self.file)
        if source is None:
            raise ValueError(f"{self.name!r}: the core has no file {self.file}")
        count = source.count(self.before)
        if count != 1:
            raise ValueError(
                f"{self.name!r}: the text to change occurs {count} times in {self.file}; it has "
                "to occur once, so write the mistake again for the code as it is now"
            )
        mutated = source.replace(self.before, self.after)
        if ast.dump(ast.parse(mutated)) == ast.dump(ast.parse(source)):
            raise ValueError(f"{self.name!r}: the change makes no difference to the code")
        line = source[: source.index(self.before)].count("\n") + 1
        return Mutant(self.file, self.name, self.before, self.after, 0, line, mutated)

    def difference(self, sources: Mapping[str, str]) -> str:
        """Return the change as a readable diff."""
        before = sources[self.file].splitlines()
        after = self.apply(sources).source.splitlines()
        return "\n".join(difflib.unified_diff(before, after, self.file, lineterm="", n=1))


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    mistake: tuple[Mistake, ...]


def read_mistakes(folder: Path) -> dict[str, tuple[Mistake, ...]]:
    """Return the mistakes by their subject, which is the name of their file.

    Raises:
        ValueError: a file is invalid, or a name is used twice.
    """
    found: dict[str, tuple[Mistake, ...]] = {}
    names: set[str] = set()
    for path in sorted(folder.glob("*.toml")):
        try:
            found[path.stem] = msgspec.toml.decode(path.read_bytes(), type=_Table).mistake
        except msgspec.MsgspecError as error:
            raise ValueError(f"{path}: {error}") from error
        for one in found[path.stem]:
            if one.name in names:
                raise ValueError(f"{path}: {one.name!r} is the name of another mistake, too")
            names.add(one.name)
    return found


def names_of_tests(source: str) -> Iterator[str]:
    """Yield the names of the tests of a file that do not leave the examples to Hypothesis."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            by_chance = any("given" in ast.dump(one) for one in node.decorator_list)
            if not by_chance:
                yield node.name
