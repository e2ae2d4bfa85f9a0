"""The standard streams of a process that is about to run a command line."""

from __future__ import annotations

import os

_STDERR = 2


def open_standard_streams() -> None:
    """Connect those to nothing that were closed by who started us, as by `>&-`.

    Else the next file to be opened would take their numbers, and get what we write to them.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        pass
    os.close(descriptor)
