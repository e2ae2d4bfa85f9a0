"""Describes an exception that must not happen: a bug, in a plugin or in our own code.

A traceback shows values of the program, which may be secrets, and few readers need it. The
place where the bug is, is enough to find it.
"""

from __future__ import annotations

import errno
import traceback
from pathlib import Path
from typing import cast

from fleeting._secrets import hide_settings
from fleeting._text import foreign

__all__ = ("describe_bug", "quote_bug")

_TEXT_SHOWN = 300
_FULL = {errno.EMFILE, errno.ENFILE}


def quote_bug(error: BaseException) -> str:
    """Return the class and the text of an unexpected exception, such as `KeyError: 'x'`.

    No text of a plugin's settings is quoted, because any of them may be a secret.
    """
    try:
        text = foreign(hide_settings(str(error)), _TEXT_SHOWN)
    except Exception:  # noqa: BLE001 - the text of a plugin's exception is made by its own code
        text = "its text cannot be read"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def describe_bug(error: BaseException, *, where: bool = False) -> str:
    """Return one printable sentence about an unexpected exception.

    Args:
        error: the exception; of a group, the first one.
        where: whether to add the places in the code, the innermost first.
    """
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    quoted = quote_bug(error)
    if isinstance(error, OSError) and error.errno in _FULL:
        return f"this computer has no open files left for it ({quoted}); raise `ulimit -n`"
    sentence = f"unexpected error, a bug: {quoted}"
    if not where:
        return sentence
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    places = [
        f"{Path(one.filename).parent.name}/{Path(one.filename).name}:{one.lineno} in {one.name}"
        for one in reversed(frames)
    ]
    return f"{sentence}; at {', called from '.join(places)}" if places else sentence
