"""Filters the output of jobs for a terminal: text and colours pass, and nothing else does.

A job could otherwise clear the screen, forge the lines of other jobs, change the title of the
window, or make the terminal type an answer into the user's shell.
"""

from __future__ import annotations

import re

__all__ = ("RESET", "TerminalFilter", "has_colour")

RESET = b"\x1b[0m"
# A longer sequence is not worth waiting for.
_SEQUENCE_BYTES = 4096

_COLOUR = re.compile(rb"\x1b\[[0-9;:]*m")
_SPECIAL = re.compile(
    rb"(?P<colour>\x1b\[[0-9;:]*m)"
    rb"|\x1b\[[0-?]*[ -/]*[@-~]"  # other control sequences
    rb"|\x1b[\]PX^_][^\x07\x1b\x18\x1a]*(?:\x07|\x1b\\|[\x18\x1a])"  # strings, such as a title
    rb"|\x1b[ -/]*[0-OQ-WYZ\\`-~]"  # other escape sequences
    rb"|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]"
    rb"|\xc2[\x80-\x9f]"  # the same controls in one character, in UTF-8
    rb"|\x1b"  # one that begins no sequence
)
_UNFINISHED = re.compile(
    rb"(?:\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b\x18\x1a]*\x1b?|[ -/]*)?|\xc2)\Z"
)
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\xc2")


def has_colour(data: bytes) -> bool:
    """Return whether some output sets a colour or a style."""
    return _COLOUR.search(data) is not None


class TerminalFilter:
    """Filters one stream; a sequence may be divided among chunks."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Return what may be shown; an unfinished sequence is held back."""
        data = self._held + data
        self._held = b""
        if not _CONTROL.search(data):
            return data
        unfinished = _UNFINISHED.search(data)
        if unfinished:
            data, self._held = data[: unfinished.start()], unfinished[0]
            if len(self._held) > _SEQUENCE_BYTES:
                self._held = b""
        return _SPECIAL.sub(lambda found: found["colour"] or b"", data)
