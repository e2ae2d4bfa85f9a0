"""Describes an exception that must not happen: a bug, in a plugin or in our own code.

A traceback shows values of the program, which may be secrets, and few readers need it. The
place where the bug is, is enough to find it.
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from fleeting._text import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("describe_bug",)

_TEXT_SHOWN = 300
# A shorter text is a word such as a region, and would hide parts of other words.
_SECRET_LENGTH = 6
_FULL = {errno.EMFILE, errno.ENFILE}


def describe_bug(
    error: BaseException, *, where: bool = False, hidden: Iterable[object] = ()
) -> str:
    """Return one printable sentence about an unexpected exception.

    Args:
        error: the exception; of a group, the first one.
        where: whether to add the places in the code, the innermost first.
        hidden: configurations whose values may be secrets; none of them is quoted.
    """
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    text = str(error)
    for word in sorted(_words(hidden), key=len, reverse=True):
        text = text.replace(word, "[hidden]")
    text = plain(text)
    text = text if len(text) <= _TEXT_SHOWN else f"{text[:_TEXT_SHOWN]}..."
    if isinstance(error, OSError) and error.errno in _FULL:
        return f"this computer has no open files left for it ({text}); raise `ulimit -n`"
    name = type(error).__name__
    sentence = f"unexpected error, a bug: {name}: {text}" if text else f"unexpected {name}, a bug"
    if not where:
        return sentence
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    places = [
        f"{Path(one.filename).parent.name}/{Path(one.filename).name}:{one.lineno} in {one.name}"
        for one in reversed(frames)
    ]
    return f"{sentence}; at {', called from '.join(places)}" if places else sentence


def _words(value: object) -> Iterator[str]:
    """Yield all texts in a configuration that are long enough to be a secret."""
    if isinstance(value, (str, Path)):
        if len(str(value)) >= _SECRET_LENGTH:
            yield str(value)
    elif isinstance(value, Mapping):
        yield from _words(tuple(cast("Mapping[object, object]", value).values()))
    elif isinstance(value, Iterable):
        for one in cast("Iterable[object]", value):
            yield from _words(one)
    else:
        # A struct of msgspec, or a dataclass.
        kind = type(value)
        fields: Iterable[str] = getattr(kind, "__struct_fields__", ())
        fields = (*fields, *getattr(kind, "__dataclass_fields__", ()))
        yield from _words([getattr(value, name, None) for name in fields])
