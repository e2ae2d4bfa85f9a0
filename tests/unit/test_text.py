"""The door for foreign text."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from typing import TYPE_CHECKING

from fleeting._text import foreign, plain, say, say_json

if TYPE_CHECKING:
    import pytest

EVIL = "\x1b[2Jgone\n\x9b1Aerror: forged\u202e\r"


def test_foreign_text_is_one_short_line() -> None:
    """Line breaks become spaces, the rest is escaped, and the length is bounded."""
    assert foreign(EVIL) == r"\x1b[2Jgone \x9b1Aerror: forged\u202e"
    assert foreign("x" * 1000, 10) == "x" * 10 + "..."
    assert foreign("short", 5) == "short"


def test_a_line_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A message stays one line, whatever is in it; a lone surrogate can be printed, too."""
    say(f"failed: {EVIL}\udcff", err=True)
    assert capsys.readouterr().err == f"failed: {plain(EVIL)}\\udcff\n"


def test_json_stays_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters are escaped as JSON does, and the document means the same."""
    say_json(json.dumps({"a": EVIL + "\U000e0001"}, indent=2, ensure_ascii=False))
    printed = capsys.readouterr().out
    assert all(line.isprintable() for line in printed.splitlines())
    assert json.loads(printed) == {"a": EVIL + "\U000e0001"}


def test_log_messages_are_escaped() -> None:
    """Without a configuration of logging, warnings reach the terminal: they are escaped as well."""
    code = (
        "import logging\nfrom fleeting._text import guard_logs\nguard_logs()\n"
        f"logging.getLogger('x').warning('%s', {EVIL!r})\n"
        "try: raise ValueError('\\x1b[2J')\n"
        "except ValueError: logging.getLogger('x').exception('lost')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, *others = done.stderr.splitlines()
    assert first == plain(EVIL)
    assert all(line.isprintable() for line in others)
    assert logging.lastResort is not None
