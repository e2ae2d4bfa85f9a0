"""The standard streams of a process that is about to run a command line."""

from __future__ import annotations

import os
import sys

_STDERR = 2


def open_standard_streams() -> None:
    """Connect those to nothing that were closed by who started us, as by `>&-`.

    Else the next file to be opened would take their numbers, and get what we write to them; and
    the interpreter has nothing at all in their place, which nobody expects.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        pass
    os.close(descriptor)
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", _STDERR, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - for as long as we live
