"""Filters the output of jobs for a terminal: text and colours pass, and nothing else does.

A job could otherwise clear the screen, forge the lines of other jobs, change the title of the
window, or make the terminal type an answer into the user's shell.
"""

from __future__ import annotations

import re

__all__ = ("RESET", "Colours", "TerminalFilter", "is_invisible")

RESET = b"\x1b[0m"
# A longer sequence is not worth waiting for.
_SEQUENCE_BYTES = 4096

_COLOUR = re.compile(rb"\x1b\[([0-9;:]{0,200})m")
# The codes of each kind of style, and the one that ends it.
_STYLES = {
    "text": ((*range(30, 39), *range(90, 98)), 39),
    "background": ((*range(40, 49), *range(100, 108)), 49),
    "line colour": ((58,), 59),
    "weight": ((1, 2), 22),
    "slant": ((3, 20), 23),
    "underline": ((4, 21), 24),
    "blink": ((5, 6), 25),
    "inverse": ((7,), 27),
    "hidden": ((8,), 28),
    "strike": ((9,), 29),
    "font": (range(11, 20), 10),
    "frame": ((51, 52), 54),
    "overline": ((53,), 55),
}
_BEGINS = {code: style for style, (codes, _) in _STYLES.items() for code in codes}
_ENDS = {end: style for style, (_, end) in _STYLES.items()}
# After these come the numbers of a colour: `5;N`, or `2;R;G;B`.
_EXTENDED = (38, 48, 58)
_EXTENDED_NUMBERS = {b"5": 1, b"2": 3}
_SPECIAL = re.compile(
    rb"(?P<colour>\x1b\[[0-9;:]{0,200}m)"
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


def is_invisible(line: bytes) -> bool:
    """Return whether a line has no text, but colours at most."""
    return not _COLOUR.sub(b"", line)


class Colours:
    """The colours and styles that one stream has set and not ended."""

    def __init__(self) -> None:
        self._set: dict[str, bytes] = {}

    @property
    def start(self) -> bytes:
        """Return what sets them again; empty if there are none."""
        return b"\x1b[" + b";".join(self._set.values()) + b"m" if self._set else b""

    @property
    def end(self) -> bytes:
        """Return what ends them for a while; empty if there are none."""
        return RESET if self._set else b""

    def follow(self, piece: bytes) -> None:
        """Read the next output of the stream, which divides no sequence."""
        if b"\x1b[" in piece:
            for found in _COLOUR.finditer(piece):
                self._apply(found[1])

    def enclose(self, line: bytes) -> bytes:
        """Return the next line with the colours of the line before, and with an end to its own."""
        start = self.start
        self.follow(line)
        return start + line + self.end

    def _apply(self, parameters: bytes) -> None:
        words = iter(parameters.split(b";"))
        for word in words:
            head = word.partition(b":")[0]
            code = int(head[:4] or b"0")
            if code in _EXTENDED and head == word:
                kind = next(words, b"")
                numbers = [next(words, b"") for _ in range(_EXTENDED_NUMBERS.get(kind, 0))]
                word = b";".join((head, kind, *numbers))  # noqa: PLW2901 - the whole of it
            if code == 0:
                self._set.clear()
            elif code in _ENDS:
                self._set.pop(_ENDS[code], None)
            elif code in _BEGINS:
                self._set[_BEGINS[code]] = word


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
