"""The standard streams of a process that is about to run a command line."""

from __future__ import annotations

import os
import sys

_STDIN, _STDOUT, _STDERR = 0, 1, 2


def open_standard_streams() -> None:
    """Connect those to nothing that were closed by who started us, as by `>&-`.

    Else the next file to be opened would take their numbers, and get what we write to them; and
    the interpreter has nothing at all in their place, which nobody expects.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        pass
    os.close(descriptor)
    # Python has given up on those by now.
    sys.stdin = sys.stdin or os.fdopen(_STDIN, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(_STDOUT, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(_STDERR, "w", closefd=False)
